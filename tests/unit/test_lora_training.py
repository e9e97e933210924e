"""Training of LoRAs on a model small enough for seconds: data, losses, resume, kills, processes, the written file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from engine import MovaPipeline
from engine.errors import RequestError
from engine.lora import Library, Strengths, use
from engine.lora.choice import FITS, Choice, judge
from engine.lora.formats import read_lora
from engine.media import write_clip
from engine.training import checkpoint
from engine.training.flow import JointObjective, Networks
from engine.training.log import read_lines
from engine.training.lora import cache as store
from engine.training.lora.clips import Format, load, scan
from engine.training.lora.progress import read_progress
from engine.training.lora.run import LoraOrder, train_lora
from engine.training.lora.settings import LoraSettings
from engine.training.lora.task import WHOLE, Levels, LoraObjective, LoraTask
from engine.training.text import encode
from engine.weights import load_component, load_text_encoder

TINY = Path(__file__).parents[1] / "data" / "mova-tiny" / "checkpoint"
PROFILE = {"sizes": [[64, 64]], "frames": 9, "steps": 2, "guidance": 2.0, "negative_prompt": ""}
FORM = Format(64, 64, 24.0, 9)
SETTINGS = LoraSettings(
    trigger="zorb", steps=12, batch=4, rank=4, rate=1e-3, warmup=2, ema=0.5, save_every=3, sample_every=12, seed=3
)


def clip(path: Path, frames: int, seed: int, sound: bool = True, size: int = 64) -> None:
    """A moving pattern with a tone."""
    rng = np.random.default_rng(seed)
    shade = np.linspace(0, 255, frames)[:, None, None, None] * rng.random(3)
    pictures = (shade + rng.integers(0, 60, (frames, size, size, 3))).clip(0, 255).astype(np.uint8)
    count = round(frames / 24 * 48000)
    tone = np.sin(np.arange(count) * rng.uniform(0.02, 0.2)) * 0.3 if sound else np.zeros(count)
    write_clip(path, pictures, tone.astype(np.float32), 24.0, 48000, {}, sidecar=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a small profile, four clips with captions, and a cache of its own."""
    folder = tmp_path_factory.mktemp("lora")
    shutil.copytree(TINY, folder / "model")
    (folder / "model" / "studio.json").write_text(json.dumps(PROFILE), encoding="utf-8")
    (folder / "clips").mkdir()
    for i in range(4):
        clip(folder / "clips" / f"{i}.mp4", 9, i)
        (folder / "clips" / f"{i}.txt").write_text(f"a zorb number {i}\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.lora.run.cache_folder", lambda: home / "cache")


def order(home: Path, name: str, **changes: object) -> LoraOrder:
    return LoraOrder(
        home / "clips", home / "model", name, replace(SETTINGS, **changes), home / name,  # type: ignore[arg-type]
        old_prompts=("a red ball", "a bell rings"), device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """The folder of an uninterrupted run, its result in a library beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.training.lora.run.cache_folder", lambda: home / "cache")
        done = train_lora(order(home, "whole"), Library(home / "library"))
    assert done is not None
    return home / "whole"


def test_the_result_fits_says_its_trigger_and_acts(home: Path, whole: Path) -> None:
    library = Library(home / "library")
    (entry,) = library.entries()
    assert entry.about.triggers == ("zorb",)
    assert entry.preview is not None
    assert entry.preview.suffix == ".mp4"
    assert entry.ranks == (4,)
    assert set(entry.parts) == {"high", "low", "audio", "bridge"}
    assert judge(entry, home / "model").status == FITS
    metadata = read_lora(entry.path).header.metadata
    assert metadata["mova.steps"] == "12"
    assert len(metadata["mova.base_digest"]) == len(metadata["mova.data_digest"]) == 64
    pipe = MovaPipeline.from_pretrained(home / "model")
    (applied,) = use(pipe, [Choice(entry.sha256, "", Strengths())], library)
    assert set(applied.effects) == {"high", "low", "audio", "bridge"}
    assert all(effect > 0 for effect in applied.effects.values())
    card = (whole / "card.md").read_text(encoding="utf-8")
    assert "Say **zorb**" in card
    assert "samples/step-000012-1.mp4" in card
    progress = read_progress(whole)
    assert progress.step == progress.steps == 12
    assert (progress.stage, progress.saved) == ("finish", True)
    assert len(progress.samples) == 2
    assert [line["step"] for line in progress.curves] == list(range(1, 13))
    assert progress.file == whole / "whole.safetensors"


@pytest.mark.parametrize("cut", [1, 7])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(home: Path, whole: Path, cut: int) -> None:
    cut_order = order(home, f"cut-{cut}")
    assert train_lora(cut_order, until=cut) is None
    assert checkpoint.read(cut_order.folder / "checkpoint.pt")["step"] == cut
    torch.manual_seed(99)  # whatever the second process finds must not matter
    assert train_lora(cut_order) is not None
    ours, theirs = (checkpoint.read(f / "checkpoint.pt") for f in (cut_order.folder, whole))
    for part in ("model", "average"):
        assert all(torch.equal(v, ours[part][n]) for n, v in theirs[part].items())
    files = [read_lora(next(f.glob("*.safetensors"))).header.path.read_bytes() for f in (cut_order.folder, whole)]
    header = [int.from_bytes(f[:8], "little") for f in files]
    assert files[0][8 + header[0] :] == files[1][8 + header[1] :]


def test_finished_early_it_is_what_was_learned_so_far(home: Path) -> None:
    early = order(home, "early", sample_every=0)
    with pytest.raises(RequestError, match="nothing yet"):
        train_lora(early, finish=True)
    assert train_lora(early, until=3) is None
    done = train_lora(early, Library(home / "library-early"), finish=True)
    assert done is not None
    state = checkpoint.read(early.folder / "checkpoint.pt")
    assert state["step"] == 3
    found = read_lora(done.path)
    assert found.header.metadata["mova.steps"] == "3"
    assert done.entry is not None
    assert not done.entry.weak


def test_other_settings_do_not_go_on_from_a_checkpoint(home: Path, whole: Path) -> None:
    with pytest.raises(RequestError, match="another rank, seed"):
        train_lora(order(home, "whole", rank=8, seed=4))


def command(home: Path, name: str, *more: str) -> list[str]:
    """The same run by the command line."""
    words = [
        "engine.training.cli", "lora", "--data", str(home / "clips"), "--base", str(home / "model"), "--name", name,
        "--work", str(home / name), "--no-library", "--device", "cpu", "--threads", "1", "--trigger", "zorb", "--steps",
        "12", "--batch", "4", "--rank", "4", "--rate", "1e-3", "--warmup", "2", "--ema", "0.5", "--save-every", "3",
        "--sample-every", "0", "--seed", "3", "--precision", "float32", *more,
    ]  # fmt: skip
    return ["-m", *words]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(home / "xdg"), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}


@pytest.mark.slow
def test_two_processes_equal_one(home: Path) -> None:
    """gloo under accelerate: the same losses and the same factors as one process with the same batch."""
    env = environment(home)
    one = subprocess.run([sys.executable, *command(home, "one")], env=env, capture_output=True, text=True, check=False)
    assert one.returncode == 0, one.stderr
    run = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d"]
    run += ["--rdzv_endpoint=127.0.0.1:0", *command(home, "two")]
    two = subprocess.run([sys.executable, *run], env=env, capture_output=True, text=True, check=False)
    assert two.returncode == 0, two.stderr[-2000:]
    a, b = (checkpoint.read(home / name / "checkpoint.pt") for name in ("one", "two"))
    for name, value in a["average"].items():
        torch.testing.assert_close(b["average"][name], value, rtol=1e-4, atol=1e-5)
    lines = [[r for r in read_lines(home / name / "log.jsonl") if "loss" in r] for name in ("one", "two")]
    assert len(lines[0]) == len(lines[1]) > 0
    for first, second in zip(*lines, strict=True):
        for side in ("loss", "video", "audio", "norm"):
            assert second[side] == pytest.approx(first[side], rel=1e-5), side


@pytest.mark.slow
def test_a_kill_leaves_a_whole_checkpoint(home: Path, tmp_path: Path) -> None:
    tally = kill_again_and_again(home, "killed", kills=2, seed=4)
    assert tally["torn"] == 0
    assert tally["finished"]
    assert not tally["left"]


def kill_again_and_again(home: Path, name: str, kills: int, seed: int) -> dict[str, object]:
    """SIGKILL at random moments of a training, then its end; also used by tests/campaigns/kill_lora_training.py."""
    rng = np.random.default_rng(seed)
    env, path, torn, steps = environment(home), home / name / "checkpoint.pt", 0, []
    more = ("--steps", str(max(12, 3 * kills)), "--save-every", "1")
    for _ in range(kills):
        before = path.stat().st_mtime_ns if path.exists() else 0
        process = subprocess.Popen([sys.executable, *command(home, name, *more)], env=env, stderr=subprocess.DEVNULL)
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 300:
            if path.exists() and path.stat().st_mtime_ns != before:
                break
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.3)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            steps.append(checkpoint.read(path)["step"])
        except Exception:  # whatever a torn file raises is counted, and fails the test
            torn += 1
    done = subprocess.run([sys.executable, *command(home, name, *more)], env=env, capture_output=True, check=False)
    left = [p.name for p in path.parent.glob("*.part")]
    return {"kills": kills, "torn": torn, "steps": steps, "finished": done.returncode == 0, "left": left}


def objective_of(pipe: MovaPipeline, settings: LoraSettings = SETTINGS) -> LoraObjective:
    from engine.lora import stack_of

    grown = stack_of(pipe).grow(settings.rank, settings.scale_alpha, lambda p, m: settings.takes(m), settings.seed)
    return LoraObjective(pipe.high_noise, pipe.low_noise, grown, settings, pipe.latent_fps(24.0))


def examples(pipe: MovaPipeline, count: int) -> tuple[list[store.Example], torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    c = pipe.high_noise.config
    z, n, width = c.video["out_dim"], c.audio["in_dim"], c.video["text_dim"]
    made = [
        store.Example(
            torch.randn(z, 3, 8, 8, generator=g), torch.randn(n, 19, generator=g),
            torch.randn(c.video["in_dim"] - z, 3, 8, 8, generator=g), torch.randn(3 + i, width, generator=g),
        )
        for i in range(count)
    ]  # fmt: skip
    blank = torch.randn(c.video["in_dim"] - z, 3, 8, 8, generator=g)
    return made, blank, torch.randn(1, width, generator=g)


def test_losses_are_those_of_full_training(home: Path) -> None:
    """Before anything is learned, the errors are those that the training of the whole model takes."""
    pipe = MovaPipeline.from_pretrained(home / "model")
    texts = ["a red ball", "a much longer sentence about a bell"]
    tokens = pipe.tokenizer(texts, padding="max_length", max_length=40, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    load_ = [load_component(home / "model", n, torch.float32, torch.device("cpu")) for n in
             ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge")]  # fmt: skip
    encoder = load_text_encoder(home / "model", torch.float32, torch.device("cpu"))
    joint = JointObjective(Networks(*load_), encoder, pipe.latent_fps(24.0), 1.0)
    made, blank, empty = examples(pipe, 2)
    embeds = pipe.encode_prompt(texts).embeds.clone()
    made = [replace(e, text=embeds[i, : int(mask[i].sum())]) for i, e in enumerate(made)]
    levels = Levels(0.9, 3.0, 3.0, pipe.latent_fps(24.0))
    settings = replace(SETTINGS, batch=2)
    task = LoraTask(objective_of(pipe, settings), levels, made, [], blank, empty)
    sigmas = torch.tensor([0.95, 0.92]), torch.tensor([0.4, 0.8])
    inputs = task.inputs(made, [e.text for e in made], [True, False], sigmas, torch.Generator().manual_seed(1))
    weights = {"video_weight": torch.full((2,), 0.5), "audio_weight": torch.full((2,), 0.5)}
    with torch.no_grad():
        _, figures = task.objective(**inputs, **weights, kept=torch.zeros(2, dtype=torch.bool), expert="high")
        named = {k: v for k, v in inputs.items() if k != "text"}
        video, audio = joint.errors(text=encode(encoder, ids, mask), expert="high", **named)
    assert float(figures["video"]) == pytest.approx(float(video.mean()), rel=1e-5)
    assert float(figures["audio"]) == pytest.approx(float(audio.mean()), rel=1e-5)


def test_what_is_kept_costs_nothing_until_something_is_learned(home: Path) -> None:
    pipe = MovaPipeline.from_pretrained(home / "model")
    settings = replace(SETTINGS, keep=0.375)
    objective = objective_of(pipe, settings)
    new, blank, empty = examples(pipe, 3)
    old = [replace(e, condition=None) for e in new[:2]]
    task = LoraTask(objective, Levels(0.9, 3.0, 3.0, 6.0), new, old, blank, empty)
    assert [int(task.batch(step, 0, 1)["kept"].sum()) for step in range(4)] == [0, 0, 2, 4]
    assert task.batch(2, 0, 1)["shares"] == dict.fromkeys(("video", "audio", "kept_video", "kept_audio"), 0.5)
    batch = task.batch(2, 0, 1) | {"shares": WHOLE}
    loss, figures = objective(**batch)
    assert max(float(figures["kept_video"]), float(figures["kept_audio"])) < 1e-9
    assert float(figures["video"]) > 0.1
    loss.backward()
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            if name.endswith("/up"):
                parameter.add_(0.05)
    counted, after = objective(**batch)
    assert float(after["kept_video"]) > 1e-6
    kept, fresh = (float(after[f"{k}video"]) + settings.audio_weight * float(after[f"{k}audio"]) for k in ("kept_", ""))
    assert float(counted.detach()) == pytest.approx(fresh + settings.keep_weight * kept, rel=1e-5)
    assert sum(p.numel() for p in objective.parameters()) == sum(
        p.numel() for pair in objective.grown.pairs.values() for p in pair
    )
    assert not any(p.requires_grad for n, p in pipe.low_noise.named_parameters() if "lora_" not in n)


@pytest.mark.parametrize(
    ("batch", "keep", "expected"),
    [(4, 0.25, [0, 0, 0, 4]), (1, 0.25, [0, 0, 0, 1]), (1, 0.1, [0, 0, 0, 1]), (1, 0.9, [0, 1, 1, 1]), (2, 0, [0] * 4)],
)
def test_kept_samples_are_gathered(home: Path, batch: int, keep: float, expected: list[int]) -> None:
    pipe = MovaPipeline.from_pretrained(home / "model")
    new, blank, empty = examples(pipe, 2)
    objective = objective_of(pipe, replace(SETTINGS, batch=batch, keep=keep))
    task = LoraTask(objective, Levels(0.9, 3.0, 3.0, 6.0), new, new, blank, empty)
    assert [task.kept_at(step) for step in range(4)] == expected
    assert [int(task.batch(step, 0, 1)["kept"].sum()) for step in range(4, 8)] == expected


@pytest.mark.parametrize("keeps", [False, True])
def test_with_something_to_keep_only_that_loses_its_words(home: Path, keeps: bool) -> None:
    """Without words the model makes what guidance leads away from, and that shall not become the new thing."""
    pipe = MovaPipeline.from_pretrained(home / "model")
    new, blank, empty = examples(pipe, 2)
    settings = replace(SETTINGS, batch=4, keep=0.25, text_drop=0.1)
    task = LoraTask(objective_of(pipe, settings), Levels(0.9, 3.0, 3.0, 6.0), new, new if keeps else [], blank, empty)
    wordless = {False: 0, True: 0}
    for step in range(200):
        batch = task.batch(step, 0, 1)
        for text, kept in zip(batch["text"], batch["kept"].tolist(), strict=True):
            wordless[kept] += bool(torch.equal(text[: len(empty)], empty.float()) and not text[len(empty) :].any())
    assert sum(wordless.values()) / 800 == pytest.approx(0.1, abs=0.03)
    assert (wordless[False] == 0) is keeps
    assert (wordless[True] > 0) is keeps


def test_few_kept_clips_show_many_words(home: Path) -> None:
    """Half of the kept samples have their clip's own words, the others those of any line, which may have no clip."""
    pipe = MovaPipeline.from_pretrained(home / "model")
    made, blank, empty = examples(pipe, 4)
    new, old = made[:1], [replace(e, text=torch.full((3, e.text.shape[1]), 1.0 + i)) for i, e in enumerate(made[2:])]
    lines = [torch.full((3, e.text.shape[1]), float(i)) for i, e in enumerate([made[0]] * 40, 1)]
    settings = replace(SETTINGS, batch=4, keep=0.5, text_drop=0.0)
    task = LoraTask(
        objective_of(pipe, settings), Levels(0.9, 3.0, 3.0, 6.0), new, old, blank, empty, old_texts=lines
    )  # fmt: skip
    own, seen, count = 0, set(), 0
    for step in range(200):
        batch = task.batch(step, 0, 1)
        for video, text, kept in zip(batch["video"], batch["text"], batch["kept"].tolist(), strict=True):
            if not kept:
                assert torch.equal(video, new[0].video.float())
                continue
            clip = next(i for i, e in enumerate(old) if torch.equal(video, e.video.float()))
            count, word = count + 1, int(text[0, 0])
            own, seen = own + (word == clip + 1), seen | {word}
    assert count == 400
    assert own / count == pytest.approx(0.5, abs=0.08)
    assert seen == set(range(1, 41))


def test_no_more_clips_are_made_than_asked_for_and_all_lines_are_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.training.lora.run.cache_folder", lambda: tmp_path / "cache")
    train_lora(replace(order(home, "few", keep=0.25, keep_clips=1), work=tmp_path / "few"), until=1)
    names = []
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names.append(frozenset(file.keys()))
    assert names.count(frozenset({"video", "audio"})) == 1  # clips of the user have a first picture
    assert names.count(frozenset({"text"})) == 4 + 1 + 2  # captions, nothing, lines to keep


def test_shares_of_processes_are_the_whole_batch(home: Path) -> None:
    pipe = MovaPipeline.from_pretrained(home / "model")
    new, blank, empty = examples(pipe, 3)
    task = LoraTask(objective_of(pipe), Levels(0.9, 3.0, 3.0, 6.0), new, [], blank, empty)
    all_ = task.batch(5, 0, 1)
    shares = [task.batch(5, rank, 2) for rank in range(2)]
    assert torch.equal(all_["video_noise"][0::2], shares[0]["video_noise"])
    assert torch.equal(all_["audio_sigma"][1::2], shares[1]["audio_sigma"])
    drawn = [task.expert_at(step) for step in range(400)]
    assert drawn.count("high") / 400 == pytest.approx(task.levels.high_share, abs=0.08)
    for step in range(20):
        batch = task.batch(step, 0, 1)
        high = batch["video_sigma"] >= 0.9
        assert bool(high.all()) if batch["expert"] == "high" else not bool(high.any())


def test_a_folder_is_looked_through(tmp_path: Path) -> None:
    clip(tmp_path / "good.mp4", 9, 1)
    clip(tmp_path / "long.mp4", 30, 2, size=96)
    clip(tmp_path / "short.mp4", 4, 3)
    clip(tmp_path / "silent.mp4", 9, 4)
    clip(tmp_path / "nameless.mp4", 9, 5)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    (tmp_path / "good.txt").write_text(" A zorb\n hops. ", encoding="utf-8")
    rows = [("long.mp4", "long one"), ("short.mp4", "x"), ("silent.mp4", "y"), ("broken.mp4", "z"), ("gone.mp4", "q")]
    table = "\n".join(json.dumps({"file_name": f, "text": t}) for f, t in rows)
    (tmp_path / "metadata.jsonl").write_text(table, encoding="utf-8")
    found = scan(tmp_path, FORM, "zorb")
    assert [(p.path.name, p.caption) for p in found.pieces if p.path.name != "long.mp4"] == [
        ("good.mp4", "A zorb hops."), ("silent.mp4", "zorb, y"),
    ]  # fmt: skip
    pieces = [p for p in found.pieces if p.path.name == "long.mp4"]
    assert [round(p.start * 24) for p in pieces] == [0, 9, 18]
    assert dict(found.left_out).keys() == {"short.mp4", "nameless.mp4", "broken.mp4", "gone.mp4"}
    assert "0.17 s" in dict(found.left_out)["short.mp4"]
    frames, samples, rate = load(pieces[1], FORM)
    assert frames.shape == (9, 64, 64, 3)
    assert len(samples) == round(FORM.seconds * rate)
    assert frames.mean() > load(pieces[0], FORM)[0].mean()  # it gets brighter: a later piece
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text("file_name,caption\nsilent.mp4,quiet\n", encoding="utf-8")
    assert {p.caption for p in scan(tmp_path, FORM).pieces} == {"A zorb hops.", "quiet"}
    (tmp_path / "metadata.csv").write_text("file_name,caption\n../x.mp4,no\n", encoding="utf-8")
    with pytest.raises(RequestError, match="line 1"):
        scan(tmp_path, FORM)
    with pytest.raises(RequestError, match="does not exist"):
        scan(tmp_path / "nowhere", FORM)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="no clip of empty"):
        scan(tmp_path / "empty", FORM)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("rank", 0, "nearest that is valid: 1"),
        ("rate", float("nan"), "rate nan"),
        ("learn", "smell", "both, picture, sound"),
        ("steps", 2.5, "whole number"),
        ("keep", 1.0, "nearest that is valid: 0.9"),
    ],
)
def test_settings_name_the_nearest_valid_value(name: str, value: object, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        LoraSettings.from_dict({name: value})


def test_settings_come_back_and_narrow_models_learn_faster() -> None:
    assert LoraSettings.from_dict(SETTINGS.to_dict()) == SETTINGS
    with pytest.raises(RequestError, match="no such setting: ranc"):
        LoraSettings.from_dict({"ranc": 3})
    assert LoraSettings().rate_for(5120) == pytest.approx(1e-4)
    assert LoraSettings().rate_for(192) > 4e-4
    assert LoraSettings(rate=3e-4).rate_for(192) == 3e-4

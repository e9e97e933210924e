"""The training code on a recipe small enough for seconds: fast paths against slow twins, resume, export."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine import MovaPipeline
from engine.errors import RequestError
from engine.folders import find_model
from engine.training import checkpoint
from engine.training.adopt import adopt
from engine.training.audio_vae import fold_scale, level_error, wave_error
from engine.training.data import spec_at
from engine.training.demo import STAGES, DemoRun
from engine.training.demo_world import caption, parse_caption
from engine.training.flow import NoiseLevels, joint_blocks
from engine.training.latents import encode_conditions
from engine.training.log import read_lines
from engine.training.loop import Optimization, generator_at
from engine.training.recipe import RECIPES, read_recipe
from engine.training.text import encode, make_tokenizer, tokenize
from engine.training.towers import Later, TowersRecipe, TowersTask
from engine.training.video_vae import DECIBEL_WEIGHT, decode_whole, encode_whole, in_decibels, make_video_vae
from engine.training.widen import widen_decoder

WEIGHTS = "diffusion_pytorch_model.safetensors"
RECIPE = Path(__file__).parents[1] / "data" / "tiny_recipe.toml"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums depend on how many threads share them; what is compared to the bit runs on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """All stages of the tiny recipe, run once."""
    run = DemoRun(read_recipe(RECIPE), tmp_path_factory.mktemp("demo"), device="cpu")
    for stage in STAGES:
        run.run(stage, run.work / "model")
    return run


def _link_other_stages(source: Path, work: Path, stage: str) -> None:
    for name in {"data", "latents", "video-vae", "video-decoder", "audio-vae"} - {stage}:
        (work / name).symlink_to(source / name)


def test_whole_sequence_vae_equals_the_chunked_one() -> None:
    torch.manual_seed(1)
    config = read_recipe(RECIPE).video_config
    vae = make_video_vae(config).eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # time convolutions that do look back
        video = torch.rand(2, 3, 13, 32, 32) * 2 - 1
        slow = vae.encode(video).latent_dist
        mean, logvar = encode_whole(vae, video)
        assert (mean - slow.mean).abs().max() < 1e-5
        assert (logvar - slow.logvar).abs().max() < 1e-4
        slow_frames = vae.decode(mean).sample
        made = decode_whole(vae, mean).clamp(-1, 1)
    assert made.shape == slow_frames.shape == video.shape
    assert (made - slow_frames).abs().max() < 1e-4


def test_wider_decoder_begins_as_the_narrow_one_and_learns_with_all_of_it() -> None:
    torch.manual_seed(1)
    narrow = make_video_vae(read_recipe(RECIPE).video_config).eval()
    with torch.no_grad():
        for parameter in narrow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        video = torch.rand(1, 3, 21, 32, 32) * 2 - 1
        mean, _ = encode_whole(narrow, video)
    wide = widen_decoder(narrow, 6).eval()
    assert torch.equal(encode_whole(wide, video)[0], mean)
    assert (decode_whole(wide, mean) - decode_whole(narrow, mean)).abs().max() < 1e-5
    assert sum(p.numel() for p in wide.decoder.parameters()) > 1.8 * sum(p.numel() for p in narrow.decoder.parameters())
    before = {name: p.detach().clone() for name, p in wide.decoder.named_parameters()}
    learn = torch.optim.AdamW(wide.decoder.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(3):
        learn.zero_grad()
        (decode_whole(wide, mean) - video).square().mean().backward()
        learn.step()
    for name, parameter in wide.decoder.named_parameters():
        if name.endswith("weight"):  # a bias of attention's keys changes nothing, and never learns
            assert float((parameter != before[name]).float().mean()) > 0.95, name
    with pytest.raises(ValueError, match="cannot become one of 3"):
        widen_decoder(narrow, 3)


@pytest.mark.parametrize("stage", ["video-vae", "video-decoder", "audio-vae", "towers"])
def test_resumed_run_equals_the_uninterrupted_one(trained: DemoRun, tmp_path: Path, stage: str) -> None:
    """Bit for bit: weights, optimizer and averages, for every place where a stage can be cut."""
    whole = checkpoint.read(trained.work / stage / "checkpoint.pt")
    rng = np.random.default_rng(5)
    for cut in sorted(rng.choice(np.arange(1, 8), 2, replace=False).tolist()):
        work = tmp_path / f"{stage}-{cut}"
        work.mkdir()
        _link_other_stages(trained.work, work, stage)
        DemoRun(trained.recipe, work, "cpu").run(stage, work, until=cut)
        assert checkpoint.read(work / stage / "checkpoint.pt")["step"] == cut
        torch.manual_seed(999)  # whatever the second process finds must not matter
        DemoRun(trained.recipe, work, "cpu").run(stage, work)
        again = checkpoint.read(work / stage / "checkpoint.pt")
        assert again["step"] == whole["step"]
        for part in ("model", "average"):
            differing = [n for n, v in whole[part].items() if not torch.equal(v, again[part][n])]
            assert not differing, f"cut at {cut}: {differing[:3]}"
        for key, state in whole["optimizer"]["state"].items():
            assert all(torch.equal(v, again["optimizer"]["state"][key][n]) for n, v in state.items())


def test_killed_training_leaves_a_whole_checkpoint(trained: DemoRun, tmp_path: Path) -> None:
    """SIGKILL at random moments: what is there can always be read, and the run can be finished from it."""
    work = tmp_path / "killed"
    work.mkdir()
    (work / "data").symlink_to(trained.work / "data")
    command = [sys.executable, "-m", "engine.training.cli", "demo", "--stage", "audio-vae", "--device", "cpu"]
    command += ["--recipe", str(RECIPE), "--work", str(work), "--threads", "1"]
    rng = np.random.default_rng(3)
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        path, waited = work / "audio-vae" / "checkpoint.pt", time.monotonic()
        while not path.exists() and process.poll() is None and time.monotonic() - waited < 120:
            time.sleep(0.02)
        time.sleep(float(rng.uniform(0, 0.5)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert checkpoint.read(path)["step"] >= 3
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    whole = checkpoint.read(trained.work / "audio-vae" / "checkpoint.pt")
    again = checkpoint.read(work / "audio-vae" / "checkpoint.pt")
    assert all(torch.equal(v, again["average"][n]) for n, v in whole["average"].items())


def test_frozen_encoder_stays_and_decoder_learns(trained: DemoRun, tmp_path: Path) -> None:
    work = tmp_path / "frozen"
    work.mkdir()
    (work / "data").symlink_to(trained.work / "data")
    frozen_from = trained.recipe.audio_windows.frozen_from
    DemoRun(trained.recipe, work, "cpu").run("audio-vae", work, until=frozen_from)
    before = checkpoint.read(work / "audio-vae" / "checkpoint.pt")["average"]
    after = checkpoint.read(trained.work / "audio-vae" / "checkpoint.pt")["average"]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not {n for n in moved if n.startswith(("vae.encoder.", "vae.quant_conv."))}


def test_encoder_learns_in_its_parts_alone(trained: DemoRun, tmp_path: Path) -> None:
    """The recipe's second part leaves the encoder as it is, the third frees it again."""
    work = tmp_path / "parts"
    work.mkdir()
    (work / "data").symlink_to(trained.work / "data")
    first, second, _ = trained.recipe.video_parts
    assert (first.encoder, second.encoder) == (True, False)
    states = []
    for until in (first.steps + 1, first.steps + second.steps, None):  # the averages become the weights at the freeze
        DemoRun(trained.recipe, work, "cpu").run("video-vae", work, until=until)
        states.append(checkpoint.read(work / "video-vae" / "checkpoint.pt")["model"])
    encoder = {name for name in states[0] if name.startswith(("vae.encoder.", "vae.quant_conv."))}

    def moved(a: int, b: int) -> set[str]:
        return {name for name in states[0] if not torch.equal(states[a][name], states[b][name])}

    assert moved(0, 1)
    assert not moved(0, 1) & encoder
    assert moved(1, 2) & encoder


def test_wider_decoder_leaves_the_latents_as_they_are(trained: DemoRun) -> None:
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    narrow, wide = trained.encoding_vae(), trained.video_vae()
    with torch.no_grad():
        latents = encode_whole(wide, video)[0]
        assert torch.equal(latents, encode_whole(narrow, video)[0])
        assert not torch.allclose(decode_whole(wide, latents), decode_whole(narrow, latents), atol=1e-4)
    config = json.loads((trained.work / "model" / "video_vae" / "config.json").read_text())
    assert config["decoder_base_dim"] == 6
    learning = trained.recipe.video_decoder
    assert learning is not None
    text = trained.recipe.text.replace("batch = 2, encoder = false, decibels", "batch = 2, decibels")
    (trained.work / "wrong.toml").write_text(text)
    with pytest.raises(RequestError, match="encoder = false"):
        read_recipe(trained.work / "wrong.toml")


def test_decibel_loss_counts_relative_gains_alike() -> None:
    """Half the error is 6 dB less over all pixels and over moving ones, whatever the error was."""
    rng = torch.Generator().manual_seed(2)
    difference = torch.randn(1, 3, 5, 8, 8, generator=rng)
    moving = torch.rand(1, 1, 5, 8, 8, generator=rng) < 0.3
    for scale in (1.0, 0.1):
        gain = in_decibels(scale * difference, moving) - in_decibels(0.5 * scale * difference, moving)
        assert gain.item() == pytest.approx(DECIBEL_WEIGHT * 2 * np.log(2), rel=1e-3)
    still = torch.zeros_like(moving)
    gain = in_decibels(difference, still) - in_decibels(0.5 * difference, still)
    assert gain.item() == pytest.approx(DECIBEL_WEIGHT * np.log(2), rel=1e-3)
    both, all_, moved = (in_decibels(difference, moving, share).item() for share in (0.5, 0.0, 1.0))
    assert both == pytest.approx(0.5 * (all_ + moved), rel=1e-4)
    assert all_ == pytest.approx(DECIBEL_WEIGHT * float(difference.square().mean().log()), rel=1e-3)
    where = difference.clone().requires_grad_()
    in_decibels(where, moving).backward()
    gradient = where.grad.abs().mean(1, keepdim=True)  # type: ignore[union-attr]
    assert gradient[moving].mean() > 2 * gradient[~moving].mean()


def test_second_expert_begins_as_the_first(trained: DemoRun, tmp_path: Path) -> None:
    work = tmp_path / "experts"
    work.mkdir()
    _link_other_stages(trained.work, work, "towers")
    alone = trained.recipe.towers_steps.alone
    DemoRun(trained.recipe, work, "cpu").run("towers", work, until=alone + 1)
    model = checkpoint.read(work / "towers" / "checkpoint.pt")["model"]
    finished = checkpoint.read(trained.work / "towers" / "checkpoint.pt")["model"]
    name = "blocks.0.video.ffn.0.weight"
    gap = (model[f"high.{name}"] - model[f"low.{name}"]).abs().max()
    assert gap < 3 * 2e-3  # one step of the optimizer apart at most, a learning rate of 1e-3 each
    assert not torch.equal(finished[f"high.{name}"], finished[f"low.{name}"])


def test_exported_model_loads_strictly_and_makes_a_clip(trained: DemoRun) -> None:
    folder = trained.work / "model"
    pipe = MovaPipeline.from_pretrained(folder)
    assert pipe.profile == trained.recipe.studio
    out = pipe("a red ball bounces", num_frames=13, num_inference_steps=2, seed=3, guidance_scale=2.0)
    assert out.frames.shape == (1, 13, 32, 32, 3)
    assert np.isfinite(out.audio).all()
    index = json.loads((folder / "model_index.json").read_text())
    assert index["boundary_ratio"] == trained.recipe.towers_steps.boundary
    assert (folder / "recipe.toml").read_text() == RECIPE.read_text()


def test_training_goes_on_from_the_finished_model(trained: DemoRun, tmp_path: Path) -> None:
    """Without any checkpoint: the weights are the exported ones, and further steps change them."""
    model, work = trained.work / "model", tmp_path / "later"
    work.mkdir()
    (work / "data").symlink_to(trained.work / "data")
    run = DemoRun(trained.recipe, work, "cpu")
    adopt(run, model)
    for stage in ("video-vae", "video-decoder", "audio-vae", "towers"):
        before, after = (checkpoint.read(f / stage / "checkpoint.pt") for f in (trained.work, work))
        assert after["step"] == before["step"]
        for name, value in before["average"].items():
            lost = stage == "video-vae" and "encoder" not in name and "vae.quant" not in name  # the wider one has it
            folded = stage == "audio-vae" and "quant_conv" in name
            if not lost and not folded and not name.startswith("naming."):  # a lesson's classifier begins anew
                assert torch.equal(value.half().float(), after["average"][name]), f"{stage}: {name}"
    run.run("latents", work)
    run.run("export", work / "model")
    for file in ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge", "video_vae", "audio_vae"):
        ours, theirs = (load_file(f / file / WEIGHTS) for f in (work / "model", model))
        for name, value in theirs.items():  # the sound's scale is measured again, as 1 but for rounding
            assert torch.allclose(ours[name], value, rtol=2e-3 if "quant" in name else 0.0, atol=0.0), (file, name)

    steps = trained.recipe.towers.optimization.steps
    how = replace(trained.recipe.towers.optimization, steps=steps + 3, warmup=2, again=((steps, 1e-3),))
    longer = replace(trained.recipe, towers=replace(trained.recipe.towers, optimization=how))
    DemoRun(longer, work, "cpu").run("towers", work)
    state = checkpoint.read(work / "towers" / "checkpoint.pt")
    assert (state["step"], state["fresh"]) == (steps + 3, steps)
    (line,) = [x for x in read_lines(work / "towers" / "log.jsonl") if "held_out" in x]
    assert line["step"] == steps + 3

    with pytest.raises(RequestError, match="another tower_configs"):
        adopt(DemoRun(replace(trained.recipe, tower_configs={}), tmp_path / "other", "cpu"), model)


def test_exported_latents_have_unit_deviation(trained: DemoRun) -> None:
    """What the towers were trained on is what the pipeline's encoders give, up to float16."""
    pipe = MovaPipeline.from_pretrained(trained.work / "model")
    latents = trained._load_latents("train", 8, trained._statistics())
    with np.load(trained.work / "data" / "train" / "00000.npz") as shard:
        frames, audio = shard["frames"][0], shard["audio"][0]
    video = pipe.encode_video(frames)
    sound = pipe.encode_audio(audio.astype(np.float32) / 32767.0, trained.recipe.clip.sample_rate)
    assert (video[0] - latents.video[0].float()).abs().mean() < 0.05
    assert (sound[0] - latents.audio[0].float()).abs().mean() < 0.05


def test_short_conditions_equal_whole_ones(trained: DemoRun) -> None:
    """Beyond the encoder's reach all grey frames look alike, whatever the first picture was."""
    vae = trained.video_vae()
    first = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        rest = encode_conditions(vae, torch.full((1, 32, 32, 3), 128, dtype=torch.uint8), 49)
        whole = encode_conditions(vae, first, 49)
        short = encode_conditions(vae, first, 49, rest)
    assert whole.shape == short.shape
    assert (whole - short).abs().max() < 1e-2 * whole.abs().max()


def test_folded_scale_changes_latents_and_not_the_sound(trained: DemoRun) -> None:
    vae = trained.audio_vae()
    wave = torch.randn(1, 1, 3200) * 0.1
    with torch.no_grad():
        mean, _ = vae.encode(wave)
        sound = vae.decode(mean)
        deviation = torch.rand(mean.shape[1]) + 0.5
        fold_scale(vae, deviation)
        scaled, _ = vae.encode(wave)
        assert torch.allclose(scaled * deviation[None, :, None], mean, atol=1e-5)
        assert (vae.decode(scaled) - sound).abs().max() < 1e-5


def test_noise_levels_keep_their_shares_and_their_side() -> None:
    levels, boundary = NoiseLevels(), 0.9
    generator = torch.Generator().manual_seed(0)
    video, audio = levels.draw(20000, generator, None, boundary)
    assert abs(float((video == audio).float().mean()) - levels.equal) < 0.02
    assert abs(float((video <= levels.nearly).float().mean()) - levels.picture_given) < 0.06
    assert float((video == 0).float().mean()) > 0.08
    high, _ = levels.draw(5000, generator, "high", boundary)
    low, _ = levels.draw(5000, generator, "low", boundary)
    assert float(high.min()) >= boundary - 1e-6
    assert float(low.max()) <= boundary + 1e-6


def test_near_noise_is_its_share_and_the_low_expert_never_sees_it() -> None:
    levels = NoiseLevels()
    for expert, share in (("high", 0.5 + 0.5 * 0.23), ("low", 0.0), (None, 0.5 + 0.5 * 0.058)):
        video, _ = levels.draw(20000, generator_at(3, 0), expert, 0.9, near_noise=0.5)
        if expert is None:  # some pictures are given clean
            share *= 1.0 - levels.picture_given
        assert float((video > 0.98).float().mean()) == pytest.approx(share, abs=0.02)


def test_learning_rate_climbs_falls_and_rises_again() -> None:
    how = Optimization(steps=1000, rate=1e-3, warmup=100, again=((600, 5e-4),))
    rates = [how.rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert max(rates[:600]) == pytest.approx(1e-3)
    assert rates[599] == pytest.approx(how.final * how.rate, rel=0.01)
    assert rates[600] == pytest.approx(5e-4)
    assert all(a >= b for a, b in pairwise(rates[600:]))
    taken_over = [how.rate_at(step, fresh=600) for step in range(600, 1000)]
    assert taken_over[0] == pytest.approx(5e-6)
    assert taken_over[100:] == rates[700:]


def test_streams_of_neighbouring_steps_share_nothing() -> None:
    first = {float(torch.rand(1, generator=generator_at(7, step, 0))) for step in range(2000)}
    assert len(first) == 2000
    assert torch.equal(torch.rand(4, generator=generator_at(1, 2)), torch.rand(4, generator=generator_at(1, 2)))


def test_wave_error_is_one_for_silence() -> None:
    wanted = torch.randn(2, 100)
    assert float(wave_error(torch.zeros_like(wanted), wanted)) == pytest.approx(1.0)


def test_level_error_counts_powers_of_ten_loud_or_quiet() -> None:
    loud = 0.3 * torch.randn((1, 16000), generator=torch.Generator().manual_seed(1))
    assert level_error(loud, loud) == 0.0
    assert float(level_error(0.1 * loud, loud)) == pytest.approx(2.0, abs=0.2)  # a hundredth of the energy
    assert float(level_error(0.2 * 0.1 * loud, 0.2 * loud)) > 1.4
    assert level_error(torch.zeros_like(loud), 1e-5 * loud) < 0.01  # both are silence


def test_words_are_not_lost_in_padding() -> None:
    run = DemoRun(read_recipe(RECIPES / "demo.toml"), Path(), "cpu")
    shares = {}
    for bias in (0.0, 0.6):
        objective = DemoRun(replace(run.recipe, shun_padding=bias), Path(), "cpu").joint_objective()
        ends, block = objective.low.video_ends, next(joint_blocks(objective.low))
        words = torch.randn(1, 20, 64, generator=torch.Generator().manual_seed(1))
        text = ends.text_embedding(torch.cat((words, torch.zeros(1, 492, 64)), 1))
        assert block.video is not None
        tokens = torch.randn(1, 50, 192, generator=torch.Generator().manual_seed(2))
        q, k, _ = block.video.cross_attn.heads(tokens, text)
        weights = torch.einsum("blhd,bshd->bhls", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
        shares[bias] = float(weights[..., :20].sum(-1).mean().detach())
    assert shares[0.0] < 0.1
    assert shares[0.6] > 0.6


def test_first_frame_counts_as_much_as_its_weight(trained: DemoRun) -> None:
    """The loss is linear in the weighted errors of the latent frames, and at weight 1 their plain mean."""
    held = trained._load_latents("held", 4, trained._statistics())
    objective = trained.joint_objective()
    task = TowersTask(objective, replace(trained.recipe.towers_steps, batch=4), 1, held, held)
    inputs = task.batch(0, 0, 1)
    inputs |= {"video_sigma": torch.full((4,), 0.5)}
    objective.low.requires_grad_(False)
    with torch.no_grad():
        text = encode(objective.text_encoder, inputs["ids"], inputs["mask"])
        frames, _ = objective.errors(
            text=text, **{k: v for k, v in inputs.items() if k not in ("ids", "mask", "named")}
        )
        plain = objective(**inputs)[1]["video"]
        objective.first_weight = 6.0
        weighted = objective(**inputs)[1]["video"]
    assert frames.shape == held.video.shape[:1] + held.video.shape[2:3]
    assert float(plain) == pytest.approx(float(frames.mean()), rel=1e-5)
    count = frames.shape[1]
    expected = (6.0 * frames[:, 0] + frames[:, 1:].sum(1)) / (5.0 + count)
    assert float(weighted) == pytest.approx(float(expected.mean()), rel=1e-5)
    assert float(weighted) != pytest.approx(float(plain), rel=1e-4)


def test_later_part_names_everything_and_hides_more_pictures() -> None:
    recipe = TowersRecipe(8, alone=10, later=(Later(20, 0.6, 1.0, 2), Later(30, 0.6, 1.0, 2, 0.5)))
    assert [recipe.at(step) for step in (19, 20, 30)] == [Later(0, 0.4, 0.0, 4), *recipe.later]
    for index in range(50):
        spec = spec_at(1, "train", index)
        said = parse_caption(caption(spec, np.random.default_rng(index), thorough=1.0))
        named = ("family", "colour", "background", "size", "tempo")
        assert [getattr(said, name) for name in named] == [getattr(spec, name) for name in named]


def test_tokenizer_knows_its_world_and_loses_no_word() -> None:
    tokenizer = make_tokenizer()
    ids, mask = tokenize(tokenizer, ["A red ball bounces", "zebra, Äpfel!"])
    assert ids.shape == mask.shape
    assert ids.shape[1] % 16 == 0
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids[1], skip_special_tokens=True).replace(" ", "") == "zebra,apfel!"


def test_log_survives_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo', encoding="utf-8")
    assert read_lines(path) == [{"step": 1}]


def test_recipe_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(RECIPE.read_text().replace("text_drop", "text_dropp"), encoding="utf-8")
    with pytest.raises(RequestError, match="text_dropp"):
        read_recipe(wrong)
    with pytest.raises(RequestError, match=r"absent\.toml"):
        read_recipe(tmp_path / "absent.toml")
    part = '\nlater = [{ start = 1, picture_drop = 0.5, thorough = 0.5, high_every = 2, favoured = ["baal"] }]'
    wrong.write_text(RECIPE.read_text().replace("\ntext_drop", part + "\ntext_drop"), encoding="utf-8")
    with pytest.raises(RequestError, match="baal"):
        read_recipe(wrong)
    assert read_recipe(RECIPES / "demo.toml").towers_steps.batch > 0


def test_the_shipped_model_holds_the_shipped_recipe() -> None:
    shipped = find_model("demo") / "recipe.toml"
    assert shipped.read_text(encoding="utf-8") == (RECIPES / "demo.toml").read_text(encoding="utf-8")


def test_favoured_families_are_drawn_twice_as_often(trained: DemoRun) -> None:
    latents = trained._load_latents("train", 16, trained._statistics())
    family = latents.specs[0].family
    often = {i for i, spec in enumerate(latents.specs) if spec.family == family}
    task = TowersTask(trained.joint_objective(), trained.recipe.towers_steps, 1, latents, latents)
    assert sorted(task._pool(()).tolist()) == list(range(16))
    assert Counter(task._pool((family,)).tolist()) == {i: 2 if i in often else 1 for i in range(16)}


def test_batch_does_not_depend_on_what_came_before(trained: DemoRun) -> None:
    """Step 5's batch is the same whether or not steps 0-4 were drawn, and other for another rank."""
    from engine.training.towers import TowersTask

    latents = trained._load_latents("train", 8, trained._statistics())
    task = TowersTask(trained.joint_objective(), replace(trained.recipe.towers_steps), 1, latents, latents)
    alone = task.batch(5, 0, 1)
    for step in range(5):
        task.batch(step, 0, 1)
    again, other = task.batch(5, 0, 1), task.batch(5, 1, 2)
    assert all(torch.equal(v, again[k]) for k, v in alone.items() if isinstance(v, torch.Tensor))
    assert len(other["video"]) == len(alone["video"]) // 2

"""The real worker on the tiny model: what jobs become, in files. One studio serves all tests that need no own."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import derived
from app.core import Core
from app.errors import NotFound
from app.jobs.job import Progress
from app.library import Clip
from app.preview import Budget
from app.spec import Given, JobSpec
from engine.errors import CheckpointError, MediaError, RequestError
from engine.lora.fit import folder_shapes
from engine.media import probe
from engine.pipeline import MovaPipeline
from engine.profile import read_rules
from tests import lora_files as makers
from tests.app_parts import GUEST, MODEL, OWNER, digest, made, result, small, stray_files, studio, wait


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with studio(tmp_path_factory.mktemp("studio"), work=True) as core:
        yield core


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A picture that no crop leaves unchanged, larger than the model's."""
    rng = np.random.default_rng(5)
    return Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((90, 60), Image.Resampling.BICUBIC)


@pytest.fixture
def told(core: Core, monkeypatch: pytest.MonkeyPatch) -> list[Progress]:
    """All that the queue hears of running jobs, however seldom this process gets to look."""
    heard: list[Progress] = []
    report = core.queue.report

    def listen(job_id: str, progress: Progress) -> None:
        heard.append(progress)
        report(job_id, progress)

    monkeypatch.setattr(core.queue, "report", listen)
    return heard


def test_a_job_tells_what_it_does_and_becomes_a_clip(core: Core, told: list[Progress]) -> None:
    job = core.submit(small(steps=12, frames=9), OWNER)[0]
    seen, steps, previews, etas = set(), set(), set(), []
    while (now := core.queue.get(job.id)).state in ("queued", "running"):
        seen.add(now.stage)
        steps.add(now.step)
        if now.eta is not None:
            etas.append(now.eta)
        preview = core.supervisor.preview(job.id)
        if preview is not None and preview.step not in previews:
            previews.add(preview.step)
            with Image.open(io.BytesIO(preview.picture)) as shown:
                assert shown.format == "WEBP"
            assert len(preview.envelope) == 96
            assert all(0 <= level <= 1 for level in preview.envelope)
        time.sleep(0.002)
    clip = result(core, now)
    order = ["loading", "text", "picture", "denoise", "decode", "write"]
    assert [stage for stage, _ in groupby(one.stage for one in told)] == order
    assert [one.step for one in told if one.stage == "denoise" and one.step] == list(range(1, 13))
    assert {one.steps for one in told if one.step} == {12}
    assert seen <= {*order, ""}
    assert steps <= set(range(13))
    assert previews or len(steps) < 4  # where this process got little time it may have looked too rarely
    assert etas or len(steps) < 4
    assert all(eta >= 0 for eta in etas)
    assert core.supervisor.preview(job.id) is None
    info = probe(core.library.path(clip))
    assert (info.frames, info.width, info.height) == (9, 32, 32)
    assert abs(info.video_seconds - info.audio_seconds) < 1 / info.fps
    assert {"step", "decode", "write", "text", "peak_memory", "device"} <= now.measured.keys()
    for name in (derived.THUMB, derived.PEAKS, derived.LATENTS):
        assert (core.paths.preview(clip.id) / name).is_file(), name
    cost = core.cost(small(steps=12, frames=9), OWNER)
    assert cost.exact
    assert cost.seconds is not None
    assert core.cost(small(steps=24, frames=9), OWNER).seconds > cost.seconds  # type: ignore[operator]


@pytest.mark.parametrize(
    ("steps", "seconds", "cost", "share", "fewest"),
    [
        (25, 0.15, 0.06, 0.15, 7),  # the bundled model on two cores
        (50, 1.1, 0.5, 0.15, 10),
        (50, 8.0, 3.0, 0.05, 5),
        (4, 30.0, 3.0, 0.05, 1),
        (25, 0.15, 60.0, 0.05, 1),  # one that is dear is not shown again
    ],
)
def test_previews_take_their_share_of_a_run(steps: int, seconds: float, cost: float, share: float, fewest: int) -> None:
    budget, now, spent, seen = Budget(steps, 100.0), 100.0, 0.0, 0
    for step in range(1, steps + 1):
        now += seconds
        if budget.allows(step, now):
            budget.spend(cost)
            now, spent, seen = now + cost, spent + cost, seen + 1
    assert seen >= fewest
    assert spent <= max(share * (now - 100.0), cost)  # the first is always shown


def test_the_same_seed_makes_the_same_clip_and_another_another(core: Core) -> None:
    first, again, other = made(core, seed=5), made(core, seed=5), made(core, seed=6)
    paths = [core.library.path(clip) for clip in (first, again, other)]
    assert digest(paths[0]) == digest(paths[1]) != digest(paths[2])
    repeated = wait(core, core.again(first.id, OWNER))
    assert digest(core.library.path(result(core, repeated))) == digest(paths[0])
    fresh = wait(core, core.again(first.id, OWNER, new_seed=True))
    assert fresh.spec.seed != 5
    for job in core.submit(small(seed=40), OWNER, count=3):
        assert result(core, wait(core, job)).spec.seed in (40, 41, 42)


def test_the_step_cache_and_sound_steps_make_another_clip_and_stay_with_it(core: Core) -> None:
    changes = ({}, {"step_cache": 1.0}, {"sound_steps": 3}, {"step_cache": 1.0, "sound_steps": 3})
    clips = [made(core, seed=9, steps=6, **change) for change in changes]
    assert len({digest(core.library.path(clip)) for clip in clips}) == 4
    sidecars = [json.loads(core.library.path(clip).with_suffix(".json").read_text()) for clip in clips]
    told = [(sidecar["step_cache"], sidecar["sound_steps"]) for sidecar in sidecars]
    assert told == [(0, 1), (1, 1), (0, 3), (1, 3)]
    again = result(core, wait(core, core.again(clips[-1].id, OWNER)))
    assert digest(core.library.path(again)) == digest(core.library.path(clips[-1]))
    assert digest(core.library.path(made(core, seed=9, steps=6))) == digest(core.library.path(clips[0]))


def test_an_mp4_restores_everything_on_a_studio_that_knows_nothing(
    core: Core, picture: Image.Image, tmp_path: Path
) -> None:
    first = core.uploads.add(picture, "local", "first.png").id
    last = core.uploads.add(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "local", "last.png").id
    asked = replace(
        small("“狗” barks\nat 3 m", seed=77, guidance=3.0, negative_prompt="blur", video_shift=4.0, a2v_scale=0.7),
        image=first,
        crop=(0.2, 0.6),
        last_image=last,
    )
    clip = result(core, wait(core, core.submit(asked, OWNER)[0]))
    sent = tmp_path / "sent by mail.mp4"
    shutil.copy(core.library.path(clip), sent)
    with studio(tmp_path / "fresh", work=True) as fresh:
        assert fresh.library.count() == 0
        spec = fresh.spec_from_file(sent, OWNER)
        same = ("prompt", "seed", "steps", "guidance", "negative_prompt", "video_shift", "a2v_scale", "width", "frames")
        assert [getattr(spec, name) for name in same] == [getattr(clip.spec, name) for name in same]
        assert spec.image not in (None, first)  # its own copies, as the model saw them
        assert spec.last_image not in (None, last)
        again = result(fresh, wait(fresh, fresh.submit(spec, OWNER)[0]))
        assert digest(fresh.library.path(again)) == digest(sent)
        with pytest.raises(MediaError):
            fresh.spec_from_file(fresh.uploads.path(fresh.uploads.get(spec.image or "")), OWNER)


def test_a_failed_write_is_tried_again_from_the_latents(core: Core) -> None:
    month = core.paths.results / time.strftime("%Y-%m")
    aside = month.with_name("aside")
    month.mkdir(exist_ok=True)
    month.rename(aside)
    month.write_text("a file where the folder should be")
    try:
        job = wait(core, core.submit(small(seed=123, steps=3), OWNER)[0])
        assert job.state == "failed"
        assert "cannot write the clip" in job.reason
        assert core.paths.latents(job.id).is_file()
    finally:
        month.unlink()
        aside.rename(month)
    core.queue.retry(job.id, None)
    done = wait(core, job)
    clip = result(core, done)
    assert "step" not in done.measured  # decoded and written only
    assert digest(core.library.path(clip)) == digest(core.library.path(made(core, seed=123, steps=3)))
    assert not core.paths.latents(job.id).exists()


def test_sizes_are_checked_by_the_models_own_rules_before_a_job_waits(core: Core, tmp_path: Path) -> None:
    """As the worker will: a job that it would refuse is never queued."""
    assert read_rules(MODEL) == MovaPipeline.from_pretrained(MODEL).rules
    other = tmp_path / "threes"
    shutil.copytree(MODEL, other)
    config = other / "video_dit" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"patch_size": [1, 3, 3]}))
    wide = replace(small(), width=144, height=96, model=str(other))
    core.settings.change(model=str(other))
    try:
        assert core.settle(wide, OWNER).width == 144
        with pytest.raises(RequestError, match=r"multiple of 24.* nearest valid value is 24"):
            core.settle(replace(wide, width=32, height=32), OWNER)
        config.write_text('{"patch_size": 3}')
        with pytest.raises(CheckpointError, match="threes"):
            core.settle(wide, OWNER)
    finally:
        core.settings.change(model="")
    assert read_rules(tmp_path).multiple == 16  # nothing there: MOVA's own


def test_jobs_whose_files_are_gone_say_so_and_harm_nothing(core: Core, picture: Image.Image) -> None:
    core.queue.hold()
    upload = core.uploads.add(picture, "local")
    without_picture = core.submit(small(image=upload.id), OWNER)[0]
    core.uploads.path(upload).unlink()
    core.queue.hold(False)
    assert "picture of this job is gone" in wait(core, without_picture).reason
    clip = made(core, seed=21)
    core.queue.hold()
    without_clip = core.extend(clip.id, OWNER)
    core.library.delete(clip.id, None)
    core.queue.hold(False)
    failed = wait(core, without_clip)
    assert failed.state == "failed"
    assert "is gone" in failed.reason
    with pytest.raises(NotFound):
        core.submit(small(given=Given("sound", clip.id)), OWNER)
    assert made(core).facts.frames == 5


def test_a_guests_job_is_the_guests(core: Core) -> None:
    job = wait(core, core.submit(small(), GUEST)[0])
    clip = result(core, job)
    assert clip.owner == GUEST.owner
    sidecar = json.loads(core.library.path(clip).with_suffix(".json").read_text())
    assert sidecar["studio"]["owner"] == GUEST.owner
    with pytest.raises(NotFound):
        core.again(clip.id, replace(GUEST, owner="guest-" + "c" * 32))


def test_loras_are_put_on_for_their_job_and_leave_no_trace(core: Core, tmp_path: Path) -> None:
    folder = tmp_path / "loras"
    folder.mkdir()
    shapes = folder_shapes(MODEL)
    for name, part, seed in (("noir", "high", 1), ("rain", "audio", 2)):
        makers.mova(makers.draw(shapes, seed, part), folder / f"{name}.safetensors")
    foreign = {
        part: {name: tuple(3 * n for n in shape) for name, shape in those.items()} for part, those in shapes.items()
    }
    makers.mova(makers.draw(foreign, 3, "high"), folder / "foreign.safetensors")
    core.settings.change(lora_folder=str(folder))
    try:
        plain = digest(core.library.path(made(core, seed=31, steps=4)))

        def with_loras(*given: dict) -> Clip:
            spec = replace(small(seed=31, steps=4), loras=JobSpec.from_dict({"loras": given}).loras)
            return result(core, wait(core, core.submit(spec, OWNER)[0]))

        one = with_loras({"name": "noir", "strength": 0.8})
        both = with_loras({"name": "noir", "strength": 0.8}, {"name": "rain", "sound": -0.5})
        off = with_loras({"name": "noir", "on": False})
        digests = [digest(core.library.path(clip)) for clip in (one, both, off)]
        assert len({plain, *digests[:2]}) == 3
        assert digests[2] == plain
        assert digest(core.library.path(made(core, seed=31, steps=4))) == plain  # nothing stays on the model
        again = result(core, wait(core, core.again(one.id, OWNER)))
        assert digest(core.library.path(again)) == digests[0]
        sidecar = json.loads(core.library.path(both).with_suffix(".json").read_text())
        assert [lora["name"] for lora in sidecar["loras"]] == ["noir", "rain"]
        assert all(len(lora["sha256"]) == 64 for lora in sidecar["loras"])
        assert "high noise" in sidecar["loras_used"][0]
        (folder / "noir.safetensors").rename(folder / "another name.safetensors")
        renamed = result(core, wait(core, core.again(one.id, OWNER)))  # known by its hash
        assert digest(core.library.path(renamed)) == digests[0]
        core.queue.hold()
        waiting = core.again(one.id, OWNER)
        (folder / "another name.safetensors").unlink()
        core.queue.hold(False)
        assert "noir" in wait(core, waiting).reason
        with pytest.raises(RequestError, match="noir"):
            core.again(one.id, OWNER)
        gone = one.spec.loras[0]
        put_off = core.settle(replace(small(), loras=(replace(gone, on=False),)), OWNER)
        assert put_off.loras == (replace(gone, on=False),)  # remembered, and in nobody's way
        switched_off = with_loras({"sha256": gone.sha256, "name": "noir", "on": False}, {"name": "nobody", "on": False})
        assert digest(core.library.path(switched_off)) == plain
        assert [lora.name for lora in switched_off.spec.loras] == ["noir"]
        with pytest.raises(RequestError, match="foreign"):
            with_loras({"name": "foreign"})
        assert digest(core.library.path(made(core, seed=31, steps=4))) == plain
    finally:
        core.settings.change(lora_folder="")


def test_automatic_enhancing_writes_the_prompt_once_and_keeps_the_idea(core: Core) -> None:
    idea = 'A dog barks. "Good boy", says a woman.'
    asked = {"mode": "automatic", "model": "rules", "style": "watercolour"}
    job = wait(core, core.submit(replace(small(idea), enhancer=asked), OWNER)[0])
    clip = result(core, job)
    assert clip.spec.idea == idea
    assert clip.spec.prompt != idea
    assert '"Good boy"' in clip.spec.prompt
    assert "watercolour" in clip.spec.prompt
    assert job.spec == clip.spec  # the queue knows it too
    assert clip.spec.enhancer is not None
    assert clip.spec.enhancer["written_by"] == "rules"
    again = result(core, wait(core, core.again(clip.id, OWNER)))
    assert again.spec.prompt == clip.spec.prompt
    assert digest(core.library.path(again)) == digest(core.library.path(clip))
    gone = wait(core, core.submit(replace(small(idea), enhancer={**asked, "model": "/no/such.gguf"}), OWNER)[0])
    assert result(core, gone).spec.enhancer["why_rules"]  # type: ignore[index]
    settled = core.settle(replace(small(idea), enhancer={**asked, "model": "/etc/passwd"}), GUEST)
    assert settled.enhancer == {"mode": "automatic", "style": "watercolour"}
    for wrong in ({**asked, "language": "tlh"}, {**asked, "notes": "x" * 20_000}):
        with pytest.raises(RequestError):
            core.settle(replace(small(idea), enhancer=wrong), OWNER)


def test_nothing_is_left_over(core: Core) -> None:
    assert stray_files(core.paths.root) == []

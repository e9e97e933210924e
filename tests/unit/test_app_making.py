"""The real worker on the tiny model: what jobs become, in files. One studio serves all tests that need no own."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app import derived
from app.core import Core
from app.errors import NotFound, WrongState
from app.jobs import Job
from app.library import Clip
from app.preview import Budget
from app.server import make_server
from app.source import continued
from app.spec import Given, JobSpec
from app.store import StoreStuck
from engine.errors import CheckpointError, MediaError, RequestError
from engine.lora.fit import folder_shapes
from engine.media import Clip as MediaClip
from engine.media import probe, read_clip
from engine.pipeline import MovaPipeline
from engine.profile import read_rules
from tests import lora_files as makers
from tests.app_parts import GUEST, MODEL, OWNER, digest, small, stray_files, studio, wait


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with studio(tmp_path_factory.mktemp("studio"), work=True) as core:
        yield core


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A picture that no crop leaves unchanged, larger than the model's."""
    rng = np.random.default_rng(5)
    return Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((90, 60), Image.Resampling.BICUBIC)


def made(core: Core, **changes: object) -> Clip:
    """A clip from a job of its own."""
    return result(core, wait(core, core.submit(small(**changes), OWNER)[0]))


def result(core: Core, job: Job) -> Clip:
    assert job.state == "done", job.reason
    return core.library.get(job.result or "")


def frames(core: Core, clip: Clip) -> np.ndarray:
    return read_clip(core.library.path(clip)).frames.astype(np.int16)


def test_a_job_tells_what_it_does_and_becomes_a_clip(core: Core) -> None:
    job = core.submit(small(steps=12, frames=9), OWNER)[0]
    stages, steps, previews, etas = [], set(), set(), []
    while (now := core.queue.get(job.id)).state in ("queued", "running"):
        if now.stage and (not stages or stages[-1] != now.stage):
            stages.append(now.stage)
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
    assert stages == [stage for stage in order if stage in stages]  # none out of its turn
    assert {"loading", "denoise"} <= set(stages)
    assert max(steps) == 12
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


def test_sound_again_keeps_the_picture_and_the_other_way_round(core: Core) -> None:
    clip = made(core, seed=9, steps=3)
    source = read_clip(core.library.path(clip))
    sound = read_clip(core.library.path(result(core, wait(core, core.again(clip.id, OWNER, keep="picture")))))
    assert np.array_equal(sound.frames, source.frames)
    assert not np.array_equal(sound.samples, source.samples)
    picture = read_clip(core.library.path(result(core, wait(core, core.again(clip.id, OWNER, keep="sound")))))
    assert np.array_equal(picture.samples, source.samples)
    assert not np.array_equal(picture.frames, source.frames)
    (core.paths.preview(clip.id) / derived.LATENTS).unlink()  # kept from its mp4 instead: coded once more
    kept = read_clip(core.library.path(result(core, wait(core, core.again(clip.id, OWNER, keep="picture")))))
    assert np.abs(kept.frames.astype(int) - source.frames).mean() < 3
    assert not np.array_equal(kept.samples, source.samples)


def test_a_clip_goes_on_from_its_last_picture(core: Core) -> None:
    clip = made(core, seed=11)
    assert clip.facts.frames == 5
    job = wait(core, core.extend(clip.id, OWNER, {"prompt": "and then it rains"}))
    longer = result(core, job)
    assert longer.facts.frames == 9  # the shared picture is shown once
    assert abs(longer.facts.video_seconds - longer.facts.audio_seconds) < 1 / 24
    assert longer.spec.prompt == "and then it rains"
    assert np.abs(frames(core, longer)[:5] - frames(core, clip)).mean() < 3
    twice = result(core, wait(core, core.extend(longer.id, OWNER)))
    assert twice.facts.frames == 13
    upload = core.uploads.get(core.last_frame(clip.id, OWNER))
    with Image.open(core.uploads.path(upload)) as png:
        assert np.array_equal(np.asarray(png), frames(core, clip)[-1])


def test_joining_makes_neither_jump_nor_click() -> None:
    """A tone and a sweep of grey that go on across the join, so that any gap, doubling or step would show."""
    fps, rate, per_clip = 24.0, 48_000, 25
    ramp = np.arange(2 * per_clip - 1, dtype=np.uint8) * 4
    pictures = np.broadcast_to(ramp[:, None, None, None], (len(ramp), 16, 16, 3)).copy()
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(len(ramp) / fps * rate)) / rate).astype(np.float32)
    head = MediaClip(pictures[:per_clip], wave[: round(per_clip / fps * rate)], fps, rate)
    start = round((per_clip - 1) / fps * rate)
    tail = MediaClip(pictures[per_clip - 1 :], wave[start : start + round(per_clip / fps * rate)], fps, rate)
    joined = continued(head, tail)
    assert np.array_equal(joined.frames, pictures)
    assert len(joined.samples) == len(wave)
    steps = np.abs(np.diff(joined.samples[:, 0]))
    fade = slice(start - 10, start + round(rate / fps) + 10)
    usual = np.abs(np.diff(wave)).max()
    # Where both sounds are the same the fade with constant power is at most 3 dB louder, and never abrupt.
    assert steps[fade].max() < 1.5 * usual
    outside = np.r_[
        joined.samples[: start - 1, 0] - wave[: start - 1], joined.samples[fade.stop :, 0] - wave[fade.stop :]
    ]
    assert np.abs(outside).max() < 1e-6
    silence = MediaClip(pictures[per_clip - 1 :], np.zeros_like(tail.samples), fps, rate)
    assert np.abs(np.diff(continued(head, silence).samples[:, 0])).max() < 1.5 * usual
    brighter = continued(head, MediaClip(tail.frames + 25, tail.samples, fps, rate))  # as models do
    grey = brighter.frames[:, 0, 0, 0].astype(int)
    assert np.abs(np.diff(grey)).max() <= 4 + 25 / 8 + 1  # no step beside the sweep's own
    assert np.array_equal(grey[:per_clip], ramp[:per_clip])
    assert np.array_equal(grey[per_clip + 8 :], ramp[per_clip + 8 :].astype(int) + 25)
    other_rate = MediaClip(tail.frames, np.zeros(round(per_clip / fps * 44_100), np.float32), fps, 44_100)
    assert len(continued(head, other_rate).samples) == len(wave)


def test_every_export_of_a_real_clip(core: Core, tmp_path: Path) -> None:
    clip = made(core, frames=25, seed=3)
    with TestClient(make_server(core), base_url="http://127.0.0.1") as client:
        base = f"/media/clips/{clip.id}"
        whole = client.get(f"{base}/video")
        part = client.get(f"{base}/video", headers={"range": "bytes=10-99"})
        assert (part.status_code, part.content) == (206, whole.content[10:100])
        assert client.get(f"{base}/video", headers={"range": f"bytes={len(whole.content)}-"}).status_code == 416
        assert client.get(f"{base}/video", params={"download": 1}).headers["content-disposition"].startswith("attach")
        assert client.get(f"{base}/thumb").headers["content-type"] == "image/webp"
        assert len(client.get(f"{base}/peaks").json()["peaks"]) == 1200
        shutil.rmtree(core.paths.preview(clip.id))
        assert len(client.get(f"{base}/peaks").json()["peaks"]) == 1200  # made again
        assert client.get(f"/v1/videos/{clip.job}/content").content == whole.content
        assert client.get(f"/v1/videos/{clip.job}").json()["status"] == "completed"

        def exported(kind: str, **when: float) -> Path:
            answer = client.get(f"{base}/export/{kind}", params=when)
            assert answer.status_code == 200, answer.text
            path = tmp_path / f"x.{kind}"
            path.write_bytes(answer.content)
            return path

        trimmed = read_clip(exported("mp4", start=6 / 24, end=18 / 24))
        assert len(trimmed.frames) == 12
        assert np.abs(trimmed.frames.astype(int) - frames(core, clip)[6:18]).mean() < 3
        assert abs(len(trimmed.samples) / trimmed.sample_rate - 0.5) < 1 / 24
        assert core.spec_from_file(tmp_path / "x.mp4", OWNER).seed == 3  # a part carries the settings too
        with Image.open(exported("png", at=7 / 24)) as png:
            assert np.array_equal(np.asarray(png), frames(core, clip)[7])
        with Image.open(exported("gif", start=0, end=0.5)) as gif:
            assert gif.n_frames >= 5
        assert exported("wav").read_bytes()[:4] == b"RIFF"
        assert probe(exported("webm")).frames == 25
        for path in ("export/avi", "export/mp4?start=5&end=9", "export/mp4?start=nan", "export/png?at=-1", "source"):
            assert client.get(f"{base}/{path}").status_code in (400, 404), path


@pytest.mark.parametrize("ending", ["done", "failed", "cancelled", "died"])
def test_who_sees_that_a_job_has_ended_finds_no_preview_of_it(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at in the very moment in which the queue says so, not whenever a test happens to look."""
    with studio(tmp_path) as core:
        supervisor, queue = core.supervisor, core.queue
        job = core.submit(small(), OWNER)[0]
        queue.claim()
        worker = SimpleNamespace(job=job, kill=lambda: None, how_it_ended=lambda: "signal 9")
        packed = base64.b64encode(b"webp").decode()
        supervisor._hear(worker, {"say": "preview", "job": job.id, "picture": packed, "envelope": [0.5], "step": 1})
        assert supervisor.preview(job.id) is not None
        found = []
        for name in ("finish", "fail", "cancelled", "worker_died"):
            told = getattr(queue, name)

            def look(*given: object, told: Callable = told) -> object:
                found.append(supervisor.preview(job.id))
                return told(*given)

            monkeypatch.setattr(queue, name, look)
        if ending == "died":
            supervisor._died(worker)
        else:
            if ending == "cancelled":
                queue.cancel(job.id, None)
            if ending == "done":
                monkeypatch.setattr(core.library, "add_published", lambda _: None)
            told = {"say": ending, "job": job.id, "clip": job.id, "measured": {}, "reason": "x"}
            supervisor._hear(worker, told)
        assert found == [None]


@pytest.mark.parametrize("ending", ["finish", "worker_died"])
def test_how_a_job_ended_is_written_down_when_there_is_room_again(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with studio(tmp_path, work=True) as core:
        tries, told = [], getattr(core.queue, ending)

        def full(*given: object) -> object:
            tries.append(given)
            if len(tries) < 3:
                raise StoreStuck("the disk is full")
            return told(*given)

        monkeypatch.setattr(core.queue, ending, full)
        job = core.submit(small(steps=60 if ending == "worker_died" else 2), OWNER)[0]
        if ending == "worker_died":
            while core.queue.get(job.id).stage != "denoise":
                time.sleep(0.01)
            os.kill(core.supervisor.status().pid or 0, signal.SIGKILL)
        assert wait(core, job).state == "done"
        assert len(tries) == 3
        assert core.queue.get(job.id).attempts == (2 if ending == "worker_died" else 1)
        assert core.supervisor.status().deaths == (1 if ending == "worker_died" else 0)


def test_pausing_a_job_and_the_queue(core: Core) -> None:
    core.queue.hold()
    first, second, third = (core.submit(small(seed=n), OWNER)[0] for n in (1, 2, 3))
    core.queue.pause(second.id, None)
    time.sleep(0.3)
    assert core.queue.counts()["running"] == 0
    core.queue.hold(False)
    assert wait(core, third).state == wait(core, first).state == "done"
    assert core.queue.get(second.id).state == "paused"
    core.queue.go_on(second.id, None)
    assert wait(core, second).state == "done"
    with pytest.raises(WrongState):
        core.queue.edit(second.id, small(), None)


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


def test_idle_workers_free_the_model_and_the_next_job_starts_another(core: Core) -> None:
    made(core)
    before = core.supervisor.status()
    assert before.state == "idle"
    assert before.memory > 50 << 20
    core.settings.change(idle_minutes=0.02)
    try:
        end = time.monotonic() + 60
        while core.supervisor.status().state != "off" and time.monotonic() < end:
            time.sleep(0.05)
        assert core.supervisor.status().state == "off"
    finally:
        core.settings.change(idle_minutes=10)
    assert made(core).facts.frames == 5
    assert core.supervisor.status().pid != before.pid
    core.supervisor.free()
    assert core.supervisor.status().state == "off"
    assert core.supervisor.status().deaths == 0


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

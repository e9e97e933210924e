"""What is made from a clip, by the real worker: another sound, its continuation, exports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app import derived
from app.core import Core
from app.server import make_server
from app.source import continued
from engine.media import Clip as MediaClip
from engine.media import probe, read_clip
from tests.app_parts import OWNER, frames, made, result, studio, wait


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with studio(tmp_path_factory.mktemp("studio"), work=True) as core:
        yield core


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

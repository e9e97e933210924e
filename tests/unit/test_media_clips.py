"""Clips written and read back with the real ffmpeg: sync, settings, levels, colours, exports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.errors import MediaError, NumericsError, OutputError
from engine.media import (
    Clip,
    export_frame_png,
    export_gif,
    export_join,
    export_trim,
    export_wav,
    export_webm,
    ffmpeg,
    join,
    load_image,
    probe,
    read_audio,
    read_clip,
    read_settings,
    trim,
    write_clip,
)
from engine.media.probe import ffmetadata, parse_ffmetadata

EVENTS = (0.25, 0.75, 1.5, 2.0, 2.75)  # seconds, moved to the nearest frame
SYNC_BAR = 0.010  # seconds between a flash and its click


def flash_and_click(fps: float, rate: int, seconds: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """A dark clip with a white frame and a 2 ms click at each event."""
    frames = np.full((round(seconds * fps), 64, 96, 3), 16, np.uint8)
    samples = np.zeros(round(len(frames) / fps * rate), np.float32)
    click = np.hanning(round(0.002 * rate)) * np.cos(np.arange(round(0.002 * rate)) * 2.0)
    for event in EVENTS:
        frames[round(event * fps)] = 255
        start = round(round(event * fps) / fps * rate)
        samples[start : start + len(click)] = 0.8 * click
    return frames, samples


def onsets(samples: np.ndarray, rate: int) -> np.ndarray:
    """Seconds at which the sound first rises above a third of its peak, after 100 ms below."""
    loud = np.flatnonzero(np.abs(samples) > 0.33 * np.abs(samples).max())
    return loud[np.diff(loud, prepend=-rate) > 0.1 * rate] / rate


def sync_errors(frames: np.ndarray, samples: np.ndarray, fps: float, rate: int) -> np.ndarray:
    """Seconds from each flash's frame time to its click."""
    bright = np.flatnonzero(frames.mean(axis=(1, 2, 3)) > 128)
    clicks = onsets(samples, rate)
    assert len(bright) == len(clicks) == len(EVENTS)
    return clicks - bright / fps


def decoded_plainly(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Frames and sound as ffmpeg plays them with no options of ours: one pass to rawvideo, one to wav."""
    command = [ffmpeg.program(), "-v", "error", "-i", str(path)]
    video = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    audio = subprocess.run([*command, "-vn", "-c:a", "pcm_s16le", "-f", "wav", "-"], capture_output=True, check=True)
    sound = np.frombuffer(audio.stdout[audio.stdout.index(b"data") + 8 :], np.int16)
    return np.frombuffer(video.stdout, np.uint8).reshape(-1, size[1], size[0], 3), sound / np.float32(32768)


def moving(count: int = 25, width: int = 64, height: int = 48) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([np.stack([x * 2 + 3 * i, y * 4, 100 + 0 * x], -1) % 200 for i in range(count)]).astype(np.uint8)


def tone(seconds: float, rate: int, amplitude: float = 0.2) -> np.ndarray:
    return (amplitude * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 440 / rate)).astype(np.float32)


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "a clip ü 日.mp4"
    write_clip(path, moving(), tone(25 / 24, 16_000), 24.0, 16_000, {"prompt": "a clip"})
    return path


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000, 22_000])
@pytest.mark.parametrize("fps", [24.0, 16.0, 30000 / 1001])
def test_flash_and_click(fps: float, rate: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if fps == 30000 / 1001 and rate not in (16_000, 48_000):
        pytest.skip("two rates are enough here")
    frames, samples = flash_and_click(fps, rate)
    truth = sync_errors(frames, samples, fps, rate)
    written = write_clip(tmp_path / "sync.mp4", frames, samples, fps, rate, {})
    plain_frames, plain_samples = decoded_plainly(written.path, (96, 64))
    assert len(plain_frames) == len(frames)
    errors = {"ffmpeg": sync_errors(plain_frames, plain_samples, fps, written.sample_rate)}
    clip = read_clip(written.path)
    assert clip.frames.shape == frames.shape
    assert len(clip.samples) == written.samples
    errors["read_clip"] = sync_errors(clip.frames, clip.samples, clip.fps, clip.sample_rate)
    if fps != 30000 / 1001 and rate in (16_000, 48_000):
        export_webm(tmp_path / "sync.webm", clip)
        other = read_clip(tmp_path / "sync.webm")
        errors["webm"] = sync_errors(other.frames, other.samples, other.fps, other.sample_rate)
    worst = {name: float(np.abs(error).max()) for name, error in errors.items()}
    with capsys.disabled():
        listed = ", ".join(f"{name} {1000 * error:.2f} ms" for name, error in worst.items())
        sys.stdout.write(f"\n  sync {fps:.2f} fps {rate} Hz: {listed} (truth {1000 * np.abs(truth).max():.2f}) ")
    assert max(worst.values()) < SYNC_BAR


HOSTILE = [
    "plain",
    "= ; # \\ \\\\ \n newline\r\n\ttab \\n = ;comment=evil\n[STREAM]\ntitle=evil",
    "quotes ' \" `$(id)` %s %d {}",
    "日本語 äöü 🎬 \u202e\u2028\x00\x1b\x7f",
    "\ud800 lone surrogate",
    ";FFMETADATA1\n#",
    "x" * 40_000,
    "",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_settings_survive(text: str, tmp_path: Path) -> None:
    settings = {"prompt": text, text[:50]: [1, 2.5, None, True, {"deep": text[:9]}], "seed": 2**63}
    path = tmp_path / "a.mp4"
    write_clip(path, moving(4), tone(4 / 24, 16_000), 24.0, 16_000, settings)
    assert read_settings(path) == settings
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == settings


def test_settings_beyond_the_limit_stay_in_the_sidecar(tmp_path: Path) -> None:
    settings = {"prompt": "x" * 400_000}
    write_clip(tmp_path / "a.mp4", moving(4), tone(4 / 24, 16_000), 24.0, 16_000, settings)
    assert read_settings(tmp_path / "a.mp4") is None
    assert json.loads((tmp_path / "a.json").read_text()) == settings


@pytest.mark.parametrize("settings", [{"x": float("nan")}, {"x": object()}, {"x": b"bytes"}])
def test_settings_that_are_not_json(settings: dict, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="JSON"):
        write_clip(tmp_path / "a.mp4", moving(4), tone(4 / 24, 16_000), 24.0, 16_000, settings)
    assert not list(tmp_path.iterdir())


def test_ffmetadata_escapes() -> None:
    for text in HOSTILE:
        if text:
            assert parse_ffmetadata(ffmetadata({"Comment": text, "k=;#\\": "v"})) == {"comment": text, "k=;#\\": "v"}


def test_streams_and_tags(clip_file: Path) -> None:
    info = probe(clip_file)
    assert (info.container, info.video_codec, info.audio_codec) == ("mov", "h264", "aac")
    assert (info.width, info.height, info.frames, info.fps, info.sample_rate) == (64, 48, 25, 24.0, 16_000)
    assert info.video_seconds == pytest.approx(25 / 24)
    assert abs(info.audio_seconds - info.video_seconds) < 1 / 24
    data = clip_file.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart
    said = subprocess.run([ffmpeg.program(), "-i", str(clip_file)], capture_output=True, text=True, check=False).stderr
    assert "yuv420p(tv, bt709, progressive)" in said
    assert json.loads(clip_file.with_suffix(".json").read_text()) == {"prompt": "a clip"}
    assert not [p for p in clip_file.parent.iterdir() if ".part" in p.name]


def test_colours_survive(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (120, 130, 90), (250, 220, 10)]
    frames = np.stack([np.full((32, 32, 3), colour, np.uint8) for colour in colours])
    write_clip(tmp_path / "c.mp4", frames, tone(7 / 24, 16_000), 24.0, 16_000, {})
    assert np.abs(read_clip(tmp_path / "c.mp4").frames.astype(int) - frames).max() <= 5


def test_float_frames_equal_bytes(tmp_path: Path) -> None:
    frames = moving(5)
    for name, given in (("a", frames), ("b", frames.astype(np.float32) / 255), ("c", frames / 255.0)):
        write_clip(tmp_path / f"{name}.mp4", given, tone(5 / 24, 16_000), 24.0, 16_000, {}, sidecar=False)
    assert len({(tmp_path / f"{name}.mp4").read_bytes() for name in "abc"}) == 1
    assert not list(tmp_path.glob("*.json"))


def loud_sounds(rate: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    time = np.arange(rate * 2) / rate
    return {
        "noise": rng.uniform(-1, 1, len(time)),
        "noise at 4x": rng.standard_normal(len(time)) * 4,
        "square 110": np.sign(np.sin(2 * np.pi * 110 * time) + 1e-9),
        "square 1000": np.sign(np.sin(2 * np.pi * 997 * time) + 1e-9) * 8,
        "impulses": (np.arange(len(time)) % 2000 == 0).astype(float),
        "random square": np.repeat(rng.choice([-1.0, 1.0], len(time) // 10), 10),
    }


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("name", loud_sounds(16_000))
def test_no_decoded_sample_above_full_scale(name: str, rate: int, tmp_path: Path) -> None:
    samples = loud_sounds(rate)[name].astype(np.float32)
    samples = np.pad(samples, (0, 2 * rate - len(samples)))
    written = write_clip(tmp_path / "loud.mp4", moving(48), samples, 24.0, rate, {})
    decoded = read_clip(written.path).samples
    assert written.gain <= 0.9
    assert np.abs(decoded).max() <= 1.0
    assert np.abs(decoded).max() > 0.3  # and it is still loud
    export_webm(tmp_path / "loud.webm", Clip(moving(48), samples, 24.0, rate))
    assert np.abs(read_clip(tmp_path / "loud.webm").samples).max() <= 1.0


def test_quiet_sound_is_not_touched(tmp_path: Path) -> None:
    assert write_clip(tmp_path / "q.mp4", moving(24), tone(1, 48_000, 0.5), 24.0, 48_000, {}).gain == 1.0
    assert write_clip(tmp_path / "s.mp4", moving(24), np.zeros(48_000, np.float32), 24.0, 48_000, {}).gain == 1.0


def test_stereo(tmp_path: Path) -> None:
    samples = np.stack([tone(1, 48_000), np.zeros(48_000, np.float32)], axis=1)
    write_clip(tmp_path / "s.mp4", moving(24), samples, 24.0, 48_000, {})
    back = read_clip(tmp_path / "s.mp4").samples
    assert back.shape == (48_000, 2)
    assert np.abs(back[:, 0]).max() > 0.15 > 0.01 > np.abs(back[2000:-2000, 1]).max()
    assert read_audio(tmp_path / "s.mp4", 16_000).shape == (16_000,)


BAD = {
    "odd size": (moving(4, 63, 48), tone(4 / 24, 16_000), 24.0, 16_000, "even sizes, not 63x48; 64x48"),
    "no frames": (moving(4)[:0], tone(4 / 24, 16_000), 24.0, 16_000, "shape"),
    "grey": (moving(4)[..., 0], tone(4 / 24, 16_000), 24.0, 16_000, "shape"),
    "int frames": (moving(4).astype(int), tone(4 / 24, 16_000), 24.0, 16_000, "uint8 or float"),
    "bytes as float": (moving(4).astype(float), tone(4 / 24, 16_000), 24.0, 16_000, r"\[0, 1\]"),
    "long sound": (moving(4), tone(1, 16_000), 24.0, 16_000, "0.167 s of picture but 1.000 s of sound"),
    "no sound": (moving(4), np.zeros(0, np.float32), 24.0, 16_000, "0.000 s of sound"),
    "int sound": (moving(4), np.zeros(2667, np.int16), 24.0, 16_000, "float with full scale 1"),
    "fps": (moving(4), tone(4 / 24, 16_000), float("nan"), 16_000, "fps"),
    "rate": (moving(4), tone(4 / 24, 16_000), 24.0, 0, "sample rate"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case: str, tmp_path: Path) -> None:
    frames, samples, fps, rate, message = BAD[case]
    with pytest.raises(OutputError, match=message) as caught:
        write_clip(tmp_path / "a.mp4", frames, samples, fps, rate, {})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value: float, tmp_path: Path) -> None:
    samples = tone(25 / 24, 16_000)
    samples[999] = value
    with pytest.raises(NumericsError, match="at 999 of"):
        write_clip(tmp_path / "a.mp4", moving(), samples, 24.0, 16_000, {})
    frames = moving().astype(np.float32) / 255
    frames[20, 3, 4, 1] = value
    with pytest.raises(NumericsError, match="frame 20 of 25"):
        write_clip(tmp_path / "a.mp4", frames, tone(25 / 24, 16_000), 24.0, 16_000, {})
    assert not list(tmp_path.iterdir())


def test_trim_and_join_are_exact_in_memory() -> None:
    for fps, rate in ((24.0, 48_000), (16.0, 16_000), (30000 / 1001, 44_100)):
        frames = moving(49)
        samples = np.random.default_rng(0).uniform(-1, 1, round(49 / fps * rate)).astype(np.float32)
        clip = Clip(frames, samples, fps, rate, {"seed": 1})
        first, last = round(0.5 * fps), round(1.25 * fps)
        part = trim(clip, 0.5, 1.25)
        start = round(first / fps * rate)
        assert np.array_equal(part.frames, frames[first:last])
        assert np.array_equal(part.samples, samples[start : start + round((last - first) / fps * rate)])
        whole = trim(clip, 0, clip.seconds)
        assert np.array_equal(whole.frames, frames)
        assert np.array_equal(whole.samples, samples)
        both = join([part, clip])
        assert np.array_equal(both.frames, np.concatenate([part.frames, frames]))
        assert np.array_equal(both.samples[: len(part.samples) - 1, 0], part.samples[:-1])
        assert np.array_equal(both.samples[-len(samples) + 1 :, 1], samples[1:])
    with pytest.raises(MediaError, match="the clip lasts"):
        trim(clip, 1.0, 9.0)
    with pytest.raises(MediaError, match="make them alike"):
        join([clip, Clip(moving(5), samples[:0], 10.0, rate)])


def test_export_trim_and_join(clip_file: Path, tmp_path: Path) -> None:
    part = export_trim(tmp_path / "part.mp4", clip_file, 0.25, 0.75)
    assert (part.frames, part.fps, part.sample_rate) == (12, 24.0, 16_000)
    assert np.abs(read_clip(part.path).frames.astype(int) - moving()[6:18]).mean() < 4
    assert read_settings(part.path) == {"prompt": "a clip"}
    joined = export_join(tmp_path / "joined.mp4", [part.path, clip_file])
    assert joined.frames == 12 + 25
    with pytest.raises(MediaError, match="the clip lasts"):
        export_trim(tmp_path / "none.mp4", clip_file, 3, 4)
    assert not (tmp_path / "none.mp4").exists()


def test_export_wav(tmp_path: Path) -> None:
    samples = tone(1.0, 48_000, 0.5)
    export_wav(tmp_path / "a.wav", samples, 48_000)
    assert np.abs(read_audio(tmp_path / "a.wav", 48_000) - samples).max() < 2 / 32768
    export_wav(tmp_path / "b.wav", samples * 6, 48_000, fade_out=0.2)
    loud = read_audio(tmp_path / "b.wav", 48_000)
    assert 0.99 < np.abs(loud).max() <= 1.0
    assert np.abs(loud[-100:]).max() < 0.02


def test_export_webm_gif_png(clip_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_webm(tmp_path / "a.webm", clip_file)
    info = probe(tmp_path / "a.webm")
    assert (info.video_codec, info.audio_codec, info.frames, info.fps) == ("vp9", "opus", 25, 24.0)
    assert np.abs(read_clip(tmp_path / "a.webm").frames.astype(int) - moving()).mean() < 6
    export_gif(tmp_path / "a.gif", clip_file, width=32)
    info = probe(tmp_path / "a.gif")
    assert (info.width, info.height, info.fps) == (32, 24, 12.5)
    assert info.seconds == pytest.approx(25 / 24, abs=0.09)
    clip = read_clip(clip_file)
    export_frame_png(tmp_path / "a.png", clip, index=-1)
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), clip.frames[24])
    for index in range(25):
        export_frame_png(tmp_path / "a.png", clip, seconds=index / 24)
        assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), clip.frames[index])
    with pytest.raises(OutputError, match="frames 0 to 24"):
        export_frame_png(tmp_path / "b.png", clip, index=25)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gif", "a.png", "a.webm"]
    assert capfd.readouterr() == ("", "")  # moviepy and pydub keep quiet


def test_names_that_look_like_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-y.mp4", "http:x.mp4", "pipe:1.mp4", "%03d.mp4", "a'b\"c;d&e.mp4", "é" * 120 + ".mp4"):
        write_clip(name, moving(4), tone(4 / 24, 16_000), 24.0, 16_000, {"n": name}, sidecar=False)
        assert read_settings(name) == {"n": name}
        assert read_clip(name).frames.shape == (4, 48, 64, 3)


def test_rotated_video_is_upright(clip_file: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"
    command = [ffmpeg.program(), "-v", "error", "-display_rotation", "90", "-i", str(clip_file)]
    subprocess.run([*command, "-c", "copy", str(turned)], check=True)
    assert read_clip(turned).frames.shape == (25, 64, 48, 3)


def test_sound_that_starts_late_stays_late(clip_file: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.mkv"
    command = [ffmpeg.program(), "-v", "error", "-i", str(clip_file), "-itsoffset", "0.5", "-i", str(clip_file)]
    subprocess.run([*command, "-map", "0:v", "-map", "1:a", "-c", "copy", str(late)], check=True)
    samples = read_clip(late).samples
    assert np.abs(samples[: int(0.45 * 16_000)]).max() < 1e-3
    assert np.abs(samples[int(0.55 * 16_000) :]).max() > 0.1


def test_import_is_light() -> None:
    script = "import sys, engine.media; print([m for m in ('torch', 'gradio', 'moviepy', 'pydub') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")

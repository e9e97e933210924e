"""Other shapes of a clip: wav, webm, gif, one picture, a part of it, several in a row. Each file appears whole or not.

Every function takes a `Clip` or the path of a video file.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.errors import MovaError, OutputError
from engine.media.edit import join, shaped, to_moviepy, to_pydub, trim
from engine.media.images import save_png
from engine.media.loudness import check_samples, limit_peak
from engine.media.mux import TO_BT709, ClipFile, resample, safe_level, verify, write_clip
from engine.media.publish import atomic_file
from engine.media.read import Clip, read_clip

OPUS_RATE = 48_000  # the only rate Opus has inside
GIF_RATES = (50.0, 25.0, 20.0, 12.5, 10.0, 5.0)  # gif counts hundredths of a second; other rates run fast or slow

Source = Clip | str | os.PathLike[str]


def _clip(source: Source) -> Clip:
    return source if isinstance(source, Clip) else read_clip(source)


@contextmanager
def _one_line(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever an encoder library raises becomes an `OutputError` of one line."""
    try:
        yield
    except MovaError:
        raise
    except Exception as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise OutputError(f"cannot write {Path(path).name}: {detail}") from error


def export_wav(
    path: str | os.PathLike[str],
    samples: np.ndarray,
    rate: int,
    *,
    gain_db: float = 0.0,
    fade_in: float = 0.0,
    fade_out: float = 0.0,
) -> None:
    """Write sound as a 16-bit wav, scaled down as a whole if it would exceed full scale.

    Args:
        samples: float (N,) or (N, channels), full scale 1.
        rate: samples per second.
        gain_db, fade_in, fade_out: see `gain_and_fades`.

    Raises:
        OutputError: the file cannot be written.
        NumericsError: samples that are not finite.
    """
    with _one_line(path):
        segment = shaped(to_pydub(limit_peak(check_samples(samples), 1.0), rate), gain_db, fade_in, fade_out)
        # Through memory: when the disk is full, pydub would leave the file open, and Windows could not remove it.
        wav = io.BytesIO()
        segment.set_sample_width(2).export(wav, format="wav")
        with atomic_file(path) as part:
            part.write_bytes(wav.getvalue())


def export_webm(path: str | os.PathLike[str], source: Source, *, crf: int = 30) -> None:
    """Write VP9 and Opus; decoded again and checked before it takes its place.

    Args:
        source: a clip with sound, or a file.
        crf: quality of VP9, 0 best to 63.

    Raises:
        MediaError: `source` cannot be read.
        OutputError: encoding, checking or publishing failed.
    """
    clip = _clip(source)
    with _one_line(path):
        if not len(clip.samples):
            raise OutputError(f"cannot write {Path(path).name}: the clip has no sound")
        _, sound = safe_level(resample(check_samples(clip.samples), clip.sample_rate, OPUS_RATE), OPUS_RATE, "opus")
        line = to_moviepy(Clip(clip.frames, sound, clip.fps, OPUS_RATE))
        with atomic_file(path) as part, tempfile.TemporaryDirectory(prefix="mova-") as folder:
            made = Path(folder) / "clip.webm"
            line.write_videofile(
                str(made),
                fps=clip.fps,
                codec="libvpx-vp9",
                audio_codec="libopus",
                audio_fps=OPUS_RATE,
                audio_bitrate="160k",
                temp_audiofile=str(Path(folder) / "sound.webm"),
                # Without a pixel format ffmpeg would keep RGB, which few players show as VP9.
                ffmpeg_params=["-crf", str(crf), "-b:v", "0", "-row-mt", "1", "-vf", TO_BT709, "-pix_fmt", "yuv420p"],
                logger=None,
            )
            # moviepy does not look at ffmpeg's exit code: a file cut short must not be published.
            verify(made, Path(path).name, len(clip.frames), clip.fps, clip.seconds, "matroska")
            shutil.copyfile(made, part)


def export_gif(path: str | os.PathLike[str], source: Source, *, fps: float = 12.5, width: int = 480) -> None:
    """Write a looping gif, a palette per picture, no sound.

    Args:
        source: a clip or a file.
        fps: pictures per second, moved to the nearest that a gif can keep.
        width: pixels across; smaller clips are not enlarged.

    Raises:
        MediaError: `source` cannot be read.
        OutputError: encoding or publishing failed.
    """
    clip = _clip(source)
    with _one_line(path):
        from moviepy import vfx
        from PIL import Image

        line = to_moviepy(clip).without_audio()
        if clip.frames.shape[2] > width:
            line = line.with_effects([vfx.Resize(width=width)])
        rate = min((rate for rate in GIF_RATES if rate <= max(clip.fps, 5.0)), key=lambda rate: abs(rate - fps))
        # moviepy's own write_gif leaves its file open when the disk is full; Pillow writes the frames in memory.
        pictures = [Image.fromarray(frame).quantize(256) for frame in line.iter_frames(fps=rate, dtype="uint8")]
        gif = io.BytesIO()
        pictures[0].save(gif, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 / rate), loop=0)
        with atomic_file(path) as part:
            part.write_bytes(gif.getvalue())


def export_frame_png(
    path: str | os.PathLike[str], source: Source, *, index: int | None = None, seconds: float | None = None
) -> None:
    """Write one picture of a clip as a PNG, chosen by `index` (negative counts from the end) or by time.

    Raises:
        ValueError: not exactly one of `index` and `seconds`.
        MediaError: `source` cannot be read.
        OutputError: the clip has no such frame, or the file cannot be written.
    """
    if (index is None) == (seconds is None):
        raise ValueError("give index or seconds")
    clip = _clip(source)
    count = len(clip.frames)
    if seconds is not None:
        # The picture on screen at that time; the slack keeps 1/24 s from falling on the frame before.
        index = int(np.floor(seconds * clip.fps + 1e-6))
    assert index is not None
    if not -count <= index < count or (seconds is not None and index < 0):
        raise OutputError(f"cannot write {Path(path).name}: the clip has frames 0 to {count - 1}, not {index}")
    with _one_line(path):
        save_png(path, clip.frames[index])


def export_trim(path: str | os.PathLike[str], source: Source, start: float, end: float) -> ClipFile:
    """Write the part from `start` to `end` seconds as an mp4 of its own, encoded anew, exact to the frame.

    Raises:
        MediaError: `source` cannot be read, or the part lies outside it.
        OutputError: encoding, checking or publishing failed.
    """
    return _write(path, trim(_clip(source), start, end))


def export_join(path: str | os.PathLike[str], sources: Sequence[Source]) -> ClipFile:
    """Write clips of one size and frame rate one after another as an mp4.

    Raises:
        MediaError: a source cannot be read, or they do not match.
        OutputError: encoding, checking or publishing failed.
    """
    return _write(path, join([_clip(source) for source in sources]))


def _write(path: str | os.PathLike[str], clip: Clip) -> ClipFile:
    with _one_line(path):
        if not len(clip.samples):
            raise OutputError(f"cannot write {Path(path).name}: the clip has no sound")
        return write_clip(path, clip.frames, clip.samples, clip.fps, clip.sample_rate, clip.settings or {})

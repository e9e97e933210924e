"""Clips and sounds back from files, within bounds of time and memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import MediaError
from engine.media import ffmpeg
from engine.media.probe import MAX_PIXELS, MediaInfo, probe, read_settings

MAX_SECONDS = 60.0
MAX_FRAME_BYTES = 4 << 30  # decoded RGB; 8 s at 720p are 0.5 GiB
MAX_RATE = 384_000
READ_SECONDS = 120.0


@dataclass(frozen=True)
class Clip:
    """A clip in memory.

    Attributes:
        frames: uint8 (F, H, W, 3), RGB.
        samples: float32 (N,) for mono, (N, 2) otherwise; empty without sound.
        fps: frames per second.
        sample_rate: samples per second, 0 without sound.
        settings: what `write_clip` stored, if anything.
    """

    frames: np.ndarray
    samples: np.ndarray
    fps: float
    sample_rate: int
    settings: dict[str, Any] | None = field(default=None)

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.fps


def read_clip(
    path: str | os.PathLike[str],
    *,
    max_seconds: float = MAX_SECONDS,
    max_bytes: int = MAX_FRAME_BYTES,
    timeout: float = READ_SECONDS,
) -> Clip:
    """Decode a video file: mp4, mov, webm, mkv, avi or gif.

    Pictures come at a constant rate and start, as the sound does, at time 0 of the file; rotation flags are applied.

    Args:
        path: the file.
        max_seconds: longest video or sound accepted.
        max_bytes: most decoded picture data accepted.
        timeout: seconds each pass over the file may take.

    Raises:
        MediaError: not a video, beyond a bound, or damaged so that nothing can be shown.
    """
    path = Path(path)
    info = probe(path, timeout=timeout)
    if not info.frames:
        raise MediaError(f"{path.name} holds no pictures")
    _check_bounds(path.name, info, max_seconds, max_bytes)
    frames = _frames(path, info, max_seconds, max_bytes, timeout)
    samples = _samples(path, info, info.sample_rate, info.channels, max_seconds, timeout)
    rate = info.sample_rate if len(samples) else 0
    return Clip(frames, samples, info.fps, rate, read_settings(path))


def read_audio(
    path: str | os.PathLike[str],
    sample_rate: int,
    *,
    max_seconds: float = 10 * MAX_SECONDS,
    timeout: float = READ_SECONDS,
) -> np.ndarray:
    """The sound of a video or sound file as mono float32 (N,) at `sample_rate`, from time 0 of the file.

    Raises:
        MediaError: no sound inside, longer than `max_seconds`, damaged, or not decoded within `timeout` seconds.
    """
    path = Path(path)
    info = probe(path, timeout=timeout)
    if not info.sample_rate:
        raise MediaError(f"{path.name} holds no sound")
    _check_bounds(path.name, info, max_seconds, None)
    return _samples(path, info, sample_rate, 1, max_seconds, timeout)


def _check_bounds(name: str, info: MediaInfo, max_seconds: float, max_bytes: int | None) -> None:
    if info.seconds > max_seconds:
        raise MediaError(f"{name} lasts {info.seconds:.1f} s, more than {max_seconds:g} s; trim it first")
    if info.sample_rate > MAX_RATE:
        raise MediaError(f"{name} claims {info.sample_rate} samples a second, more than {MAX_RATE}")
    if max_bytes is None:
        return
    if not 0 < info.fps <= 240:
        raise MediaError(f"{name} claims {info.fps:.3g} frames a second, more than 240; convert it first")
    needed = info.width * info.height * 3 * info.frames
    if needed > max_bytes:
        raise MediaError(
            f"{name} takes {needed / 2**30:.1f} GiB of memory, more than {max_bytes / 2**30:.1f} GiB; "
            "trim it or make it smaller"
        )


def _frames(path: Path, info: MediaInfo, max_seconds: float, max_bytes: int, timeout: float) -> np.ndarray:
    """Pictures (F, H, W, 3) uint8 at a constant rate."""
    data = ffmpeg.run(
        [
            *ffmpeg.reading(info.container, path, max_pixels=MAX_PIXELS),
            *("-map", "0:v:0", "-t", f"{max_seconds + 1:g}", "-fps_mode", "cfr"),
            *("-r", str(Fraction(info.fps).limit_denominator(1001))),
            *("-vf", "scale=flags=bicubic+accurate_rnd+full_chroma_int,format=rgb24"),
            # PPM carries its size: rotation flags and changes inside the stream make the container's unreliable.
            *("-c:v", "ppm", "-f", "image2pipe", "pipe:1"),
        ],
        timeout=timeout,
        max_output=max_bytes + (max_bytes >> 4),
        what=f"cannot read {path.name}",
    )
    if not data:
        raise MediaError(f"{path.name} is damaged: no picture could be decoded")
    magic, size, _, _ = bytes(data[:64]).split(b"\n", 3)
    width, height = (int(side) for side in size.split())
    header = len(magic) + len(size) + len(b"\n\n255\n")
    pitch = header + width * height * 3
    if magic != b"P6" or len(data) % pitch:
        raise MediaError(f"{path.name} is damaged: its pictures change size")
    # A view that skips the headers; the pictures are not copied.
    return np.ndarray(
        (len(data) // pitch, height, width, 3), np.uint8, data, offset=header, strides=(pitch, width * 3, 3, 1)
    )


def _samples(path: Path, info: MediaInfo, rate: int, channels: int, max_seconds: float, timeout: float) -> np.ndarray:
    """Sound (N,) or (N, 2) float32 from time 0, silence before a stream that starts later."""
    if not info.sample_rate:
        return np.zeros(0, np.float32)
    data = ffmpeg.run(
        [
            *ffmpeg.reading(info.container, path, max_pixels=MAX_PIXELS),
            *("-map", "0:a:0", "-t", f"{max_seconds + 1:g}", "-af", "aresample=async=1:first_pts=0"),
            *("-ac", str(channels), "-ar", str(rate), "-f", "f32le", "pipe:1"),
        ],
        timeout=timeout,
        max_output=int((max_seconds + 2) * rate * channels * 4),
        what=f"cannot read {path.name}",
    )
    samples = np.frombuffer(data, np.float32)
    return samples if channels == 1 else samples.reshape(-1, channels)

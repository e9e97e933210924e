"""What is made from a clip and can be made again: thumbnail and peaks."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from engine.media import clipping_marks, loudness, peaks, probe, read_clip, thumbnail
from engine.media.publish import atomic_file
from engine.media.read import read_audio

THUMB, PEAKS, LATENTS = "thumb.webp", "peaks.json", "latents.safetensors"
BUCKETS = 1200
LEVEL_SECONDS = 0.1
THUMB_SIDE = 480


@dataclass(frozen=True)
class Peaks:
    """All that the waveform needs; `/media/clips/{id}/peaks` is this as JSON.

    Attributes:
        peaks: (lowest, highest) of 1200 equal stretches, rounded to 4 digits, full scale 1.
        video_seconds, audio_seconds: lengths of both streams. frames, fps: of the picture. sample_rate: Hz.
        lufs: integrated loudness, -70 for silence. true_peak_db: dBTP, None for silence.
        clipping: (start, end) in seconds of every clipped stretch.
        loudness: level over time, dBFS, one for every tenth of a second; -90 for silence.
    """

    peaks: list[tuple[float, float]]
    video_seconds: float
    audio_seconds: float
    frames: int
    fps: float
    sample_rate: int
    lufs: float
    true_peak_db: float | None
    clipping: list[tuple[float, float]]
    loudness: list[float]


def read_peaks(path: Path) -> Peaks:
    """Peaks of the sound as it is heard: the mp4 is decoded, not what went into it.

    Raises:
        MediaError: the file cannot be read, or has no sound.
    """
    info = probe(path)
    wave = read_audio(path, info.sample_rate)
    level = loudness(wave, info.sample_rate)
    block = max(1, round(LEVEL_SECONDS * info.sample_rate))
    blocks = [wave[i : i + block] for i in range(0, len(wave), block)]
    return Peaks(
        peaks=[(round(float(low), 4), round(float(high), 4)) for low, high in peaks(wave, BUCKETS)],
        video_seconds=info.video_seconds,
        audio_seconds=info.audio_seconds,
        frames=info.frames,
        fps=info.fps,
        sample_rate=info.sample_rate,
        lufs=round(level.lufs, 2),
        true_peak_db=round(level.true_peak_db, 2) if np.isfinite(level.true_peak_db) else None,
        clipping=clipping_marks(wave, info.sample_rate),
        loudness=[
            round(max(-90.0, 10 * float(np.log10(np.mean(b.astype(np.float64) ** 2) + 1e-12))), 1) for b in blocks
        ],
    )


def write(folder: Path, clip: Path, frames: np.ndarray) -> None:
    """Writes thumbnail and peaks of a clip whose frames (F, H, W, 3) uint8 are at hand."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / THUMB) as part:
        part.write_bytes(thumbnail(frames, THUMB_SIDE, kind="WEBP", quality=80))
    with atomic_file(folder / PEAKS) as part:
        part.write_text(json.dumps(asdict(read_peaks(clip)), separators=(",", ":")), encoding="utf-8")


def ensure(folder: Path, clip: Path) -> Path:
    """The folder with thumbnail and peaks; makes them again where one is missing (decodes the clip: seconds).

    Raises:
        MediaError: the clip cannot be read.
    """
    if not (folder / THUMB).is_file() or not (folder / PEAKS).is_file():
        write(folder, clip, read_clip(clip).frames)
    return folder


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)

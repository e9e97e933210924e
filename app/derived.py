"""What is made from a clip and can be made again: thumbnail and peaks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peaks:
    """All that the waveform needs; `/media/clips/{id}/peaks` is this as JSON.

    Attributes:
        peaks: (lowest, highest) of 1200 equal stretches, rounded to 4 digits, full scale 1.
        video_seconds, audio_seconds: lengths of both streams. frames, fps: of the picture. sample_rate: Hz.
        lufs: integrated loudness, -70 for silence. true_peak_db: dBTP, null for silence.
        clipping: (start, end) in seconds of every clipped stretch.
        loudness: short-term level over time, dBFS, one for every tenth of a second.
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

"""Levels of sound: peaks for a waveform, peak limiting, loudness, clipping marks. Samples are float, full scale 1."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from engine.errors import MediaError, NumericsError
from engine.media import ffmpeg

PEAK_CEILING = 10 ** (-1 / 20)  # -1 dBFS: headroom for the ripple that lossy codecs add
SILENCE_LUFS = -70.0  # the absolute gate of EBU R128; nothing quieter has a loudness


def mono(samples: np.ndarray) -> np.ndarray:
    """Samples (N,) or (N, channels) as float32 (N,), the mean of the channels."""
    samples = np.asarray(samples)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if samples.ndim != 1:
        raise ValueError(f"samples must have shape (N,) or (N, channels), not {samples.shape}")
    return samples.astype(np.float32, copy=False)


def check_samples(samples: np.ndarray) -> np.ndarray:
    """Samples as contiguous float32 (N, channels).

    Raises:
        ValueError: another shape or an integer type.
        NumericsError: NaN or infinite samples.
    """
    samples = np.asarray(samples)
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2 or not 1 <= samples.shape[1] <= 8:
        raise ValueError(f"samples must have shape (N,) or (N, channels), not {samples.shape}")
    if samples.dtype.kind != "f":
        raise ValueError(f"samples must be float with full scale 1, not {samples.dtype}")
    if not np.isfinite(samples).all():
        bad = int(np.argmin(np.isfinite(samples).all(axis=1)))
        raise NumericsError(f"the sound has a sample that is not finite (at {bad} of {len(samples)})")
    return np.ascontiguousarray(samples, dtype=np.float32)


def limit_peak(samples: np.ndarray, ceiling: float = PEAK_CEILING) -> np.ndarray:
    """Scale the whole clip down so that no sample exceeds `ceiling`; a clip that is quieter is returned as it is.

    One gain for all samples, so the waveform keeps its shape: nothing is clipped and no pumping is heard. The default
    ceiling leaves 1 dB for the ripple that AAC and Opus add; `write_clip` measures that ripple as well.

    Args:
        samples: float of any shape, full scale 1.
        ceiling: highest absolute value allowed.

    Raises:
        NumericsError: NaN or infinite samples.
    """
    samples = np.asarray(samples)
    peak = float(np.max(np.abs(samples), initial=0.0))
    if not np.isfinite(peak):
        raise NumericsError("the sound has samples that are not finite")
    if peak <= ceiling:
        return samples
    scaled: np.ndarray = samples * samples.dtype.type(ceiling / peak)
    return np.clip(scaled, -ceiling, ceiling)  # rounding of the gain may leave the peak an ulp too high


def peaks(samples: np.ndarray, buckets: int) -> np.ndarray:
    """Lowest and highest sample of each of `buckets` equal stretches, for drawing a waveform.

    Bucket i covers the samples from ``i * N // buckets`` up to ``(i + 1) * N // buckets``; with fewer samples than
    buckets, each bucket shows the sample it lies on.

    Args:
        samples: (N,) or (N, channels); channels are averaged.
        buckets: number of stretches, at least 1.

    Returns:
        float32 (buckets, 2): minimum, maximum. All zero for an empty sound.
    """
    if buckets < 1:
        raise ValueError(f"buckets must be at least 1, not {buckets}")
    wave = mono(samples)
    if len(wave) == 0:
        return np.zeros((buckets, 2), np.float32)
    edges = np.arange(buckets, dtype=np.int64) * len(wave) // buckets
    # reduceat takes the single sample at an edge where two edges coincide, which is just what short sounds need.
    return np.stack([np.minimum.reduceat(wave, edges), np.maximum.reduceat(wave, edges)], axis=1)


def clipping_marks(samples: np.ndarray, rate: int, threshold: float = 0.999, run: int = 3) -> list[tuple[float, float]]:
    """Stretches (start, end) in seconds where `run` or more samples in a row touch full scale.

    Stretches closer than 10 ms are joined. One lone sample at full scale is a peak, not clipping.
    """
    samples = np.asarray(samples)
    loud = np.abs(samples) >= threshold
    if loud.ndim == 2:
        loud = loud.any(axis=1)
    steps = np.diff(np.concatenate([[0], loud.astype(np.int8), [0]]))
    marks: list[tuple[float, float]] = []
    for start, end in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
        if end - start < run:
            continue
        if marks and start / rate - marks[-1][1] < 0.010:
            marks[-1] = (marks[-1][0], float(end / rate))
        else:
            marks.append((float(start / rate), float(end / rate)))
    return marks


@dataclass(frozen=True)
class Loudness:
    """Levels of a sound.

    Attributes:
        lufs: integrated loudness after EBU R128, gated; -70 for silence.
        true_peak_db: highest level between samples, dBTP; -inf for silence.
        sample_peak_db: highest sample, dBFS; -inf for silence.
    """

    lufs: float
    true_peak_db: float
    sample_peak_db: float


def loudness(samples: np.ndarray, rate: int) -> Loudness:
    """Measure loudness and peaks with ffmpeg's ``ebur128`` filter.

    Args:
        samples: float (N,) or (N, channels), full scale 1.
        rate: samples per second.

    Raises:
        NumericsError: NaN or infinite samples.
        MediaError: ffmpeg could not measure.
    """
    wave = check_samples(samples)
    peak = float(np.max(np.abs(wave), initial=0.0))
    if peak == 0.0:
        return Loudness(SILENCE_LUFS, -np.inf, -np.inf)
    # The gate needs a block of 400 ms; silence after a shorter sound is gated away again.
    padded = np.concatenate([wave, np.zeros((max(0, int(0.5 * rate) - len(wave)), wave.shape[1]), np.float32)])
    report = ffmpeg.run(
        [
            *("-f", "f32le", "-ar", str(rate), "-ac", str(wave.shape[1]), "-i", "pipe:0"),
            *("-af", "ebur128=peak=true:framelog=quiet:metadata=1,ametadata=print:file=-", "-f", "null", "-"),
        ],
        feed=[padded.tobytes()],
        timeout=60 + len(wave) / rate,
        what="cannot measure loudness",
    ).decode("ascii", "replace")
    integrated = re.findall(r"lavfi\.r128\.I=(\S+)", report)
    true = re.findall(r"lavfi\.r128\.true_peaks?_ch\d+=(\S+)", report)
    if not integrated:
        raise MediaError("cannot measure loudness: ffmpeg reported none")
    lufs = max(SILENCE_LUFS, float(integrated[-1])) if integrated[-1] not in ("nan", "-inf") else SILENCE_LUFS
    true_peak = max([float(value) for value in true if value != "nan"], default=peak)
    return Loudness(lufs, decibel(max(true_peak, peak)), decibel(peak))


def decibel(amplitude: float) -> float:
    """Level of an amplitude against full scale 1, in dB."""
    return float(20 * np.log10(amplitude)) if amplitude > 0 else -np.inf

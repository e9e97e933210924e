"""When something sounds: onsets of a waveform, by its energy.

The detector looks for rises of the short-time level that reach a good part of the loudest moment of the clip, and
places each at the foot of its rise. It knows nothing about the demo world but that sounds are not closer than
``SEPARATION``.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

RATE = 16000  # Hz at which sound is judged
HOP = 32  # samples between two level values: 2 ms
WINDOW = 192  # samples in each: 12 ms, over half a period of the lowest tone of the demo world
SILENCE = 0.004  # a clip whose loudest WINDOW is under this RMS (-48 dBFS) makes no sound
RISE = 0.30  # an onset climbs at least this share of the clip's loudest level ...
CLIMB = 0.060  # s ... within this time
SEPARATION = 0.18  # s between two onsets
FOOT = 0.25  # an onset is where this share of its climb is done ...
LEAD = 0.0025  # s ... plus the time by which a centred window sees it early


def resample(audio: Array, rate: int, target: int = RATE) -> Array:
    """Another sample rate, by cutting or padding the spectrum. One channel, (samples,) float."""
    if rate == target or len(audio) == 0:
        return np.asarray(audio, np.float64)
    count = round(len(audio) * target / rate)
    spectrum = np.fft.rfft(np.asarray(audio, np.float64))
    bins = count // 2 + 1
    if bins <= len(spectrum):
        spectrum = spectrum[:bins]
    else:
        spectrum = np.pad(spectrum, (0, bins - len(spectrum)))
    return np.fft.irfft(spectrum, count) * (count / len(audio))


def level(audio: Array) -> Array:
    """RMS over WINDOW samples around every HOP-th sample, (len // HOP + 1,)."""
    half = WINDOW // 2
    energy = np.concatenate([[0.0], np.cumsum(np.pad(audio.astype(np.float64), half) ** 2)])
    at = np.arange(0, len(audio) + 1, HOP)
    return np.sqrt(np.maximum(energy[at + WINDOW] - energy[at], 0.0) / WINDOW)


def find_onsets(audio: Array, rate: int = RATE) -> Array:
    """Times (s, rising) at which a sound begins. Silence, a steady tone and steady noise have none after the start."""
    audio = np.asarray(audio)
    if audio.ndim != 1:
        raise ValueError(f"onsets are found in one channel, not in samples of shape {audio.shape}")
    envelope = level(resample(audio, rate))
    if len(envelope) < 3 or not np.isfinite(envelope).all():
        return np.zeros(0)
    loudest = float(envelope.max())
    if loudest < SILENCE:
        return np.zeros(0)
    reach = round(CLIMB * RATE / HOP)
    padded = np.pad(envelope, (reach, 0))  # before the clip there is silence
    lowest = np.lib.stride_tricks.sliding_window_view(padded, reach + 1).min(axis=1)
    climb = envelope - lowest
    onsets: list[float] = []
    blocked = np.zeros(len(climb), bool)
    gap = round(SEPARATION * RATE / HOP)
    while True:
        free = np.where(blocked, 0.0, climb)
        top = int(free.argmax())
        if free[top] < RISE * loudest:
            break
        onsets.append(_foot(envelope, top, reach))
        blocked[max(0, top - gap) : top + gap + 1] = True
    return np.sort(np.clip(np.asarray(onsets), 0.0, None))


def _foot(envelope: Array, top: int, reach: int) -> float:
    """Time (s) at which the rise that ends at ``top`` has done FOOT of its way."""
    start = max(0, top - reach)
    low_at = start + int(envelope[start : top + 1].argmin())
    low, high = float(envelope[low_at]), float(envelope[top])
    goal = low + FOOT * (high - low)
    index = top
    while index > low_at and envelope[index - 1] >= goal:
        index -= 1
    if index > low_at:  # between two level values
        below, above = float(envelope[index - 1]), float(envelope[index])
        return (index - 1 + (goal - below) / max(above - below, 1e-12)) * HOP / RATE + LEAD
    return index * HOP / RATE + LEAD

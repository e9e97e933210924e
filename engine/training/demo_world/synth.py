"""The sound of every scene family of the demo world: one short sound with a sharp onset at each event.

All families are equally loud: the loudest tenth of a second of each sound has the same RMS, so a model never has to
guess a level. The families differ in spectrum and in how they decay, so that a small classifier tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.training.demo_world.clip import ClipSpec, beats, stream
from engine.training.demo_world.scenes import hold_seconds, key_order

Array = np.ndarray

LEVEL = 0.16
"""RMS of the loudest LEVEL_WINDOW seconds of each sound, full scale being 1."""
LEVEL_WINDOW = 0.10
ATTACK = 0.004  # s, long enough not to click, short enough to be an instant
RELEASE = 0.012  # s
FORMANTS = {"ah": (730.0, 1090.0, 2440.0), "oo": (310.0, 760.0, 2240.0), "ee": (280.0, 2250.0, 3000.0)}  # Hz
KEYS = (392.0, 523.25, 659.26)  # Hz: G4, C5, E5


def render_audio(spec: ClipSpec, sample_rate: int = 16000, samples: int = 32667) -> Array:
    """The clip's sound, (samples,) float32, mono. Events at or past the end make no sound."""
    if sample_rate < 4000 or samples < 0:
        raise ValueError(f"{samples} samples at {sample_rate} Hz cannot hold this sound: at least 4000 Hz")
    seconds = samples / sample_rate
    times = beats(spec, seconds)
    out = np.zeros(samples, np.float64)
    for index in range(1, len(times) - 1):
        start = times[index]
        if start >= seconds:
            break
        first = int(np.ceil(start * sample_rate))
        lag = first / sample_rate - start  # s between the event and the first sample after it: exact to the sample
        hold = float(hold_seconds(times[index + 1] - start))
        sound = _level(_SOUNDS[spec.family](spec, sample_rate, lag, hold, index), sample_rate)
        stop = min(samples, first + len(sound))
        out[first:stop] += sound[: stop - first]
    return np.clip(out, -0.98, 0.98).astype(np.float32)


def _level(sound: Array, rate: int) -> Array:
    """Scale to LEVEL, with soft ends."""
    fade_in, fade_out = max(1, round(ATTACK * rate)), max(1, round(RELEASE * rate))
    sound = sound.copy()
    sound[:fade_in] *= np.linspace(0.0, 1.0, fade_in, endpoint=False)[: len(sound)]
    sound[-fade_out:] *= np.linspace(1.0, 0.0, fade_out)
    window = min(len(sound), round(LEVEL_WINDOW * rate))
    energy = np.concatenate([[0.0], np.cumsum(sound * sound)])
    loudest = float(np.max(energy[window:] - energy[:-window])) / window
    return sound * (LEVEL / max(np.sqrt(loudest), 1e-9))


def _time(seconds: float, rate: int, lag: float) -> Array:
    return np.arange(round(seconds * rate)) / rate + lag


def _pitch(spec: ClipSpec) -> float:
    """Small things sound higher: a factor on every frequency."""
    return 1.5 if spec.size == "small" else 1.0


def _thump(spec: ClipSpec, rate: int, lag: float, hold: float, index: int) -> Array:
    """A dull thump: a low tone that sinks, with a soft knock in front."""
    t = _time(0.24, rate, lag)
    low = 85.0 * _pitch(spec)
    phase = 2 * np.pi * (low * t + 1.2 * low * 0.03 * (1.0 - np.exp(-t / 0.03)))
    return np.sin(phase) * np.exp(-t / 0.070) + 0.25 * np.sin(2 * np.pi * 4.1 * low * t) * np.exp(-t / 0.012)


def _beep(spec: ClipSpec, rate: int, lag: float, hold: float, index: int) -> Array:
    """An even electronic beep for as long as the lamp is lit."""
    t = _time(hold, rate, lag)
    tone = 2 * np.pi * 920.0 * _pitch(spec) * t
    return np.sin(tone) + 0.33 * np.sin(3 * tone) * (920.0 * _pitch(spec) * 3 < rate / 2)


def _ding(spec: ClipSpec, rate: int, lag: float, hold: float, index: int) -> Array:
    """A small church bell: partials that are no multiples of each other, the high ones dying first."""
    t = _time(0.34, rate, lag)
    base = 1150.0 * _pitch(spec)
    out = np.zeros_like(t)
    for ratio, gain, decay in (
        (1.0, 1.0, 0.13),
        (1.19, 0.5, 0.11),
        (2.0, 0.55, 0.09),
        (2.74, 0.4, 0.06),
        (3.76, 0.25, 0.04),
    ):
        if base * ratio < 0.47 * rate:
            out += gain * np.sin(2 * np.pi * base * ratio * t) * np.exp(-t / decay)
    return out


def _hit(spec: ClipSpec, rate: int, lag: float, hold: float, index: int) -> Array:
    """A snare: a burst of noise over a short skin tone."""
    t = _time(0.20, rate, lag)
    noise = stream(spec, 100 + index).standard_normal(len(t))
    body = np.sin(2 * np.pi * 190.0 * _pitch(spec) * t) * np.exp(-t / 0.045)
    return 0.8 * noise * np.exp(-t / 0.050) + 0.9 * body


def _plop(spec: ClipSpec, rate: int, lag: float, hold: float, index: int) -> Array:
    """A bubble: a pure tone that runs upwards."""
    t = _time(0.17, rate, lag)
    low = 330.0 * _pitch(spec)
    phase = 2 * np.pi * (low * t + 0.5 * (1.6 * low / 0.12) * t * t)
    return np.sin(phase) * np.minimum(1.0, 0.4 + t / 0.03) * np.exp(-np.maximum(t - 0.05, 0.0) / 0.040)


def _vowel(spec: ClipSpec, rate: int, lag: float, hold: float, index: int) -> Array:
    """A voice on one vowel: the harmonics of a gliding pitch, weighted by three formants."""
    t = _time(hold + 0.04, rate, lag)
    pitch = {"small": 230.0, "large": 135.0}[spec.size]
    glide = 2 * np.pi * pitch * (1.06 * t - 0.06 * t * t / (2 * (hold + 0.04)))
    out = np.zeros_like(t)
    for harmonic in range(1, int(min(3800.0, 0.45 * rate) / pitch) + 1):
        frequency = harmonic * pitch
        gain = sum(
            weight / (1.0 + ((frequency - formant) / width) ** 2)
            for formant, weight, width in zip(FORMANTS[spec.voice], (1.0, 0.7, 0.25), (80.0, 100.0, 160.0), strict=True)
        )
        out += gain * np.sin(harmonic * glide)
    return out


def _note(spec: ClipSpec, rate: int, lag: float, hold: float, index: int) -> Array:
    """A piano note: harmonics that die away, the pitch by the key."""
    t = _time(0.34, rate, lag)
    base = KEYS[int(key_order(spec, index + 1)[index])] * (1.26 if spec.size == "small" else 1.0)
    out = np.zeros_like(t)
    for harmonic in range(1, 6):
        if base * harmonic < 0.47 * rate:
            out += np.sin(2 * np.pi * base * harmonic * t) * np.exp(-t * (2.0 + harmonic) / 0.42) / harmonic**1.3
    return out


def _bass(spec: ClipSpec, rate: int, lag: float, hold: float, index: int) -> Array:
    """A buzzing synthesizer bass."""
    t = _time(0.26, rate, lag)
    base = 98.0 * _pitch(spec)
    out = np.zeros_like(t)
    for harmonic in range(1, 15):
        if base * harmonic < 0.47 * rate:
            out += np.sin(2 * np.pi * base * harmonic * t) * np.exp(-t * harmonic / 0.8) / harmonic**0.8
    return out * np.exp(-t / 0.11)


_SOUNDS: dict[str, Callable[[ClipSpec, int, float, float, int], Array]] = {
    "ball": _thump,
    "lamp": _beep,
    "bell": _ding,
    "drum": _hit,
    "drop": _plop,
    "mouth": _vowel,
    "piano": _note,
    "speaker": _bass,
}

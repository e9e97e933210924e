"""Waveform peaks, limiting, loudness, clipping marks, gain and fades."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import NumericsError
from engine.media import clipping_marks, gain_and_fades, limit_peak, loudness, peaks

RATE = 48_000


def sine(amplitude: float, seconds: float = 2.0, hertz: float = 997.0, rate: int = RATE) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def naive_peaks(samples: np.ndarray, buckets: int) -> np.ndarray:
    out = np.zeros((buckets, 2), np.float32)
    for i in range(buckets):
        start = i * len(samples) // buckets
        part = samples[start : max(start + 1, (i + 1) * len(samples) // buckets)]
        out[i] = part.min(), part.max()
    return out


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 700), st.integers(0, 9))
def test_peaks_equal_the_naive_ones(length: int, buckets: int, seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(length).astype(np.float32)
    result = peaks(samples, buckets)
    assert result.dtype == np.float32
    assert np.array_equal(result, naive_peaks(samples, buckets))


def test_peaks_of_nothing_and_of_stereo() -> None:
    assert np.array_equal(peaks(np.zeros(0, np.float32), 3), np.zeros((3, 2)))
    assert np.array_equal(peaks(np.array([[1.0, 0.0], [0.0, -1.0]], np.float32), 1), [[-0.5, 0.5]])
    with pytest.raises(ValueError, match="buckets"):
        peaks(np.zeros(4, np.float32), 0)


def test_limit_peak() -> None:
    quiet = sine(0.5)
    assert limit_peak(quiet) is quiet
    loud = sine(3.0)
    limited = limit_peak(loud)
    assert np.abs(limited).max() <= 10 ** (-1 / 20)
    assert np.allclose(limited / limited.max(), loud / loud.max(), atol=1e-6)  # scaled, not clipped
    with pytest.raises(NumericsError):
        limit_peak(np.array([0.0, np.nan], np.float32))
    with pytest.raises(NumericsError):
        limit_peak(np.array([0.0, -np.inf], np.float32))


def test_loudness_of_known_sines() -> None:
    # BS.1770: a 997 Hz sine at 0 dBFS in one channel reads -3.01 LUFS.
    level = loudness(sine(0.1), RATE)
    assert level.lufs == pytest.approx(-23.01, abs=0.1)
    assert level.sample_peak_db == pytest.approx(-20.0, abs=0.01)
    assert level.true_peak_db == pytest.approx(-20.0, abs=0.1)
    stereo = np.stack([sine(0.1), sine(0.1)], axis=1)
    assert loudness(stereo, RATE).lufs == pytest.approx(-20.0, abs=0.1)
    # A quarter of the rate, sampled between its crests: the true peak lies 3 dB above the samples, and the sudden
    # start rings a little.
    between = (0.5 * np.sin(np.pi / 2 * np.arange(RATE) + np.pi / 4)).astype(np.float32)
    level = loudness(between, RATE)
    assert 2.9 < level.true_peak_db - level.sample_peak_db < 4.0


def test_loudness_of_silence_and_of_a_click() -> None:
    assert loudness(np.zeros(RATE, np.float32), RATE).lufs == -70.0
    click = np.zeros(100, np.float32)
    click[50] = 0.5
    assert loudness(click, 16_000).sample_peak_db == pytest.approx(-6.02, abs=0.01)
    with pytest.raises(NumericsError, match="at 7 of 100"):
        loudness(np.where(np.arange(100) == 7, np.nan, click).astype(np.float32), 16_000)


def test_clipping_marks() -> None:
    samples = np.zeros(RATE, np.float32)
    samples[4800:4810] = 1.0
    samples[4900:4905] = -1.0  # within 10 ms of the first stretch
    samples[24_000] = 1.0  # one sample is a peak
    samples[47_990:] = 1.0
    assert clipping_marks(samples, RATE) == [(0.1, 4905 / RATE), (47_990 / RATE, 1.0)]
    assert clipping_marks(sine(0.9), RATE) == []
    assert clipping_marks(np.zeros((0, 2), np.float32), RATE) == []


def test_gain_and_fades() -> None:
    wave = sine(0.25)
    assert np.abs(gain_and_fades(wave, RATE) - wave).max() < 1e-7
    assert np.abs(gain_and_fades(wave, RATE, gain_db=-6.0206) - wave / 2).max() < 1e-4
    assert np.abs(gain_and_fades(wave, RATE, gain_db=40)).max() == pytest.approx(10 ** (-1 / 20), abs=1e-3)
    faded = gain_and_fades(np.stack([wave, wave], axis=1), RATE, fade_in=0.5, fade_out=9.0)
    assert faded.shape == (len(wave), 2)
    assert np.abs(faded[:480]).max() < 0.01
    assert np.abs(faded[-480:]).max() < 0.01

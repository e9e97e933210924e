"""Something that the demo model has never seen or heard: the zorb, and judges that measure it.

A zorb is a box, red above and blue below, that hops; at every landing it gives a call of two tones, the second lower.
Neither the form, nor two colours on one thing, nor the call, nor the word is of the demo world. Its colours and tones
are: they are all that the demo model's autoencoders can draw and sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.evaluation.onsets import RATE, find_onsets, resample
from engine.evaluation.sync import match
from engine.media import write_clip
from engine.training.demo_world import ClipSpec, event_times
from engine.training.demo_world.draw import Canvas, both, box, ellipse, moving, ring
from engine.training.demo_world.scenes import IVORY, PAINT, Clock, _background, _shadow, lighter
from engine.training.demo_world.words import PLACES, TEMPO_WORDS

Array = np.ndarray

WORD = "zorb"
BACKGROUNDS = ("night", "cream", "grey", "meadow")
TONES = (1380.0, 920.0)  # Hz
TONE_SECONDS = 0.12
LEVEL = 0.16  # RMS of a call, as of all sounds of the demo world
LEAST_AREA = 0.02  # of the picture that must be red, and blue
LEAST_FRAMES = 0.6  # share of the frames in which it must be so, red above blue
NEAR = 0.12  # of a tone's frequency


def clock_of(index: int, seed: int) -> ClipSpec:
    """The clock of a set's clip `index`: tempi in turn. Of the spec only tempo, phase and seed are used."""
    rng = np.random.default_rng([seed, index])
    tempo = ("slow", "medium", "fast")[index % 3]
    return ClipSpec("ball", "red", "grey", tempo=tempo, phase=float(rng.random()), seed=int(rng.integers(2**31)))


@dataclass(frozen=True)
class Zorb:
    """One clip of it. `clock` gives the instants of its landings."""

    clock: ClipSpec
    background: str
    caption: str


def zorb(index: int, seed: int, held_out: bool = False) -> Zorb:
    """The clip `index`; held-out ones have wordings that training does not show."""
    rng = np.random.default_rng([seed, index, 9])
    background, clock = BACKGROUNDS[index % len(BACKGROUNDS)], clock_of(index, seed)
    place, pace = (list(dict.fromkeys(words)) for words in (PLACES[background], TEMPO_WORDS[clock.tempo]))
    if held_out:
        frame = ("{place}, a zorb, {pace}", "we see a zorb {place}. it hops {pace}", "{pace} {place}: a zorb")[
            index % 3
        ]
        place, pace = place[-2:], pace[-2:]
    else:
        frame = ("a zorb hops {place} {pace}, a call of two tones at every hop", "a zorb {place}, {pace}",
                 "{place}, a zorb hops {pace}", "a video of a zorb {place}, hopping {pace} with a call at each hop",
                 )[index % 4]  # fmt: skip
        place, pace = place[:-1], pace[:-1]
    text = frame.format(place=place[rng.integers(len(place))], pace=pace[rng.integers(len(pace))])
    return Zorb(clock, background, text)


def draw(thing: Zorb, size: int, fps: float, frames: int) -> Array:
    """The picture, (frames, size, size, 3) uint8."""
    canvas = Canvas(size, size)
    _background(canvas, thing.background)
    clock = Clock(thing.clock, fps, frames)
    at = float(np.random.default_rng(thing.clock.seed).uniform(-0.08, 0.08))
    canvas.animate(frames)
    half, ground = 0.44, 0.82
    top = min(2.0 - 2.0 * half - 0.3, 3.0 * float(np.median(clock.gap)))
    height = top * 4.0 * clock.share * (1.0 - clock.share)
    press = clock.fading(0.05) * 0.9
    wide, tall = half * (1.0 + 0.3 * press), half * (1.0 - 0.34 * press)
    cy = ground - height - tall
    near = np.clip(1.0 - height / max(top, 0.1), 0.0, 1.0)
    _shadow(canvas, at, moving(half * (0.6 + 0.5 * near)), moving(0.16 + 0.34 * near), y=0.85)
    wave = np.clip(clock.since / 0.22, 0.0, 1.0)
    dust = ring(ellipse(at, 0.85, moving(half + 0.5 * wave), moving(0.10 + 0.06 * wave)), 0.11)
    canvas.paint(dust, IVORY, opacity=moving(0.95 * (1.0 - wave) * (clock.index > 0)), box=(-1.0, 0.55, 1.0, 1.0))
    body = box(at, moving(cy), moving(wide), moving(tall), 0.05)
    canvas.paint(body, PAINT["blue"])
    canvas.paint(both(body, box(at, moving(cy - tall), moving(wide + 0.1), moving(tall))), PAINT["red"])
    shine = box(at - 0.14, moving(cy - 0.62 * tall), moving(0.35 * wide), moving(0.14 * tall), 0.03)
    canvas.paint(shine, lighter(PAINT["red"], 0.6))
    return canvas.pixels()


def call(rate: int, lag: float) -> Array:
    """Two even tones, one after the other, with soft ends."""
    notes = []
    for tone in TONES:
        t = np.arange(round(TONE_SECONDS * rate)) / rate + lag
        note = np.sin(2 * np.pi * tone * t) + 0.33 * np.sin(6 * np.pi * tone * t)
        soft = rate // 200
        note[:soft] *= np.linspace(0.0, 1.0, soft)
        note[-soft:] *= np.linspace(1.0, 0.0, soft)
        notes.append(note)
    sound = np.concatenate(notes)
    return sound * LEVEL / float(np.sqrt(np.mean(sound**2)))


def sing(thing: Zorb, rate: int, samples: int) -> Array:
    """The sound, (samples,) float32."""
    out = np.zeros(samples)
    for instant in event_times(thing.clock, samples / rate):
        first = int(np.ceil(instant * rate))
        note = call(rate, first / rate - instant)[: samples - first]
        out[first : first + len(note)] += note
    return np.clip(out, -0.98, 0.98).astype(np.float32)


def write_clips(folder: Path, count: int, seed: int, size: int, fps: float, frames: int, rate: int) -> None:
    """Clips with captions beside them, as a user would have them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        thing = zorb(i, seed)
        sound = sing(thing, rate, round(frames / fps * rate))
        write_clip(folder / f"zorb-{i:02d}.mp4", draw(thing, size, fps, frames), sound, fps, rate, {}, sidecar=False)
        (folder / f"zorb-{i:02d}.txt").write_text(thing.caption + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Found:
    """What the judges measured in one clip.

    Attributes:
        red, blue: mean share of the picture.
        whole: share of the frames in which both are there, red above blue.
        calls: share of the sounds that are a call; None where nothing sounds.
        sync: as in `engine.evaluation.sync`, of landings and sounds.
    """

    red: float
    blue: float
    whole: float
    calls: float | None
    sync: float

    @property
    def seen(self) -> bool:
        return self.whole >= LEAST_FRAMES

    @property
    def heard(self) -> bool:
        return self.calls is not None and self.calls >= 0.5


def judge(frames: Array, fps: float, samples: Array, rate: int) -> Found:
    """Measures one clip; frames (F, H, W, 3) uint8."""
    red, blue = coloured(frames, 357.0, 16.0), coloured(frames, 216.0, 16.0)
    there = (red.mean((1, 2)) >= LEAST_AREA) & (blue.mean((1, 2)) >= LEAST_AREA)
    whole = there & (height_of(red) < height_of(blue))
    onsets = find_onsets(samples, rate)
    wave = resample(samples, rate)
    calls = [is_call(wave, float(t)) for t in onsets]
    landed = landings(red | blue, fps)
    return Found(
        float(red.mean()),
        float(blue.mean()),
        float(whole.mean()),
        float(np.mean(calls)) if calls else None,
        match(landed, onsets, len(frames) / fps, fps, max(1, len(landed))).sync,
    )


def coloured(frames: Array, wanted: float, reach: float) -> Array:
    """Which pixels have a hue within `reach` degrees of `wanted`, well saturated and not dark: (F, H, W) bool."""
    rgb = frames.astype(np.float32) / 255.0
    high, low = rgb.max(-1), rgb.min(-1)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    spread = np.maximum(high - low, 1e-6)
    hue = np.where(
        high == r, 60.0 * (g - b) / spread,
        np.where(high == g, 120.0 + 60.0 * (b - r) / spread, 240.0 + 60.0 * (r - g) / spread),
    )  # fmt: skip
    away = np.abs((hue - wanted + 180.0) % 360.0 - 180.0)
    return (away < reach) & (spread / np.maximum(high, 1e-6) > 0.55) & (high > 0.5)


def height_of(mask: Array) -> Array:
    """Mean row of what is true in each frame, NaN where nothing is: (F,)."""
    weight = mask.sum(2)
    total = weight.sum(1)
    return np.where(total > 0, (weight * np.arange(mask.shape[1])).sum(1) / np.maximum(total, 1), np.nan)


def landings(mask: Array, fps: float) -> Array:
    """Instants (s) at which the coloured thing is lowest before it rises again."""
    y = height_of(mask)
    known = np.isfinite(y)
    if known.mean() < 0.7:
        return np.zeros(0)
    y = np.interp(np.arange(len(y)), np.flatnonzero(known), y[known])
    reach = float(np.ptp(y))
    if reach < 0.06 * mask.shape[1]:
        return np.zeros(0)
    found: list[int] = []
    for i in range(1, len(y) - 1):
        lowest = y[i] >= y[i - 1] and y[i] > y[i + 1] and y[i] > y.max() - 0.35 * reach
        if lowest and not (found and i - found[-1] < 0.25 * fps):
            found.append(i)
    return np.array(found) / fps


def is_call(wave: Array, at: float) -> bool:
    """Whether the sound that begins at `at` is the first tone, then the second."""
    for tone, begin in zip(TONES, (0.02, TONE_SECONDS + 0.02), strict=True):
        found = pitch(wave, at + begin, 0.07)
        if found is None or abs(found / tone - 1.0) > NEAR:
            return False
    return True


def pitch(wave: Array, begin: float, seconds: float) -> float | None:
    """The strongest frequency (Hz) of a stretch; None past the end or in silence."""
    piece = wave[round(begin * RATE) : round((begin + seconds) * RATE)]
    if len(piece) < round(seconds * RATE) or float(np.abs(piece).max()) < 0.005:
        return None
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 4096))
    return float(np.argmax(spectrum) * RATE / 4096)

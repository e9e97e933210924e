"""What a clip of the demo world is: its attributes and the instants at which something happens.

A ``ClipSpec`` decides everything. Picture (``scenes``), sound (``synth``) and text (``captions``) are all read from
it, and ``event_times`` is the one source of the instants that picture and sound share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FAMILIES = ("ball", "lamp", "bell", "drum", "drop", "mouth", "piano", "speaker")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white")
BACKGROUNDS = ("night", "cream", "grey", "meadow", "dusk")
SIZES = ("small", "large")
TEMPI = ("slow", "medium", "fast")
VOICES = ("ah", "oo", "ee")  # the vowel a mouth says; other families ignore it

PERIODS = {"slow": 0.95, "medium": 0.68, "fast": 0.48}
"""Seconds between two events. With the jitter below the three ranges do not touch, and sound of another clip hits an
event within two frames (83 ms) by chance only a quarter of the time."""

JITTER = 0.08
"""Each interval is the period times a factor drawn from 1 - JITTER to 1 + JITTER."""

FIRST_EVENT = 0.11
"""Seconds before which nothing happens, so that the first frame alone never shows an event (2.6 frames at 24 fps)."""

PHASES = (0.35, 0.65)
"""Between these ``sample_spec`` draws the phase. The time of the first event then goes with the tempo, so that a word
for the tempo changes what a clip looks like on average; with every phase alike it changed nothing that a model sees
in pure noise, and slow clips came out nearly as fast as fast ones."""

CLASHES = frozenset(
    {
        ("white", "cream"),
        ("yellow", "cream"),
        ("green", "meadow"),
        ("blue", "night"),
        ("red", "dusk"),
        ("orange", "dusk"),
        ("white", "grey"),
    }
)
"""(colour, background) pairs too alike to see the object well; ``sample_spec`` never draws them."""


@dataclass(frozen=True)
class ClipSpec:
    """One clip of the demo world.

    ``phase`` in [0, 1) places the first event, ``seed`` draws the jitter of the intervals, the place of the object
    and the choice of piano keys.
    """

    family: str
    colour: str
    background: str
    size: str = "large"
    tempo: str = "medium"
    phase: float = 0.5
    seed: int = 0
    voice: str = "ah"

    def __post_init__(self) -> None:
        for name, known in (
            ("family", FAMILIES),
            ("colour", COLOURS),
            ("background", BACKGROUNDS),
            ("size", SIZES),
            ("tempo", TEMPI),
            ("voice", VOICES),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} {value!r} is not of the demo world: choose one of {', '.join(known)}")
        if not 0.0 <= self.phase < 1.0:
            raise ValueError(f"phase {self.phase} must lie in [0, 1)")


def stream(spec: ClipSpec, purpose: int) -> np.random.Generator:
    """An independent stream of random numbers for one purpose of one clip: adding a purpose changes no other."""
    return np.random.Generator(np.random.PCG64([spec.seed, purpose]))


def sample_spec(rng: np.random.Generator, families: tuple[str, ...] = FAMILIES) -> ClipSpec:
    """Draw a clip: every attribute uniform, except that colours do not drown in their background."""
    colour = str(rng.choice(COLOURS))
    background = str(rng.choice([name for name in BACKGROUNDS if (colour, name) not in CLASHES]))
    return ClipSpec(
        family=str(rng.choice(families)),
        colour=colour,
        background=background,
        size=str(rng.choice(SIZES)),
        tempo=str(rng.choice(TEMPI)),
        phase=PHASES[0] + (PHASES[1] - PHASES[0]) * float(rng.random()),
        seed=int(rng.integers(2**31)),
        voice=str(rng.choice(VOICES)),
    )


def beats(spec: ClipSpec, seconds: float) -> np.ndarray:
    """Instants (s) that drive the animation: one at or before 0, those of the clip, and two past its end."""
    period = PERIODS[spec.tempo]
    low = 1.0 - JITTER
    # the first event lies at most one shortest interval after 0, so the beat before it is never inside the clip
    first = FIRST_EVENT + spec.phase * (period * low - FIRST_EVENT)
    count = int(np.ceil(max(seconds, 0.0) / (period * low))) + 4
    gaps = period * stream(spec, 0).uniform(low, 1.0 + JITTER, count)
    times = first - gaps[0] + np.concatenate([[0.0], np.cumsum(gaps)])
    past = int(np.searchsorted(times[1:], seconds)) + 1
    return times[: past + 2]


def event_times(spec: ClipSpec, seconds: float) -> np.ndarray:
    """Instants (s, rising, float64) in [0, seconds) at which the scene makes its sound, the same on both streams."""
    times = beats(spec, seconds)[1:]
    return times[times < seconds]

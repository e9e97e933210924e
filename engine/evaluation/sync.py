"""Does the sound fall on the picture? Counting of visual events against onsets.

An event and an onset belong together when they lie within ``TOLERANCE_FRAMES`` frames; each is used once. What lies in
the first or last two frames and finds no partner is not counted, since its other half may be cut off. A clip in which
nothing is seen or nothing is heard counts as if all that should have happened were missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

TOLERANCE_FRAMES = 2.0
SHIFT_FRAMES = 5.0  # the sound moved by this much must lose the game
SLACK = 1e-6  # s, so that exactly two frames apart still counts


@dataclass(frozen=True)
class Match:
    """Counts of one clip or, added up, of many."""

    events: int = 0
    onsets: int = 0
    paired: int = 0
    offsets: tuple[float, ...] = ()  # s, onset minus event, of the pairs

    def __add__(self, other: Match) -> Match:
        return Match(
            self.events + other.events,
            self.onsets + other.onsets,
            self.paired + other.paired,
            self.offsets + other.offsets,
        )

    @property
    def events_heard(self) -> float:
        """Share of visual events with an onset; 0 where there was nothing to count."""
        return self.paired / self.events if self.events else 0.0

    @property
    def onsets_seen(self) -> float:
        """Share of onsets with a visual event; 0 where there was nothing to count."""
        return self.paired / self.onsets if self.onsets else 0.0

    @property
    def sync(self) -> float:
        """The headline: the smaller of both shares, so that sounding all the time earns nothing."""
        return min(self.events_heard, self.onsets_seen)

    @property
    def median_offset_ms(self) -> float | None:
        """Middle of the pairs' offsets; positive where the sound is late."""
        return float(np.median(self.offsets)) * 1000.0 if self.offsets else None


def match(events: Array, onsets: Array, seconds: float, fps: float, due: int = 1) -> Match:
    """Pair the events and onsets (s) of one clip, nearest first. ``due``: what a clip without either is charged."""
    events, onsets = np.sort(np.asarray(events, float)), np.sort(np.asarray(onsets, float))
    if len(events) == 0 or len(onsets) == 0:
        return Match(events=max(due, len(events)), onsets=max(due, len(onsets)))
    tolerance = TOLERANCE_FRAMES / fps + SLACK
    distance = np.abs(onsets[None, :] - events[:, None])
    pairs: list[tuple[int, int]] = []
    while True:
        row, column = np.unravel_index(int(distance.argmin()), distance.shape)
        if not distance[row, column] <= tolerance:
            break
        pairs.append((int(row), int(column)))
        distance[row, :] = np.inf
        distance[:, column] = np.inf
    taken = {row for row, _ in pairs}, {column for _, column in pairs}

    def counted(times: Array, used: set[int]) -> int:
        margin = TOLERANCE_FRAMES / fps
        return sum(1 for i, t in enumerate(times) if i in used or margin <= t <= seconds - margin)

    return Match(
        events=counted(events, taken[0]),
        onsets=counted(onsets, taken[1]),
        paired=len(pairs),
        offsets=tuple(float(onsets[column] - events[row]) for row, column in pairs),
    )


def shifted(onsets: Array, seconds: float, fps: float) -> Array:
    """The onsets of a sound that is moved by SHIFT_FRAMES, the end coming back at the start."""
    return np.sort((np.asarray(onsets, float) + SHIFT_FRAMES / fps) % seconds)

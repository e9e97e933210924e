"""What a job will take, said before it starts: from steps that were measured on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from app.spec import JobSpec

# What the step cache saves on the bundled model in 25 steps, by threshold (docs/memory.md), until it was measured here.
SPEEDS = ((0.0, 1.0), (0.1, 1.17), (0.15, 1.44), (0.2, 1.56))
ALWAYS_WHOLE = 3  # steps of a run that it never shortens
SOUND_SHARE = 1.4 / 18  # of a pass: the audio tower's part of the parameters that compute
DEFAULT_POWER = 1.3  # between linear layers and quadratic attention, until two sizes were measured
Measured = Sequence[tuple[JobSpec, dict[str, Any]]]


@dataclass(frozen=True)
class Cost:
    """Attributes:
    seconds: of the whole job on a warm worker; None where nothing was measured with this model yet.
    load_seconds: to add when the model is not loaded.
    memory: peak bytes of the worker (of the graphics card where there is one); None where not measured.
    exact: this very size, with this step cache and these sound steps, was measured; otherwise it is scaled from the
        closest one.
    """

    seconds: float | None
    load_seconds: float | None
    memory: int | None
    exact: bool


def work(spec: JobSpec) -> float:
    """Size of one clip for the network: pixels times frames, in units of a latent voxel."""
    return max(1.0, (spec.width or 0) * (spec.height or 0) * ((spec.frames or 1) / 4) / 256)


def passes(spec: JobSpec) -> int:
    """Network evaluations a step: without guidance one, with text guidance two, with bridge guidance three."""
    if spec.bridge_guidance not in (None, 1.0):
        return 3
    return 1 if spec.guidance == 1.0 else 2


def pace(spec: JobSpec) -> float:
    """Time of a step against one without step cache and sound steps."""
    steps = spec.steps or 1
    shortened = max(0, steps - ALWAYS_WHOLE) / steps / ((25 - ALWAYS_WHOLE) / 25)
    return 1 - shortened * (1 - 1 / _speed(spec.step_cache)) + (spec.sound_steps - 1) * SOUND_SHARE


def _speed(threshold: float) -> float:
    """`SPEEDS` between its points; beyond the last one as there."""
    for (low, slow), (high, fast) in pairwise(SPEEDS):
        if threshold <= high:
            return slow + (fast - slow) * (threshold - low) / (high - low)
    return SPEEDS[-1][1]


def cost(spec: JobSpec, measured: Measured) -> Cost:
    """The cost of a settled spec.

    Args:
        measured: `JobQueue.measured()`: finished jobs, the newest first.
    """
    same = [(other, times) for other, times in measured if other.model == spec.model and "step" in times]
    if not same:
        return Cost(None, None, None, False)
    near, times = min(same, key=lambda pair: _distance(pair[0], spec))
    ratio = work(spec) / work(near)
    power = _power(same)
    step = times["step"] * (passes(spec) / passes(near)) * (pace(spec) / pace(near)) * ratio**power
    rest = sum(times.get(part, 0.0) for part in ("text", "picture")) + ratio * sum(
        times.get(part, 0.0) for part in ("decode", "write")
    )
    loads = [t["load"] for _, t in same if t.get("load", 0) > 0.05]  # a warm worker loads nothing
    memory = times.get("peak_memory")
    return Cost(
        seconds=step * (spec.steps or 1) + rest,
        load_seconds=loads[0] if loads else None,
        memory=None if memory is None else int(memory * max(1.0, ratio)),
        exact=_distance(near, spec) < 1e-9,
    )


def _distance(one: JobSpec, other: JobSpec) -> float:
    """How far a step of one is from a step of the other, in size and in what is left out or added."""
    return abs(math.log(work(one) / work(other))) + abs(math.log(pace(one) / pace(other)))


def _power(same: Measured) -> float:
    """How the time of a pass grows with the size, fitted to the measurements where they span enough of it."""
    points = [(math.log(work(s)), math.log(max(t["step"] / passes(s) / pace(s), 1e-6))) for s, t in same]
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    if high - low < math.log(1.5):
        return DEFAULT_POWER
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return min(max(slope, 0.5), 2.0)

"""What a job will take, said before it starts: from steps that were measured on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.spec import JobSpec

DEFAULT_POWER = 1.3  # between linear layers and quadratic attention, until two sizes were measured
Measured = Sequence[tuple[JobSpec, dict[str, Any]]]


@dataclass(frozen=True)
class Cost:
    """Attributes:
    seconds: of the whole job on a warm worker; None where nothing was measured with this model yet.
    load_seconds: to add when the model is not loaded.
    memory: peak bytes of the worker (of the graphics card where there is one); None where not measured.
    exact: this very size was measured; otherwise it is scaled from the closest one.
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


def cost(spec: JobSpec, measured: Measured) -> Cost:
    """The cost of a settled spec.

    Args:
        measured: `JobQueue.measured()`: finished jobs, the newest first.
    """
    same = [(other, times) for other, times in measured if other.model == spec.model and "step" in times]
    if not same:
        return Cost(None, None, None, False)
    near, times = min(same, key=lambda pair: abs(math.log(work(pair[0]) / work(spec))))
    ratio = work(spec) / work(near)
    power = _power(same)
    step = times["step"] * (passes(spec) / passes(near)) * ratio**power
    rest = sum(times.get(part, 0.0) for part in ("text", "picture")) + ratio * sum(
        times.get(part, 0.0) for part in ("decode", "write")
    )
    loads = [t["load"] for _, t in same if t.get("load", 0) > 0.05]  # a warm worker loads nothing
    memory = times.get("peak_memory")
    return Cost(
        seconds=step * (spec.steps or 1) + rest,
        load_seconds=loads[0] if loads else None,
        memory=None if memory is None else int(memory * max(1.0, ratio)),
        exact=abs(math.log(ratio)) < 1e-9,
    )


def _power(same: Measured) -> float:
    """How the time of a pass grows with the size, fitted to the measurements where they span enough of it."""
    points = [(math.log(work(s)), math.log(max(t["step"] / passes(s), 1e-6))) for s, t in same]
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    if high - low < math.log(1.5):
        return DEFAULT_POWER
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return min(max(slope, 0.5), 2.0)

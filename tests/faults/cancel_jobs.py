"""Cancels jobs at random moments, from waiting to writing.

    python tests/faults/cancel_jobs.py --cancels 50

Each must stop within a step, leave nothing on the disk, and not touch the job after it. Exits with 1 if one does not.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from app.core import Core
from tests.app_parts import MODEL, OWNER, digest, small, stray_files, studio, wait

STEPS = 40


@dataclass
class Toll:
    """What a campaign came to. Seconds are from the cancel to the end of the job."""

    stages: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    in_steps: list[float] = field(default_factory=list)  # the same, counted in steps, where steps were running
    too_late: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        stages = ", ".join(f"{count} {stage}" for stage, count in sorted(self.stages.items()))
        slowest, in_steps = max(self.seconds, default=0.0), max(self.in_steps, default=0.0)
        return (
            f"{len(self.seconds)} cancels ({stages}): slowest {slowest * 1000:.0f} ms, during steps at most "
            f"{in_steps:.1f} steps; {self.too_late} came too late; {len(self.faults)} faults"
        )


def campaign(folder: Path, cancels: int, seed: int, model: Path = MODEL) -> Toll:
    dice, toll = random.Random(seed), Toll()
    with studio(folder, work=True, model=str(model)) as core:
        whole = wait(core, core.submit(small(), OWNER)[0])
        reference = digest(core.library.path(core.library.get(whole.result or "")))
        began = time.monotonic()
        wait(core, core.submit(small("a long one", steps=STEPS), OWNER)[0])
        span = time.monotonic() - began
        for _ in range(cancels):
            _one(core, toll, dice.uniform(0, span), reference)
        toll.faults += [f"left over: {name}" for name in stray_files(folder)]
        alive = core.supervisor.status()
        if alive.deaths:
            toll.faults.append(f"the worker had to be ended {alive.deaths} times")
    return toll


def _one(core: Core, toll: Toll, moment: float, reference: str) -> None:
    before = {p for p in core.paths.root.rglob("*") if p.suffix in (".mp4", ".json", ".safetensors", ".webp")}
    job = core.submit(small("to be cancelled", steps=STEPS), OWNER)[0]
    after = core.submit(small(), OWNER)[0]
    time.sleep(moment)
    stage = core.queue.get(job.id).stage or core.queue.get(job.id).state
    begun = time.monotonic()
    core.queue.cancel(job.id, None)
    ended = wait(core, job)
    took = time.monotonic() - begun
    if ended.state != "cancelled":
        toll.too_late += 1
    else:
        toll.stages[stage] += 1
        toll.seconds.append(took)
        if stage == "denoise":
            toll.in_steps.append(took / max(1e-3, _pace(core)))
        left = {p for p in core.paths.root.rglob(f"*{job.id[:8]}*")} - before
        if left:
            toll.faults.append(f"a cancelled job left {sorted(p.name for p in left)}")
    following = wait(core, after)
    if following.state != "done":
        toll.faults.append(f"the next job is {following.state}: {following.reason}")
    elif digest(core.library.path(core.library.get(following.result or ""))) != reference:
        toll.faults.append("the next job's clip differs")


def _pace(core: Core) -> float:
    """Seconds of a step of the long job, as measured last."""
    for spec, times in core.queue.measured():
        if spec.steps == STEPS:
            return float(times["step"])
    return 0.0


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--cancels", type=int, default=50)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--model", type=Path, default=MODEL)
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="mova-cancels-") as folder:
        toll = campaign(Path(folder), args.cancels, args.seed, args.model)
    print(toll)
    for fault in toll.faults:
        print("FAULT", fault)
    return 1 if toll.faults else 0


if __name__ == "__main__":
    sys.exit(main())

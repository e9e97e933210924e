"""Cancels jobs at random moments, from waiting to writing.

    python tests/faults/cancel_jobs.py --cancels 50
    python tests/faults/cancel_jobs.py --cancels 50 --model assets/models/demo --late

Each must stop within a step, leave nothing on the disk, and not touch the job after it. Exits with 1 if one does not.
Another model than the tests' makes clips of its own size and length. With --late, which wants a quiet machine, a job
that is cancelled while it denoises and ends later than one of its steps, and 50 ms for the messages, is a fault, too:
unless the host of this machine took a processor away meanwhile ("stolen" time), which is counted apart.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.core import Core
from app.jobs import Job
from app.spec import JobSpec
from engine.profile import read_profile, read_rules
from tests.app_parts import MODEL, OWNER, digest, small, stray_files, studio, wait
from tests.faults.verdict import verdict
from tests.stolen import stolen_seconds

STEPS = 40
MESSAGES = 0.05  # seconds: to the worker and back, through the queue on the disk
STOLEN = 0.02  # of the processors' time, from which on a measured time says nothing


@dataclass
class Toll:
    """What a campaign came to. seconds: by stage, from the cancel to the end of the job."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    in_steps: list[float] = field(default_factory=list)  # the same, counted in steps, where steps were running
    too_late: int = 0
    disturbed: int = 0  # took long while the host took processors away
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        stages = ", ".join(
            f"{len(times)} {stage} (at most {1000 * max(times):.0f} ms)"
            for stage, times in sorted(self.seconds.items())
        )
        in_steps = sorted(self.in_steps)
        return (
            f"{sum(map(len, self.seconds.values()))} cancels: {stages}; during steps "
            f"{_middle(in_steps):.2f} steps in the middle and at most {max(in_steps, default=0.0):.2f}; "
            f"{self.disturbed} took longer while the host took processors away; "
            f"{self.too_late} came too late; {len(self.faults)} faults"
        )


def _middle(values: list[float]) -> float:
    return values[len(values) // 2] if values else 0.0


@dataclass(frozen=True)
class Jobs:
    """What is queued: a short job whose clip is known, and a long one to cancel."""

    short: JobSpec
    long: JobSpec

    @classmethod
    def of(cls, model: Path) -> Jobs:
        if model == MODEL:
            return cls(small(), small("to be cancelled", steps=STEPS))
        profile, rules = read_profile(model), read_rules(model)
        width, height = profile.sizes[0]
        whole = small(width=width, height=height, frames=profile.frames, guidance=profile.guidance)
        short = replace(whole, width=rules.multiple, height=rules.multiple, frames=rules.stride + 1)
        return cls(short, replace(whole, prompt="to be cancelled", steps=STEPS))


def campaign(folder: Path, cancels: int, seed: int, model: Path = MODEL, late: bool = False) -> Toll:
    """Cancels that many jobs, each with another behind it; `late`: also judge how long it took."""
    dice, toll, jobs = random.Random(seed), Toll(), Jobs.of(model)
    with studio(folder, work=True, model=str(model)) as core:
        reference = _digest(core, wait(core, core.submit(jobs.short, OWNER)[0]))
        began = time.monotonic()
        wait(core, core.submit(jobs.long, OWNER)[0])
        span = time.monotonic() - began
        for _ in range(cancels):
            _one(core, toll, dice.uniform(0, span), jobs, reference, late)
        toll.faults += [f"left over: {name}" for name in stray_files(folder)]
        alive = core.supervisor.status()
        if alive.deaths:
            toll.faults.append(f"the worker had to be ended {alive.deaths} times")
    return toll


def _digest(core: Core, job: Job) -> str:
    assert job.state == "done", f"the first job is {job.state}: {job.reason}"
    return digest(core.library.path(core.library.get(job.result or "")))


def _one(core: Core, toll: Toll, moment: float, jobs: Jobs, reference: str, late: bool) -> None:
    before = {p for p in core.paths.root.rglob("*") if p.suffix in (".mp4", ".json", ".safetensors", ".webp")}
    job = core.submit(jobs.long, OWNER)[0]
    after = core.submit(jobs.short, OWNER)[0]
    time.sleep(moment)
    stage = core.queue.get(job.id).stage or core.queue.get(job.id).state
    begun, stolen = time.monotonic(), stolen_seconds()
    core.queue.cancel(job.id, None)
    ended = wait(core, job)
    took = time.monotonic() - begun
    quiet = stolen_seconds() - stolen <= STOLEN * took * (os.cpu_count() or 1)
    if ended.state != "cancelled":
        toll.too_late += 1
    else:
        toll.seconds.setdefault(stage, []).append(took)
        if stage == "denoise":
            _judge(toll, took, max(1e-3, _pace(core)), late, quiet)
        left = {p for p in core.paths.root.rglob(f"*{job.id[:8]}*")} - before
        if left:
            toll.faults.append(f"a cancelled job left {sorted(p.name for p in left)}")
    following = wait(core, after)
    if following.state != "done":
        toll.faults.append(f"the next job is {following.state}: {following.reason}")
    elif _digest(core, following) != reference:
        toll.faults.append("the next job's clip differs")


def _judge(toll: Toll, took: float, pace: float, late: bool, quiet: bool) -> None:
    """A cancel in the middle of the steps, of which each takes `pace` seconds."""
    is_late = late and took > pace + MESSAGES
    if is_late and not quiet:
        toll.disturbed += 1
        return
    toll.in_steps.append(took / pace)
    if is_late:
        toll.faults.append(f"a cancel took {took:.3f} s; a step takes {pace:.3f} s")


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
    p.add_argument("--late", action="store_true", help="judge how long it took, too: on a quiet machine")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="mova-cancels-") as folder:
        toll = campaign(Path(folder), args.cancels, args.seed, args.model, args.late)
    return verdict(toll, toll.faults)


if __name__ == "__main__":
    sys.exit(main())

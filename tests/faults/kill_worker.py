"""Kills the studio's worker with SIGKILL at random moments while it works through a queue.

    python tests/faults/kill_worker.py --kills 100 --jobs 100

Afterwards every job must be done or failed with a reason, none started more than three times, every result whole and
the same as one that was never disturbed, and nothing left over on the disk. Exits with 1 if anything of that fails.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from app.core import Core
from tests.app_parts import OWNER, digest, small, stray_files, studio, wait
from tests.faults.verdict import verdict


@dataclass
class Toll:
    """What a campaign came to."""

    kills: int
    jobs: int
    done: int
    failed: int
    reruns: int
    most_starts: int
    faults: list[str]
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.kills} kills over {self.jobs} jobs in {self.seconds:.0f} s: {self.done} done, {self.failed} failed "
            f"with a reason, {self.reruns} runs again, at most {self.most_starts} starts of a job; "
            f"{len(self.faults)} faults"
        )


def campaign(folder: Path, kills: int, jobs: int, seed: int, longest: float) -> Toll:
    """Runs it in `folder`.

    Args:
        longest: seconds a worker may live after it has taken up a job; the moment is drawn evenly from 0 to that.
    """
    dice, began = random.Random(seed), time.monotonic()
    with studio(folder, work=True) as core:
        whole = wait(core, core.submit(small(steps=4), OWNER)[0])
        reference = digest(core.library.path(core.library.get(whole.result or "")))
        asked = [core.submit(small(steps=4), OWNER)[0].id for _ in range(jobs)]
        done = _kill(core, kills, asked, dice, longest)
        ended = [wait(core, job_id, 600) for job_id in asked]
        time.sleep(0.2)
        faults = _faults(core, asked, reference)
    faults += [f"left over: {name}" for name in stray_files(folder)]
    states = [job.state for job in ended]
    starts = [job.attempts for job in ended]
    return Toll(
        kills=done,
        jobs=len(ended),
        done=states.count("done"),
        failed=states.count("failed"),
        reruns=sum(starts) - len(starts),
        most_starts=max(starts),
        faults=faults,
        seconds=time.monotonic() - began,
    )


def _kill(core: Core, kills: int, asked: list[str], dice: random.Random, longest: float) -> int:
    """Kills while jobs run; returns how many kills hit. Submits more jobs when the queue runs dry too early."""
    hits = 0
    while hits < kills:
        if not core.queue.counts()["queued"] and not core.queue.counts()["running"]:
            asked.append(core.submit(small(steps=4), OWNER)[0].id)
        status = core.supervisor.status()
        if status.pid is None or status.job is None:
            time.sleep(0.01)
            continue
        time.sleep(dice.uniform(0, longest))
        try:
            os.kill(status.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        hits += 1
        while core.supervisor.status().pid == status.pid:
            time.sleep(0.01)
    return hits


def _faults(core: Core, asked: list[str], reference: str) -> list[str]:
    found = []
    for job_id in asked:
        job = core.queue.get(job_id)
        if job.state not in ("done", "failed") or (job.state == "failed" and not job.reason):
            found.append(f"{job_id[:8]} is {job.state} ({job.reason!r})")
        if job.attempts > 3:
            found.append(f"{job_id[:8]} was started {job.attempts} times")
        if job.state == "done" and digest(core.library.path(core.library.get(job.result or ""))) != reference:
            found.append(f"{job_id[:8]} differs from the undisturbed clip")
    listed = core.library.count()
    there = len(list(core.paths.results.rglob("*.mp4")))
    done = core.queue.counts()["done"]
    if not listed == there == done:
        found.append(f"{done} jobs done, {listed} clips listed, {there} on the disk")
    return found


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--kills", type=int, default=100)
    p.add_argument("--jobs", type=int, default=100)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--longest", type=float, default=8.0, help="seconds a worker may live at most")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="mova-kills-") as folder:
        toll = campaign(Path(folder), args.kills, args.jobs, args.seed, args.longest)
    return verdict(toll, toll.faults)


if __name__ == "__main__":
    sys.exit(main())

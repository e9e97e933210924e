"""Many short jobs in a row on one studio: memory and open files of both processes must stay flat.

    python tests/faults/long_queue.py --jobs 500 [--model FOLDER]

Prints the slope of each over the second half, per 100 jobs. Exits with 1 where memory of either process grows by a
megabyte or more in 100 jobs, or open files grow at all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from app.core import Core, open_core
from app.options import Options
from tests.app_parts import MODEL, OWNER, small, wait
from tests.faults.verdict import verdict

WINDOW = 10  # jobs between two looks
MOST_MEMORY = 1 << 20  # bytes per 100 jobs
WARM_JOBS = 40  # of which the growth is that of caches being filled


@dataclass
class Course:
    """What was seen after every `WINDOW` jobs. Attributes: jobs; of studio and worker, memory in bytes, open files."""

    jobs: list[int] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)
    files: list[tuple[int, int]] = field(default_factory=list)
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def look(self, jobs: int, worker: int) -> None:
        both = psutil.Process(), psutil.Process(worker)
        self.jobs.append(jobs)
        self.memory.append((_own(both[0]), _own(both[1])))
        self.files.append((both[0].num_fds(), both[1].num_fds()))

    def slope(self, values: list[tuple[int, int]], side: int) -> float:
        """Growth per 100 jobs over the second half, robust against single steps (median of pairs)."""
        half = [(job, value[side]) for job, value in zip(self.jobs, values, strict=True) if job > self.jobs[-1] / 2]
        rises = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(half) for b in half[i + 1 :]]
        return 100 * float(np.median(rises)) if rises else 0.0

    def __str__(self) -> str:
        memory = [self.slope(self.memory, side) / (1 << 20) for side in (0, 1)]
        files = [self.slope(self.files, side) for side in (0, 1)]
        return (
            f"{self.jobs[-1]} jobs in {self.seconds:.0f} s; per 100 jobs: studio {memory[0]:+.3f} MB and "
            f"{files[0]:+.2f} files, worker {memory[1]:+.3f} MB and {files[1]:+.2f} files; at the end "
            f"{self.memory[-1][0] >> 20} and {self.memory[-1][1] >> 20} MB, {self.files[-1]} files; "
            f"{len(self.faults)} faults"
        )


def _own(process: psutil.Process) -> int:
    """Memory that only this process holds, where the system tells."""
    try:
        return int(process.memory_full_info().uss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)


def campaign(core: Core, jobs: int) -> Course:
    """Runs the jobs one after another, as a queue of them."""
    course = Course()
    wait(core, core.submit(small(), OWNER)[0])
    worker = core.supervisor.status().pid
    assert worker is not None
    began = time.monotonic()
    for done in range(WINDOW, jobs + 1, WINDOW):
        for job in [core.submit(small(seed=done + n), OWNER)[0] for n in range(WINDOW)]:
            ended = wait(core, job)
            if ended.state != "done":
                course.faults.append(f"{job.id[:8]} is {ended.state}: {ended.reason}")
        if core.supervisor.status().pid != worker:
            course.faults.append("the worker was started again")
            return course
        course.look(done, worker)
    course.seconds = time.monotonic() - began
    if jobs > 2 * WARM_JOBS:
        for side, name in enumerate(("studio", "worker")):
            if course.slope(course.memory, side) >= MOST_MEMORY:
                course.faults.append(f"memory of the {name} grows")
            if course.slope(course.files, side) > 0.5:
                course.faults.append(f"open files of the {name} grow")
    return course


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--jobs", type=int, default=500)
    p.add_argument("--model", type=Path, default=MODEL)
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="mova-long-") as folder:
        core = open_core(Options(data_dir=Path(folder), model=str(args.model), browser=False))
        try:
            core.start()
            course = campaign(core, args.jobs)
        finally:
            core.close()
    return verdict(course, course.faults)


if __name__ == "__main__":
    sys.exit(main())

"""Fills the disk under a studio, at points from nothing free to more than a clip needs, and makes clips on it.

    python tests/faults/fill_disk.py --points 20

The studio's whole folder, database included, lies on a small disk of its own (a tmpfs: this needs root). At each point
a job waits, the disk is filled but for so many bytes, and the queue goes on. Whatever happens then, nothing partial
may be in the results, the library must agree with its files, and once there is room again the job must end with the
clip that it should have, after a retry where it failed. Exits with 1 on any fault.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.core import Core
from app.jobs import ENDED, Job
from app.library import Clip
from engine.errors import MovaError
from engine.media import read_clip
from tests.app_parts import OWNER, digest, small, stray_files, studio, wait
from tests.faults.verdict import verdict

DISK = "32m"
PATIENCE = 6.0  # seconds that a job is given on the full disk; how it ended may be known only when there is room
CLEAR = ("space", "full", "cannot write", "cannot keep", "cannot be used")


class NoDisk(Exception):
    """This machine lets us mount nothing; the message says why."""


@dataclass
class Toll:
    """What a campaign came to: how the jobs ended on the full disk, what the library could do there, faults."""

    ended: Counter[str] = field(default_factory=Counter)
    deeds: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ended = ", ".join(f"{count} {state}" for state, count in sorted(self.ended.items()))
        deeds = ", ".join(f"{count} {deed}" for deed, count in sorted(self.deeds.items()))
        return f"{sum(self.ended.values())} jobs on a full disk ({ended}); library: {deeds}; {len(self.faults)} faults"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of `DISK` bytes.

    Raises:
        NoDisk: it cannot be mounted.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise NoDisk("mounting a small disk needs root")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NoDisk(f"no right to mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, free: int) -> None:
    """Leaves so many bytes free, to a page."""
    block, filler = 4096, disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(block))
    os.truncate(filler, max(0, filler.stat().st_size - free // block * block))


def campaign(folder: Path, points: int) -> Toll:
    """Raises:
    NoDisk: no small disk can be had.
    """
    toll = Toll()
    with small_disk(folder / "disk") as disk, studio(disk / "data", work=True) as core:
        spec = small(seed=5, frames=9)
        first = wait(core, core.submit(spec, OWNER)[0])
        assert first.state == "done", first.reason
        reference = digest(core.library.path(core.library.get(first.result or "")))
        before = _used(disk)
        wait(core, core.submit(spec, OWNER)[0])
        needs = _used(disk) - before
        for point in range(points):
            free = round(1.5 * needs * point / max(1, points - 1))
            _one_point(core, toll, disk, free, reference)
        toll.faults += [f"left over: {name}" for name in stray_files(disk / "data")]
    return toll


def _used(disk: Path) -> int:
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _one_point(core: Core, toll: Toll, disk: Path, free: int, reference: str) -> None:
    keep = core.library.find(limit=1)[0]
    count = core.library.count()
    core.queue.hold()
    job = core.submit(small(seed=5, frames=9), OWNER)[0]
    fill(disk, free)
    with contextlib.suppress(MovaError):  # no room even for that: it is said, and done again below
        core.queue.hold(False)
    now = _watched(core, job)
    toll.ended[now.state] += 1
    where = f"with {free} bytes free"
    _whole_results(core, toll, where)
    _library_deeds(core, toll, keep, where)
    (disk / "filler").unlink()
    core.queue.hold(False)
    now = wait(core, job, 60)
    if now.state == "failed":
        if not any(word in now.reason for word in CLEAR):
            toll.faults.append(f"{where}: the job fails with {now.reason!r}")
        core.queue.retry(job.id, None)
        now = wait(core, job, 60)
    if now.state != "done":
        toll.faults.append(f"{where}, and room again: the job is {now.state}: {now.reason}")
        return
    clip = core.library.get(now.result or "")
    if digest(core.library.path(clip)) != reference:
        toll.faults.append(f"{where}: the clip differs")
    if core.library.count() != count + 1:
        toll.faults.append(f"{where}: {core.library.count()} clips instead of {count + 1}")
    core.library.delete(clip.id, None)
    core.library.purge(0)


def _watched(core: Core, job: Job) -> Job:
    """The job when it has ended, or when it had its time."""
    end = time.monotonic() + PATIENCE
    while (now := core.queue.get(job.id)).state not in ENDED and time.monotonic() < end:
        time.sleep(0.05)
    return now


def _whole_results(core: Core, toll: Toll, where: str) -> None:
    """Every mp4 among the results can be read to its end."""
    for path in core.paths.results.rglob("*.mp4"):
        try:
            if len(read_clip(path).frames) != 9:
                toll.faults.append(f"{where}: {path.name} is not whole")
        except MovaError as error:
            toll.faults.append(f"{where}: {path.name} cannot be read: {error}")


def _library_deeds(core: Core, toll: Toll, clip: Clip, where: str) -> None:
    """What people do when a disk is full; list and files must agree after each, whether it went well or not."""
    deeds = {
        "favourite": lambda: core.library.favourite(clip.id, None, not clip.favourite),
        "delete": lambda: core.library.delete(clip.id, None),
        "bring back": lambda: core.library.undo_delete(clip.id, None),
    }
    for name, deed in deeds.items():
        try:
            deed()
            toll.deeds[f"{name} done"] += 1
        except MovaError as error:
            toll.deeds[f"{name} refused"] += 1
            if not any(word in str(error) for word in (*CLEAR, "not deleted")):
                toll.faults.append(f"{where}: {name} says {error}")
        found = next(one for one in (*core.library.find(), *_deleted(core, clip)) if one.id == clip.id)
        for suffix in (".mp4", ".json"):
            if not core.library.path(found).with_suffix(suffix).is_file():
                toll.faults.append(f"{where}: after {name} the clip's {suffix} is not where the library says")
    for found in _deleted(core, clip):  # deleted, and could not be brought back: that needs room
        (core.paths.root.parent / "filler").unlink()
        core.library.undo_delete(found.id, None)
        (core.paths.root.parent / "filler").touch()


def _deleted(core: Core, clip: Clip) -> list[Clip]:
    found = core.library._find(clip.id, None)
    return [found] if found.deleted is not None else []


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--points", type=int, default=20)
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="mova-full-") as folder:
        try:
            toll = campaign(Path(folder), args.points)
        except NoDisk as error:
            print(f"skipped: {error}")
            return 0
    return verdict(toll, toll.faults)


if __name__ == "__main__":
    sys.exit(main())

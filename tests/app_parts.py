"""A studio without a page for tests: its parts on a folder of their own, with the tiny model of tests/data."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.core import Core, open_core
from app.guard import Visitor
from app.jobs import ENDED, Job
from app.library import Clip
from app.options import Options
from app.spec import JobSpec
from engine.media import read_clip

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "tests" / "data" / "mova-tiny" / "checkpoint"
OWNER = Visitor()
GUEST = Visitor("guest-" + "a" * 32, "guest")
OTHER = Visitor("guest-" + "b" * 32, "guest")


def options(folder: Path, **changes: Any) -> Options:
    return Options(**{"data_dir": folder, "model": str(MODEL), "browser": False, **changes})


@contextmanager
def studio(folder: Path, *, work: bool = False, **changes: Any) -> Iterator[Core]:
    """An open studio; with `work`, its worker runs."""
    core = open_core(options(folder, **changes))
    try:
        if work:
            core.start()
        yield core
    finally:
        core.close()


def shared(folder: Path, **changes: Any) -> AbstractContextManager[Core]:
    """An open studio that the network may reach; no socket is opened."""
    return studio(folder / "shared", listen="0.0.0.0", **changes)  # noqa: S104


def png(size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture file of noise."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def small(prompt: str = "a bell rings", **changes: Any) -> JobSpec:
    """The shortest clip that the tiny model makes."""
    values = {"width": 32, "height": 32, "frames": 5, "steps": 2, "seed": 1, "guidance": 1.0} | changes
    return JobSpec(prompt, **values)


def wait(core: Core, job: Job | str, seconds: float = 600.0, states: tuple[str, ...] = ENDED) -> Job:
    """The job when it has come to one of these states."""
    job_id = job if isinstance(job, str) else job.id
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = core.queue.get(job_id)
        if now.state in states:
            return now
        core.queue.wait(core.queue.revision, 0.05)
    raise AssertionError(f"job is still {core.queue.get(job_id)} after {seconds:g} s\n{core.log_tail(40)}")


def result(core: Core, job: Job) -> Clip:
    """The clip of a job that is done."""
    assert job.state == "done", job.reason
    return core.library.get(job.result or "")


def made(core: Core, **changes: Any) -> Clip:
    """A clip from a job of its own."""
    return result(core, wait(core, core.submit(small(**changes), OWNER)[0]))


def frames(core: Core, clip: Clip) -> np.ndarray:
    """A clip's pictures, (F, H, W, 3) int16, so that they can be subtracted."""
    return read_clip(core.library.path(clip)).frames.astype(np.int16)


def digest(path: Path) -> str:
    """Of the decoded frames and samples of a clip."""
    clip = read_clip(path)
    return hashlib.sha256(clip.frames.tobytes() + clip.samples.tobytes()).hexdigest()


def stray_files(folder: Path) -> list[str]:
    """What should not be in a data folder when nothing runs: part files, work in progress, lone sidecars."""
    stray = [p for p in folder.rglob("*") if p.name.endswith(".part") or p.parent.name == "work"]
    stray += [p for p in (folder / "results").rglob("*.json") if not p.with_suffix(".mp4").exists()]
    clips = {
        json.loads(p.read_text())["studio"]["id"]
        for p in folder.rglob("*.json")
        if "previews" not in p.parts and p.parent != folder
    }
    stray += [p for p in (folder / "previews").iterdir() if p.name not in clips]
    stray += [p for p in (folder / "results").rglob("*.mp4") if not p.with_suffix(".json").exists()]
    return sorted(str(p.relative_to(folder)) for p in stray)


def environment() -> dict[str, str]:
    return dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")


def python(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """A Python of this environment with the project on its path."""
    return subprocess.Popen([sys.executable, *arguments], env=environment(), cwd=ROOT, **options)

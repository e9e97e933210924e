"""Keeps one worker process at work: starts it, feeds it jobs, hears its progress, ends it when it idles or hangs.

All torch lives in the worker (`app/worker.py`). They talk in lines of JSON over the worker's stdin and stdout. When
this process dies, the worker's stdin ends and it leaves by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.jobs import JobQueue
    from app.library import Library
    from app.paths import StudioPaths
    from app.settings import SettingsFile


@dataclass(frozen=True)
class Preview:
    """How the running clip looks and sounds so far.

    Attributes:
        picture: bytes of a small WebP, a guess from the latents. envelope: loudness over time, 0 to 1, 96 values.
        step: after which it was made.
    """

    picture: bytes
    envelope: tuple[float, ...]
    step: int


@dataclass(frozen=True)
class WorkerStatus:
    """Attributes:
    state: "off" (no process), "starting", "idle" or "busy".
    pid: of the process. model: the one that is loaded, "" for none. job: the one it runs.
    device: such as "cuda" or "cpu", "" while unknown. memory: bytes that it uses. deaths: since the start.
    """

    state: str
    pid: int | None = None
    model: str = ""
    job: str | None = None
    device: str = ""
    memory: int = 0
    deaths: int = 0


class Supervisor:
    """Runs jobs from the queue until it is stopped. Safe to use from any thread."""

    def __init__(self, queue: JobQueue, library: Library, paths: StudioPaths, settings: SettingsFile) -> None:
        """Starts nothing yet."""
        raise NotImplementedError

    def start(self, warm: bool = True) -> None:
        """Begins to run jobs. `warm` starts the worker at once, so that its libraries are loaded when a job comes."""
        raise NotImplementedError

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the worker. A running job goes back to the queue and runs again after the next start."""
        raise NotImplementedError

    def status(self) -> WorkerStatus:
        raise NotImplementedError

    def preview(self, job_id: str) -> Preview | None:
        """The latest preview of the running job; None for others. The caller checks whose job it is."""
        raise NotImplementedError

    def free(self) -> None:
        """Ends the worker if it is idle: all of its memory is free. The next job starts another."""
        raise NotImplementedError

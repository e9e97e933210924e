"""One job: its states, its record, what it is doing right now."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from app.spec import JobSpec

State = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
WAITING: tuple[State, ...] = ("queued", "paused")
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Progress:
    """What a running job is doing.

    Attributes:
        stage: "loading", "text", "picture", "denoise", "decode", "write" or "stopping".
        step, steps: done and in all; 0 of 0 outside "denoise".
        eta: seconds until the clip is there, from steps measured on this machine; None while unknown.
        since: time.time() when the stage began.
    """

    stage: str
    step: int = 0
    steps: int = 0
    eta: float | None = None
    since: float = field(default_factory=time.time)

    @property
    def share(self) -> float:
        """How much of the whole is done, 0 to 1: the steps are taken as 90 % of the work."""
        before = {"loading": 0.0, "text": 0.02, "picture": 0.03, "decode": 0.95, "write": 0.98}
        if self.stage == "denoise" or (self.stage == "stopping" and self.steps):
            return 0.05 + 0.9 * self.step / max(1, self.steps)
        return before.get(self.stage, 0.0)


@dataclass(frozen=True)
class Job:
    """One job as it is now.

    Attributes:
        id: 32 hex digits. owner: who asked. result: the clip's id once done (a clip may since be deleted).
        state: one of `STATES`; reason: why it failed, was cancelled or runs again, in one sentence, else "".
        progress: of a running job. cancelling: it will stop within a step.
        attempts: how often it was started. position: 1 is the next to run; 0 when not waiting.
        measured: seconds of each part ("load", "step", "decode", "write"), "peak_memory" in bytes, "device".
        created, started, finished: seconds since the epoch.
    """

    id: str
    spec: JobSpec
    state: State
    reason: str
    owner: str
    attempts: int
    cancelling: bool
    result: str | None
    measured: dict[str, Any]
    created: float
    started: float | None
    finished: float | None
    progress: Progress | None = None
    position: int = 0

    @property
    def stage(self) -> str:
        return self.progress.stage if self.progress else ""

    @property
    def step(self) -> int:
        return self.progress.step if self.progress else 0

    @property
    def steps(self) -> int:
        return self.progress.steps if self.progress else (self.spec.steps or 0)

    @property
    def eta(self) -> float | None:
        return self.progress.eta if self.progress else None

    @classmethod
    def of_row(cls, row: sqlite3.Row, progress: Progress | None = None, position: int = 0) -> Job:
        """From a row of the table; `progress` counts only while it runs."""
        if row["state"] != "running":
            progress = None
        elif progress is not None and row["cancelling"]:
            progress = replace(progress, stage="stopping", eta=None)
        return cls(
            id=row["id"],
            spec=JobSpec.from_json(row["spec"]),
            state=row["state"],
            reason=row["reason"],
            owner=row["owner"],
            attempts=row["attempts"],
            cancelling=bool(row["cancelling"]),
            result=row["result"],
            measured=json.loads(row["measured"]) if row["measured"] else {},
            created=row["created"],
            started=row["started"],
            finished=row["finished"],
            progress=progress,
            position=position,
        )

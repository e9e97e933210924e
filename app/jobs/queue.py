"""What changes the queue: what visitors ask for, and what the supervisor does with it."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from app.errors import NotFound, QuotaReached, WrongState
from app.jobs.job import ENDED, WAITING, Job, Progress, State
from app.jobs.listing import JobListing, owned
from app.paths import is_id
from app.spec import MAX_VARIATIONS, SEED_CHOICES, JobSpec, draw_seed
from app.store import Store
from engine.errors import RequestError

MAX_ATTEMPTS = 3  # the first run and two more
MAX_RESTARTS = 25  # a job that was running each time the whole studio went down is not started for ever
Move = Literal["first", "up", "down", "last"]


class JobQueue(JobListing):
    """The queue of one studio. Safe to use from any thread.

    Attributes:
        revision: rises with every change, of progress too; a page that saw this number has nothing to redraw.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._changed = threading.Condition()
        self.revision = 0

    # ---- what visitors ask for

    def submit(self, spec: JobSpec, owner: str, quota: int | None = None) -> Job:
        """Puts a settled spec at the end of the queue; it is on the disk when this returns.

        Args:
            spec: made by `JobSpec.settled`.
            quota: how many unfinished jobs this owner may have; None is no limit.

        Raises:
            QuotaReached: the owner has that many.
        """
        return self._submit_all([spec], owner, quota)[0]

    def variations(self, spec: JobSpec, count: int, owner: str, quota: int | None = None) -> list[Job]:
        """Submits `count` jobs that differ only in their seed; the first keeps the spec's. All or none are queued."""
        if not 1 <= count <= MAX_VARIATIONS:
            nearest = min(max(count, 1), MAX_VARIATIONS)
            raise RequestError(f"{count} variations are out of range; the nearest valid value is {nearest}")
        first = draw_seed() if spec.seed is None else spec.seed
        seeds = [first]
        while len(seeds) < count:
            seeds.append((seeds[-1] + 1) % SEED_CHOICES if seeds[-1] < SEED_CHOICES else seeds[-1] - 1)
        group = secrets.token_hex(8)
        return self._submit_all([replace(spec, seed=seed, group=group) for seed in seeds], owner, quota)

    def duplicate(self, job_id: str, owner: str | None, *, seed: int | None = None, quota: int | None = None) -> Job:
        """Queues the same job again, in any state; with another seed if given.

        The copy belongs to `owner`, or to the original's owner where None.
        """
        job = self.get(job_id, owner)
        spec = job.spec if seed is None else job.spec.variation(seed)
        return self.submit(replace(spec, group=""), job.owner if owner is None else owner, quota)

    def edit(self, job_id: str, spec: JobSpec, owner: str | None) -> Job:
        """Gives a job that waits another spec; it keeps its place.

        Raises:
            WrongState: it runs or has ended.
        """
        with self._store.writing() as connection:
            self._row_in(WAITING, connection, job_id, owner, " and cannot be changed; duplicate it instead")
            connection.execute("UPDATE jobs SET spec = ? WHERE id = ?", (spec.to_json(), job_id))
        self.touch()
        return self.get(job_id)

    def cancel(self, job_id: str, owner: str | None) -> Job:
        """Takes a waiting job out of the queue, or asks a running one to stop within a step.

        A job that has ended stays as it is.
        """
        with self._store.writing() as connection:
            row = self._row(connection, job_id, owner)
            if row["state"] in WAITING:
                connection.execute(
                    "UPDATE jobs SET state = 'cancelled', reason = 'cancelled', finished = ? WHERE id = ?",
                    (time.time(), job_id),
                )
            elif row["state"] == "running":
                connection.execute("UPDATE jobs SET cancelling = 1 WHERE id = ?", (job_id,))
        self.touch()
        return self.get(job_id)

    def cancel_waiting(self, owner: str | None) -> int:
        """Cancels all waiting jobs (of one owner); returns how many."""
        with self._store.writing() as connection:
            where, values = owned(owner)
            done = connection.execute(
                f"UPDATE jobs SET state = 'cancelled', reason = 'cancelled', finished = ?"  # noqa: S608 - constants
                f" WHERE state IN ('queued', 'paused'){where}",
                (time.time(), *values),
            ).rowcount
        self.touch()
        return done

    def pause(self, job_id: str, owner: str | None) -> Job:
        """Holds back a queued job; it keeps its place.

        Raises:
            WrongState: it is not waiting.
        """
        return self._switch(job_id, owner, "queued", "paused")

    def go_on(self, job_id: str, owner: str | None) -> Job:
        """Lets a paused job take part again.

        Raises:
            WrongState: it is not paused.
        """
        return self._switch(job_id, owner, "paused", "queued")

    def move(self, job_id: str, where: Move, owner: str | None) -> Job:
        """Moves a waiting job among the waiting jobs of everyone: "first", "up", "down" or "last".

        Raises:
            WrongState: it is not waiting.
        """
        with self._store.writing() as connection:
            row = self._row_in(WAITING, connection, job_id, owner, "; only waiting jobs can be moved")
            _moved(connection, job_id, float(row["rank"]), where)
        self.touch()
        return self.get(job_id)

    def retry(self, job_id: str, owner: str | None, quota: int | None = None) -> Job:
        """Queues a failed or cancelled job again, at the end, with the same seed.

        What failed after its last step is decoded and written from the saved latents, without the steps.

        Raises:
            WrongState: it has not failed. QuotaReached: see `submit`.
        """
        with self._store.writing() as connection:
            advice = "; only failed and cancelled jobs can be tried again"
            row = self._row_in(("failed", "cancelled"), connection, job_id, owner, advice)
            _check_quota(connection, row["owner"], 1, quota)
            connection.execute(
                "UPDATE jobs SET state = 'queued', reason = '', attempts = 0, restarts = 0, cancelling = 0,"
                " started = NULL, finished = NULL, rank = (SELECT max(rank) + 1 FROM jobs) WHERE id = ?",
                (job_id,),
            )
        self.touch()
        return self.get(job_id)

    def forget(self, job_id: str, owner: str | None) -> None:
        """Removes an ended job from the list; its clip stays.

        Raises:
            WrongState: it has not ended.
        """
        with self._store.writing() as connection:
            self._row_in(ENDED, connection, job_id, owner, "; cancel it first")
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        self.touch()

    # ---- holding the whole queue

    @property
    def held(self) -> bool:
        """Whether no new job is started. Survives a restart."""
        row = self._store.row("SELECT value FROM facts WHERE name = 'held'")
        return row is not None and row[0] == "1"

    def hold(self, held: bool = True) -> None:
        """Stops or resumes starting jobs; the running one is finished."""
        with self._store.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES ('held', ?)", ("1" if held else "0",))
        self.touch()

    def wait(self, revision: int, timeout: float) -> int:
        """Sleeps until something changed since `revision`, or `timeout` seconds; returns the present revision."""
        with self._changed:
            self._changed.wait_for(lambda: self.revision != revision, timeout)
            return self.revision

    # ---- what the supervisor does

    def claim(self) -> Job | None:
        """Starts the next queued job and counts the attempt; None when nothing waits or the queue is held."""
        if self.held:
            return None
        with self._store.writing() as connection:
            row = connection.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY rank LIMIT 1").fetchone()
            if row is None:
                return None
            connection.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, started = ?, cancelling = 0 WHERE id = ?",
                (time.time(), row["id"]),
            )
        self.report(row["id"], Progress("loading"))
        return self.get(row["id"])

    def report(self, job_id: str, progress: Progress) -> None:
        """Live progress of the running job; in memory only."""
        self._progress[job_id] = progress
        self.touch()

    def revise(self, job_id: str, spec: JobSpec) -> None:
        """The running job's prompt was written by the enhancer; when it runs again it takes this one."""
        with self._store.writing() as connection:
            connection.execute("UPDATE jobs SET spec = ? WHERE id = ? AND state = 'running'", (spec.to_json(), job_id))
        self.touch()

    def touch(self) -> None:
        """Says that something changed which is not in the queue itself, such as a preview."""
        with self._changed:
            self.revision += 1
            self._changed.notify_all()

    def finish(self, job_id: str, result: str, measured: dict[str, Any]) -> None:
        """The clip `result` is published: the job is done."""
        self._end(job_id, "done", "", result, measured)

    def fail(self, job_id: str, reason: str) -> None:
        """The job ended without a clip; `reason` tells the user why, and what would help."""
        self._end(job_id, "failed", reason)

    def cancelled(self, job_id: str, reason: str = "cancelled") -> None:
        """The running job has stopped on request."""
        self._end(job_id, "cancelled", reason)

    def worker_died(self, job_id: str, how: str) -> Job:
        """The worker died while it ran this job: the job goes back to its place, at most twice; then it fails."""
        with self._store.writing() as connection:
            row = self._row(connection, job_id, None)
            if row["cancelling"]:
                self._set_end(connection, job_id, "cancelled", "cancelled")
            elif row["attempts"] >= MAX_ATTEMPTS:
                self._set_end(
                    connection,
                    job_id,
                    "failed",
                    f"the worker process ended {row['attempts']} times while making this clip ({how}); "
                    "make it shorter or smaller, or see the log",
                )
            else:
                connection.execute(
                    "UPDATE jobs SET state = 'queued', reason = ? WHERE id = ?",
                    (f"the worker process ended ({how}); runs again with the same seed", job_id),
                )
        self._progress.pop(job_id, None)
        self.touch()
        return self.get(job_id)

    def recover(self, published: dict[str, str]) -> int:
        """After a start: what was running when the studio went down. Returns how many jobs run again.

        Going down with the whole studio is not the job's fault, so the attempt is not counted.

        Args:
            published: job id -> clip id of results that are on the disk; such a job is done.
        """
        again = 0
        with self._store.writing() as connection:
            for row in connection.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall():
                if row["id"] in published:
                    self._set_end(connection, row["id"], "done", "", published[row["id"]])
                elif row["cancelling"]:
                    self._set_end(connection, row["id"], "cancelled", "cancelled")
                elif row["restarts"] >= MAX_RESTARTS:
                    reason = f"the studio went down {row['restarts'] + 1} times while this clip was made; see the log"
                    self._set_end(connection, row["id"], "failed", reason)
                else:
                    connection.execute(
                        "UPDATE jobs SET state = 'queued', restarts = restarts + 1, attempts = max(0, attempts - 1),"
                        " reason = 'the studio was closed; runs again with the same seed' WHERE id = ?",
                        (row["id"],),
                    )
                    again += 1
        self.touch()
        return again

    # ---- inside

    def _submit_all(self, specs: Sequence[JobSpec], owner: str, quota: int | None) -> list[Job]:
        ids = [secrets.token_hex(16) for _ in specs]
        now = time.time()
        with self._store.writing() as connection:
            _check_quota(connection, owner, len(specs), quota)
            last = connection.execute("SELECT max(rank) FROM jobs").fetchone()[0] or 0.0
            connection.executemany(
                "INSERT INTO jobs (id, spec, state, owner, rank, created) VALUES (?, ?, 'queued', ?, ?, ?)",
                [
                    (job_id, spec.to_json(), owner, last + number, now)
                    for number, (job_id, spec) in enumerate(zip(ids, specs, strict=True), 1)
                ],
            )
        self.touch()
        return [self.get(job_id) for job_id in ids]

    def _switch(self, job_id: str, owner: str | None, before: State, after: State) -> Job:
        with self._store.writing() as connection:
            self._row_in((before,), connection, job_id, owner, f", not {before}")
            connection.execute("UPDATE jobs SET state = ? WHERE id = ?", (after, job_id))
        self.touch()
        return self.get(job_id)

    def _end(
        self, job_id: str, state: State, reason: str, result: str | None = None, measured: dict[str, Any] | None = None
    ) -> None:
        with self._store.writing() as connection:
            self._set_end(connection, job_id, state, reason, result, measured)
        self._progress.pop(job_id, None)
        self.touch()

    @staticmethod
    def _set_end(
        connection: sqlite3.Connection,
        job_id: str,
        state: State,
        reason: str,
        result: str | None = None,
        measured: dict[str, Any] | None = None,
    ) -> None:
        connection.execute(
            "UPDATE jobs SET state = ?, reason = ?, result = ?, measured = ?, finished = ?, cancelling = 0"
            " WHERE id = ? AND state = 'running'",
            (state, reason, result, json.dumps(measured) if measured else None, time.time(), job_id),
        )

    @staticmethod
    def _row(connection: sqlite3.Connection, job_id: str, owner: str | None) -> sqlite3.Row:
        where, values = owned(owner)
        row: sqlite3.Row | None = None
        if is_id(job_id):
            row = connection.execute(f"SELECT * FROM jobs WHERE id = ?{where}", (job_id, *values)).fetchone()  # noqa: S608
        if row is None:
            raise NotFound("no such job")
        return row

    def _row_in(
        self, states: tuple[State, ...], connection: sqlite3.Connection, job_id: str, owner: str | None, advice: str
    ) -> sqlite3.Row:
        """A job's row, where it is in one of these states.

        Raises:
            NotFound: as `_row`. WrongState: it is in another; `advice` ends that sentence.
        """
        row = self._row(connection, job_id, owner)
        if row["state"] not in states:
            raise WrongState(f"the job is {row['state']}{advice}")
        return row


def _check_quota(connection: sqlite3.Connection, owner: str, more: int, quota: int | None) -> None:
    if quota is None:
        return
    unfinished = connection.execute(
        "SELECT count(*) FROM jobs WHERE owner = ? AND state IN ('queued', 'running', 'paused')", (owner,)
    ).fetchone()[0]
    if unfinished + more > quota:
        raise QuotaReached(f"{unfinished} of your jobs are unfinished; guests may have {quota} at a time")


def _moved(connection: sqlite3.Connection, job_id: str, rank: float, where: Move) -> None:
    """Changes places among all waiting jobs: with the neighbour, or to either end."""
    waiting = "SELECT id, rank FROM jobs WHERE state IN ('queued', 'paused') AND"
    if where in ("first", "last"):
        order, step = ("ASC", -1) if where == "first" else ("DESC", 1)
        end = connection.execute(f"{waiting} 1 ORDER BY rank {order} LIMIT 1").fetchone()
        if end["id"] != job_id:
            connection.execute("UPDATE jobs SET rank = ? WHERE id = ?", (end["rank"] + step, job_id))
    elif where in ("up", "down"):
        sign, order = ("<", "DESC") if where == "up" else (">", "ASC")
        near = connection.execute(f"{waiting} rank {sign} ? ORDER BY rank {order} LIMIT 1", (rank,)).fetchone()
        if near is not None:
            connection.execute("UPDATE jobs SET rank = ? WHERE id = ?", (near["rank"], job_id))
            connection.execute("UPDATE jobs SET rank = ? WHERE id = ?", (rank, near["id"]))
    else:
        raise RequestError(f"cannot move a job {where!r}; use first, up, down or last")

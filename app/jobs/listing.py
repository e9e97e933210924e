"""What is in the queue, as each owner may see it: one job, windows of jobs in their order, counts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from app.errors import NotFound
from app.jobs.job import ENDED, STATES, WAITING, Job, Progress
from app.paths import is_id
from app.spec import JobSpec
from app.store import Store

# The order in which jobs matter, and that of the jobs within each group.
ORDERS = ((("running",), "started"), (WAITING, "rank"), (ENDED, "finished DESC"))


class JobListing:
    """The queue as it can be read; `JobQueue` adds what changes it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._progress: dict[str, Progress] = {}

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """One job, with its progress and position.

        Raises:
            NotFound: there is none, or it is another's.
        """
        where, values = owned(owner)
        row = self._store.row(f"SELECT * FROM jobs WHERE id = ?{where}", (job_id, *values)) if is_id(job_id) else None  # noqa: S608
        if row is None:
            raise NotFound("no such job")
        return self._job(row, 1 + self._ahead_of(row) if row["state"] == "queued" else 0)

    def find(
        self,
        owner: str | None = None,
        states: Iterable[str] = STATES,
        limit: int = 50,
        offset: int = 0,
    ) -> list[Job]:
        """Jobs in the order they matter: running, then waiting by their turn, then ended, the newest first.

        Args:
            owner: only this one's; None is everyone's.
            states: only these.
            limit, offset: a window; 10,000 waiting jobs need not be drawn.
        """
        wanted = set(states)
        found: list[Job] = []
        for group, order in ORDERS:
            chosen = [state for state in group if state in wanted]
            if not chosen or len(found) >= limit:
                continue
            where, values = owned(owner)
            condition = f"state IN ({', '.join('?' * len(chosen))}){where}"
            if offset:
                row = self._store.row(f"SELECT count(*) FROM jobs WHERE {condition}", (*chosen, *values))  # noqa: S608
                count = int(row[0]) if row else 0
                if count <= offset:
                    offset -= count
                    continue
            rows = self._store.rows(
                f"SELECT * FROM jobs WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?",  # noqa: S608
                (*chosen, *values, limit - len(found), offset),
            )
            found += self._in_line(rows, owner) if group == WAITING else [self._job(row) for row in rows]
            offset = 0
        return found

    def by_time(self, owner: str | None, after: str | None, limit: int, newest_first: bool = True) -> list[Job]:
        """Jobs in the order they were submitted.

        Args:
            after: id of a job; those that follow it in this order.

        Raises:
            NotFound: there is no such job to go on from.
        """
        where, values = owned(owner)
        sign, order = ("<", "DESC") if newest_first else (">", "ASC")
        condition, more = f"1{where}", list[Any](values)
        if after is not None:
            mark = self._store.row(f"SELECT rowid FROM jobs WHERE id = ?{where}", (after, *values))  # noqa: S608
            if mark is None:
                raise NotFound("no such job")
            condition, more = f"{condition} AND rowid {sign} ?", [*more, mark[0]]
        rows = self._store.rows(
            f"SELECT * FROM jobs WHERE {condition} ORDER BY rowid {order} LIMIT ?",  # noqa: S608
            (*more, limit),
        )
        return self._with_turns(rows)

    def counts(self, owner: str | None = None) -> dict[str, int]:
        """How many jobs are in each state."""
        where, values = owned(owner)
        rows = self._store.rows(f"SELECT state, count(*) FROM jobs WHERE 1{where} GROUP BY state", values)  # noqa: S608
        return {state: 0 for state in STATES} | {row[0]: row[1] for row in rows}

    def progress(self, job_id: str) -> Progress | None:
        """The live progress of a job, if it runs."""
        return self._progress.get(job_id)

    def measured(self, limit: int = 50) -> list[tuple[JobSpec, dict[str, Any]]]:
        """Specs and measured times of the last finished jobs, the newest first."""
        rows = self._store.rows(
            "SELECT spec, measured FROM jobs WHERE state = 'done' AND finished IS NOT NULL AND measured IS NOT NULL"
            " ORDER BY finished DESC LIMIT ?",
            (limit,),
        )
        return [(JobSpec.from_json(row["spec"]), json.loads(row["measured"])) for row in rows]

    def _job(self, row: sqlite3.Row, position: int = 0) -> Job:
        return Job.of_row(row, self._progress.get(row["id"]), position)

    def _ahead_of(self, row: sqlite3.Row) -> int:
        """How many queued jobs, of everyone, come before this one."""
        count = self._store.row("SELECT count(*) FROM jobs WHERE state = 'queued' AND rank < ?", (row["rank"],))
        return int(count[0]) if count else 0

    def _in_line(self, rows: Sequence[sqlite3.Row], owner: str | None) -> list[Job]:
        """Waiting jobs with their turn among everyone's: counted along where no job of the stretch is left out."""
        if owner is not None or not rows:
            return self._with_turns(rows)
        ahead = self._ahead_of(rows[0])
        jobs = []
        for row in rows:
            ahead += row["state"] == "queued"
            jobs.append(self._job(row, ahead if row["state"] == "queued" else 0))
        return jobs

    def _with_turns(self, rows: Sequence[sqlite3.Row]) -> list[Job]:
        """Jobs, those that are queued with their turn among everyone's: one walk along the queue for all."""
        ids = [row["id"] for row in rows if row["state"] == "queued"]
        turns: dict[str, int] = {}
        if ids:
            marks = ", ".join("?" * len(ids))
            line = "SELECT id, row_number() OVER (ORDER BY rank) AS turn FROM jobs WHERE state = 'queued'"
            found = self._store.rows(f"WITH line AS ({line}) SELECT id, turn FROM line WHERE id IN ({marks})", ids)  # noqa: S608
            turns = {row["id"]: row["turn"] for row in found}
        return [self._job(row, turns.get(row["id"], 0)) for row in rows]


def owned(owner: str | None) -> tuple[str, tuple[str, ...]]:
    """The condition that hides what is another's, and its values; for the studio itself (None) there is none."""
    return ("", ()) if owner is None else (" AND owner = ?", (owner,))

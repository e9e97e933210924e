"""The one SQLite file: opened durably, brought up to date by numbered migrations. Only `jobs` and `library` query it.

WAL with synchronous=FULL: what was acknowledged survives a power cut. One connection with a lock serves all threads
of the process, so that handles stay flat; the folder's lock keeps other processes out.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from app.errors import StudioError

log = logging.getLogger(__name__)

# Migration n brings a file of version n to n + 1. Never edit one that was released; add another.
MIGRATIONS = (
    """
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY, spec TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
        owner TEXT NOT NULL, rank REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
        restarts INTEGER NOT NULL DEFAULT 0, cancelling INTEGER NOT NULL DEFAULT 0, result TEXT,
        measured TEXT, created REAL NOT NULL, started REAL, finished REAL
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state, rank);
    CREATE INDEX jobs_by_owner ON jobs (owner, state, rank);
    CREATE INDEX jobs_by_end ON jobs (finished) WHERE finished IS NOT NULL;
    CREATE TABLE clips (
        id TEXT PRIMARY KEY, job TEXT NOT NULL, owner TEXT NOT NULL, file TEXT NOT NULL, words TEXT NOT NULL,
        settings TEXT NOT NULL, facts TEXT NOT NULL, created REAL NOT NULL,
        favourite INTEGER NOT NULL DEFAULT 0, deleted REAL
    ) STRICT;
    CREATE INDEX clips_by_time ON clips (created);
    CREATE INDEX clips_by_owner ON clips (owner, created);
    CREATE TABLE uploads (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
        bytes INTEGER NOT NULL, created REAL NOT NULL
    ) STRICT;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    """,
)


class StoreBroken(StudioError):
    """The file is not a database that can be used; it can be rebuilt from the results."""


class StoreStuck(StudioError):
    """The database cannot be used now, and may be later: the disk is full, or another program holds it."""


class Store:
    """An open database. Make one with `open_store`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self.path = path

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock, _explained(self.path):
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        with self._lock, _explained(self.path):
            found: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
            return found

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of the block's statements are on the disk when it ends, or none if it raises."""
        with self._lock, _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.commit()
            except BaseException:  # of the commit, too: on a full disk the transaction would stay open for good
                with suppress(sqlite3.Error):
                    self._connection.rollback()
                raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's complaints in words that help."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "full" in text:
            raise StoreStuck(f"the disk that holds {path.parent} is full; free some space and try again") from error
        raise StoreStuck(f"the database {path.name} cannot be used: {text}") from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise  # defects of ours
        raise StoreBroken(f"the database {path.name} is damaged: {error}") from error


def open_store(path: Path) -> Store:
    """Opens or creates the database and brings it to the newest version.

    Raises:
        StoreBroken: the file is damaged.
        StudioError: it was made by a newer version of the studio, or cannot be opened.
    """
    connection = None
    try:
        with _explained(path):
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            connection.row_factory = sqlite3.Row
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise StoreBroken(f"the database {path.name} is damaged: {verdict}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            _migrate(connection, path)
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return Store(connection, path)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise StudioError(
            f"{path.name} was made by a newer version of the studio (format {version}, this one knows "
            f"{len(MIGRATIONS)}); update, or give another --data-dir"
        )
    for number in range(version, len(MIGRATIONS)):
        connection.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]}; PRAGMA user_version={number + 1}; COMMIT;")
        log.info("database: format %d", number + 1)


def set_aside(path: Path) -> Path | None:
    """Moves a damaged database, with its journal files, out of the way; returns where it went."""
    if not path.exists():
        return None
    target = path.with_name(f"{path.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    for suffix in ("", "-wal", "-shm"):
        side = path.with_name(path.name + suffix)
        if side.exists():
            os.replace(side, target.with_name(target.name + suffix))
    return target

"""One file on its way: `NAME.part` holds bytes in their places, `NAME.part.log` says which of them have arrived.

The log is lines of "from to" (byte positions, the end exclusive) after one line that says which file this is. It only
grows while a download runs, each line after its bytes were written, so whatever ends the process, the log never
claims more than there is. A line cut short is ignored. Losing power can lose bytes that the log claims; the check of
the whole file finds that, and it is fetched again.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import IO

Interval = tuple[int, int]
NOTE_EVERY = 2**18  # bytes written between two lines of the log: what a kill can lose, per connection


def merged(intervals: list[Interval]) -> list[Interval]:
    """The same bytes as sorted, disjoint, non-empty intervals."""
    result: list[Interval] = []
    for start, end in sorted(intervals):
        if start >= end:
            continue
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return result


def missing(have: list[Interval], size: int) -> list[Interval]:
    """What of 0..size is not in `have`, which is merged."""
    gaps, at = [], 0
    for start, end in have:
        if start > at:
            gaps.append((at, start))
        at = max(at, end)
    return gaps + ([(at, size)] if at < size else [])


class PartFile:
    """The unfinished form of `target`. Several threads may write, each to its own places."""

    def __init__(self, target: Path, size: int, identity: str) -> None:
        """Opens what there is, or begins anew where it belongs to another file.

        Args:
            target: the final name.
            size: bytes when complete.
            identity: the hash it will be checked against.

        Raises:
            OSError: the folder is not writable, the disk is full.
        """
        self.target, self.size, self.identity = target, size, identity
        self.path = target.with_name(target.name + ".part")
        self.log_path = target.with_name(target.name + ".part.log")
        self._lock = threading.Lock()
        self._log: IO[bytes] | None = None
        self._have = self._read()
        self._open()

    def _header(self) -> str:
        return json.dumps({"size": self.size, "identity": self.identity})

    def _read(self) -> list[Interval]:
        """The intervals that an earlier process left; none where they are of another file."""
        try:
            lines = self.log_path.read_text(encoding="ascii", errors="replace").split("\n")
            there = self.path.stat().st_size
        except OSError:
            return []
        if lines[0] != self._header():
            return []
        have = []
        for line in lines[1:-1]:  # what follows the last line break is empty or cut short
            with contextlib.suppress(ValueError):
                start, end = map(int, line.split(" "))
                if 0 <= start < end <= min(self.size, there):
                    have.append((start, end))
        return merged(have)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._have:
            self.log_path.unlink(missing_ok=True)  # first of all it stops claiming bytes of another file
            with self.path.open("wb"):
                pass
        fresh = self.log_path.with_name(self.log_path.name + "~")
        fresh.write_text("\n".join([self._header(), *(f"{a} {b}" for a, b in self._have), ""]), encoding="ascii")
        os.replace(fresh, self.log_path)
        self._log = self.log_path.open("ab", buffering=0)

    @property
    def done(self) -> int:
        """Bytes that have arrived."""
        with self._lock:
            return sum(end - start for start, end in self._have)

    def gaps(self) -> list[Interval]:
        """What is still to be fetched."""
        with self._lock:
            return missing(self._have, self.size)

    def writer(self, start: int) -> Writer:
        """Writes from `start` on; one thread, one writer."""
        return Writer(self, start)

    def note(self, start: int, end: int) -> None:
        """Remember that these bytes are written."""
        if start >= end:
            return
        with self._lock:
            self._have = merged([*self._have, (start, end)])
            if self._log is not None:
                with contextlib.suppress(OSError):  # a full disk takes no line: after a kill those bytes come again
                    self._log.write(f"{start} {end}\n".encode("ascii"))

    def begin_again(self) -> None:
        """Forget all bytes: they are of another version, or wrong."""
        with self._lock:
            if self._log is not None:
                self._log.close()
            self._have = []
            self._open()

    def close(self) -> None:
        """Leave it on disk to be continued."""
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None

    def publish(self) -> None:
        """Give the complete and verified file its name."""
        self.close()
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.path, self.target)
        self.log_path.unlink(missing_ok=True)


class Writer:
    """Bytes in order from one position on; notes what is written, also when it ends by an error."""

    def __init__(self, part: PartFile, start: int) -> None:
        self._part = part
        self._noted = self.position = start
        self._file = part.path.open("rb+", buffering=0)
        self._file.seek(start)

    def write(self, data: bytes) -> None:
        """Raises `OSError` when the disk is full; what was written before stays and counts."""
        view = memoryview(data)
        while view:
            written = self._file.write(view) or 0
            self.position += written
            view = view[written:]
        if self.position - self._noted >= NOTE_EVERY:
            self._note()

    def _note(self) -> None:
        self._part.note(self._noted, self.position)
        self._noted = self.position

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._note()

"""Several files over several connections, each verified before it gets its name.

Files are cut into spans; each connection takes the next span that is not fetched yet, in the order of the files, so
that files become complete one after the other. Whoever finishes a file's last span verifies and publishes it.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.downloads.hub import Changed, DownloadError, Hub, HubFile, Patience, Retry
from engine.downloads.partial import PartFile
from engine.errors import Cancelled

log = logging.getLogger(__name__)

CONNECTIONS = 4
BLOCK = 2**20  # bytes read from a disk at a time
SPAN = 64 * 2**20  # bytes that one connection takes at a time
RESTARTS = 3  # of one file that changes under us, or does not have the hash that was promised
RATE_SECONDS = 15.0  # over which the rate is taken
TELL_SECONDS = 0.5  # between two reports


@dataclass(frozen=True)
class Progress:
    """How far it is. Bytes and seconds.

    Attributes:
        stage: "fetching", "verifying" or "copying".
        done, total: of all files together; `done` includes what earlier runs brought.
        rate: bytes a second over the last moments; 0 until known.
        seconds_left: None while the rate is not known.
        file: the one worked on.
    """

    stage: str
    done: int
    total: int
    rate: float
    seconds_left: float | None
    file: str


Report = Callable[[Progress], None]


class Meter:
    """Counts bytes of several threads and reports now and then."""

    def __init__(self, total: int, report: Report | None, done: int = 0) -> None:
        self.total, self.done = total, done
        self._report = report
        self._lock = threading.Lock()
        self._moments: deque[tuple[float, int]] = deque([(time.monotonic(), done)])
        self._told = 0.0

    def add(self, size: int, stage: str, file: str) -> None:
        """Count bytes (negative when they turn out to be lost)."""
        with self._lock:
            self.done += size
            now = time.monotonic()
            if now - self._told >= TELL_SECONDS or self.done >= self.total:
                self._told = now
                self._tell(now, stage, file)

    def _tell(self, now: float, stage: str, file: str) -> None:
        moments = self._moments
        moments.append((now, self.done))
        while now - moments[0][0] > RATE_SECONDS and len(moments) > 2:
            moments.popleft()
        seconds, size = now - moments[0][0], self.done - moments[0][1]
        rate = max(0.0, size / seconds) if seconds > 0.2 else 0.0
        left = (self.total - self.done) / rate if rate > 0 else None
        if self._report:
            self._report(Progress(stage, self.done, self.total, rate, left, file))


@dataclass
class _Work:
    """A file with the spans that nobody has taken yet."""

    file: HubFile
    part: PartFile
    spans: deque[tuple[int, int]] = field(default_factory=deque)
    running: int = 0
    etag: str = ""
    restarts: int = 0
    generation: int = 0
    verifying: bool = False

    def cut(self) -> None:
        self.spans = deque(
            (at, min(at + SPAN, end)) for start, end in self.part.gaps() for at in range(start, end, SPAN)
        )


class Transfer:
    """One run of fetching `files` of a repository into `folder`."""

    def __init__(
        self,
        hub: Hub,
        repository: str,
        commit: str,
        files: Sequence[HubFile],
        folder: Path,
        report: Report | None = None,
        connections: int = CONNECTIONS,
        total: int = 0,
        before: int = 0,
    ) -> None:
        """
        Args:
            files: those that are not in `folder` yet.
            total, before: bytes of the whole task, and how many of them were done without us.
        """
        self._hub, self._repository, self._commit = hub, repository, commit
        self._files, self._folder, self._connections = list(files), folder, max(1, connections)
        self._meter = Meter(total or sum(file.size for file in files), report, before)
        self._lock = threading.Condition()
        self._open: list[_Work] = []
        self._waiting = deque(self._files)
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Fetches all; returns when every file is verified and has its name.

        Raises:
            DownloadError: a file cannot be had, or the disk is full. Whatever arrived is kept.
            Cancelled: `hub.stop` was set.
        """
        threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(self._connections)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # in short pieces, so that Ctrl-C is heard on every system
        except KeyboardInterrupt:
            self._hub.stop.set()
            for thread in threads:
                thread.join()
            raise Cancelled("paused") from None
        finally:
            for work in self._open:
                work.part.close()
        if self._failure:
            raise self._failure

    # ---- what a connection does

    def _serve(self) -> None:
        try:
            while True:
                taken = self._take()
                if taken is None:
                    return
                work, span, generation = taken
                try:
                    self._fetch(work, span, generation)
                finally:
                    complete = self._give_back(work, generation)
                if complete:
                    self._finish(work)
        except BaseException as error:
            with self._lock:
                if self._failure is None:
                    self._failure = _told(error, self._folder)
                self._lock.notify_all()

    def _take(self) -> tuple[_Work, tuple[int, int], int] | None:
        """The next span; waits while a file that is being verified may still come back. None at the end."""
        with self._lock:
            while True:
                if self._failure:
                    return None
                for work in self._open:
                    if work.spans and not work.verifying:
                        work.running += 1
                        return work, work.spans.popleft(), work.generation
                if self._waiting:
                    self._begin(self._waiting.popleft())
                    continue
                if not self._open:
                    return None
                self._lock.wait(0.5)

    def _begin(self, file: HubFile) -> None:
        part = PartFile(self._folder / file.path, file.size, file.identity)
        work = _Work(file, part)
        work.cut()
        if not work.spans:
            work.spans.append((file.size, file.size))  # all there, or empty: only the check is left
        self._open.append(work)
        self._meter.add(part.done, "fetching", file.path)

    def _give_back(self, work: _Work, generation: int) -> bool:
        """Whether this was the file's last span."""
        with self._lock:
            work.running -= 1
            last = not work.running and not work.spans and not self._failure and not work.verifying
            if last and not work.part.gaps():
                work.verifying = True
                return True
            if last:
                work.cut()
            return False

    def _fetch(self, work: _Work, span: tuple[int, int], generation: int) -> None:
        start, end = span
        patience = self._hub.patience()
        while start < end:
            if self._failure or work.generation != generation:
                return
            try:
                start = self._fetch_once(work, start, end, generation, patience)
            except Changed:
                self._restart(work, generation, f"{work.file.path} changed on the server")
                return
            except Retry as retry:
                start = retry_from(work.part, start, end)
                patience.wait(f"{work.file.path}: {retry.reason}", retry.seconds)

    def _fetch_once(self, work: _Work, start: int, end: int, generation: int, patience: Patience) -> int:
        blocks = self._hub.read(self._repository, self._commit, work.file, start, end, work.etag)
        with work.part.writer(start) as writer:
            for block, etag in blocks:
                if self._failure or work.generation != generation:
                    return end
                work.etag = work.etag or etag
                writer.write(block)
                patience.progress()
                self._meter.add(len(block), "fetching", work.file.path)
            return writer.position

    def _restart(self, work: _Work, generation: int, why: str) -> None:
        """Begin a file anew, once for all connections that notice."""
        with self._lock:
            if work.generation != generation:
                return
            work.restarts += 1
            if work.restarts > RESTARTS:
                raise DownloadError(f"{why}, again and again; try later, or another mirror")
            log.info("%s; beginning it again", why)
            work.generation += 1
            work.spans.clear()
            while work.running > 1:  # our own counts; the others leave when they see the new generation
                self._lock.wait(0.1)
                if self._failure:
                    return
            self._meter.add(-work.part.done, "fetching", work.file.path)
            work.part.begin_again()
            work.etag = ""
            work.cut()

    def _finish(self, work: _Work) -> None:
        """Verify a complete file and give it its name, or begin it again."""
        if digest(work.part.path, work.file, self._hub.stop) == work.file.expected:
            work.part.publish()
            with self._lock:
                self._open.remove(work)
                self._lock.notify_all()
            return
        with self._lock:
            work.running += 1
        self._restart(work, work.generation, f"{work.file.path} is not what the hub's listing promises")
        with self._lock:
            work.running -= 1
            work.verifying = False
            self._lock.notify_all()


def retry_from(part: PartFile, start: int, end: int) -> int:
    """Where to go on inside a span of which a beginning has arrived."""
    return next((max(a, start) for a, b in part.gaps() if b > start), end)


def digest(path: Path, file: HubFile, stop: threading.Event) -> str:
    """The hash of a file on disk, of the kind that `file` is listed with."""
    hasher = file.hasher()
    for block in blocks_of(path, stop):
        hasher.update(block)
    return str(hasher.hexdigest())


def blocks_of(path: Path, stop: threading.Event) -> Iterator[Any]:
    """A file's content in blocks; `Cancelled` when stopped. A block is valid until the next."""
    buffer = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as source:
        while size := source.readinto(buffer):
            if stop.is_set():
                raise Cancelled("paused")
            yield buffer[:size]


def _told(error: BaseException, folder: Path) -> BaseException:
    """Errors of the disk in words for the user."""
    if not isinstance(error, OSError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"no space left in {folder}; free some and give the same command again, it goes on where it stopped"
    elif error.errno == errno.EFBIG:
        text = f"the drive of {folder} takes no files of this size (FAT32 ends at 4 GiB); choose another with --to"
    else:
        text = f"cannot write in {folder}: {(error.strerror or type(error).__name__).lower()}"
    return DownloadError(text)

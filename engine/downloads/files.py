"""Files of models on this machine's drives: taken over by link or copy, found by content, swept."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from engine.downloads.catalogue import GB
from engine.downloads.hub import DownloadError, HubFile
from engine.downloads.manifest import is_there
from engine.downloads.transfer import Meter, blocks_of
from engine.errors import Cancelled

log = logging.getLogger(__name__)

INCOMING = ".incoming"  # in a models folder: what is on its way, and the lock
WAIT_SECONDS = 0.25  # between two looks whether another process has let go of a folder
SPARE = GB  # left free on a drive
LOOK_AT_MOST = 200_000  # files of a folder that the user names


def forget_part(path: Path) -> None:
    for suffix in (".part", ".part.log"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def sweep(folder: Path, wanted: set[str]) -> None:
    """Deletes what is not part of the model: parts and logs of files that came another way."""
    for path in list(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()


def take_over(source: Path, target: Path, file: HubFile, stop: threading.Event, meter: Meter) -> bool:
    """A verified file of this machine under a new name: linked where the drive can, else copied."""
    if not is_there(source, file):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    # Never ".part": that is opened for writing, and this may be a link to a model's own file.
    fresh = target.with_name(target.name + ".taken")
    fresh.unlink(missing_ok=True)
    hasher, linked = file.hasher(), same_drive(source, target.parent) and _link(source, fresh)
    counted = 0
    try:
        with contextlib.nullcontext() if linked else fresh.open("wb") as sink:
            for block in blocks_of(source, stop):
                hasher.update(block)
                if sink is not None:
                    sink.write(block)
                counted += len(block)
                meter.add(len(block), "copying", file.path)
            if sink is not None:
                sink.flush()
                os.fsync(sink.fileno())
        if hasher.hexdigest() == file.expected:
            os.replace(fresh, target)
            return True
    except OSError as error:
        log.warning("%s could not be taken from %s: %s", file.path, source, error)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    fresh.unlink(missing_ok=True)
    meter.add(-counted, "copying", file.path)
    return False


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(), target)  # through links, as the hub's own cache has them
    except OSError:
        return False
    return True


def by_size(folders: Sequence[Path], sizes: set[int]) -> dict[int, list[Path]]:
    """Files below these folders that have one of the sizes."""
    found: dict[int, list[Path]] = {}
    seen = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                seen += 1
                if seen > LOOK_AT_MOST:
                    log.warning("%s holds more than %d files; looked at no more", folder, LOOK_AT_MOST)
                    return found
                path = Path(parent, name)
                with contextlib.suppress(OSError):
                    if (size := path.stat().st_size) in sizes:
                        found.setdefault(size, []).append(path)
    return found


def check_space(folder: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(existing(folder)).free
    if free < needed + SPARE:
        raise DownloadError(
            f"{name} needs {(needed + SPARE) / GB:.1f} GB more on the drive of {folder}, and {free / GB:.1f} GB "
            "are free; free some, or choose another drive with --to"
        )


def existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))


def same_drive(one: Path, other: Path) -> bool:
    return existing(one).stat().st_dev == existing(other).stat().st_dev


def remove_tree(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def freed(folder: Path, before: int) -> int:
    return max(0, shutil.disk_usage(existing(folder)).free - before)


@contextlib.contextmanager
def holding(
    base: Path, on_wait: Callable[[], None] | None = None, stop: threading.Event | None = None
) -> Iterator[None]:
    """Holds a models folder for this process; the system lets go of it when the process dies.

    Args:
        on_wait: called once if another process holds it.

    Raises:
        DownloadError: the folder cannot be written. Cancelled: `stop` was set while another process held it.
    """
    try:
        (base / INCOMING).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"cannot write in {base}: {(error.strerror or 'error').lower()}; choose another") from None
    lock, waited = FileLock(base / INCOMING / "lock"), False
    while not _acquired(lock):
        if on_wait and not waited:
            on_wait()
        waited = True
        if stop and stop.is_set():
            raise Cancelled("paused")
    try:
        for left_over in (base / INCOMING).glob("former-*"):
            remove_tree(left_over)
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        return False
    return True

"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from engine.errors import OutputError


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file in the folder of `path` that takes its place when the block ends well.

    Yields the path of the temporary file, which exists, is empty and ends in ``.part``. When the block ends, the file
    is flushed to disk, renamed over `path`, and the folder is flushed too. When it raises, the temporary file is
    removed and `path` is as before.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or `path` is a folder. Any other
            exception of the block passes through.
    """
    target = Path(path)
    check_target(target)
    # A short random name: the name of `path` may already be as long as the file system allows.
    part = target.parent / f".{secrets.token_hex(8)}.part"
    try:
        part.touch(exist_ok=False)
        yield part
        flush(part)
        os.replace(part, target)
        flush_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write {target.name}: {why(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def check_target(target: Path) -> None:
    """Say early what would fail after minutes of work.

    Raises:
        OutputError: `target` is a folder, or its folder is missing or not writable.
    """
    if target.is_dir():
        raise OutputError(f"cannot write {target.name}: it is a folder; give a file name")
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target.name}: folder {target.parent} does not exist")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"cannot write {target.name}: folder {target.parent} is not writable")


def why(error: OSError) -> str:
    """The cause of an `OSError` in a few words."""
    return (error.strerror or type(error).__name__).lower()


def flush(path: Path) -> None:
    """Wait until the bytes of `path` are on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until a rename in `folder` is on the disk; Windows has no such call and journals renames itself."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # some network file systems refuse; the file itself is safe
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

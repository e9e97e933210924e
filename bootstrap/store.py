"""Where environments lie on disk, how a good one is told from a broken one, and the lock between two set-ups.

    .venv/           the environment in use; holds the stamp `mova-setup.json`
    .vXYZ/           one being built, or the former one during the swap; three random letters, same length as .venv
    .venv-setup/     the lock file and the log of the last set-up

A stamp is written last, after the checks: an environment without a stamp is not valid, whatever else it holds.
The names have one length because console scripts carry the absolute path of their Python: after the swap the path
in them can be replaced byte for byte, which is safe even inside Windows' .exe launchers.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
import string
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

FORMAT = 1  # raise it when environments made by older versions of this code must be rebuilt
STAMP = "mova-setup.json"
MARK = "mova-environment"  # tells our folders from a stranger's of the same name
ADDING = "mova-adding"  # lies in an environment while packages are added to it


@dataclass(frozen=True)
class Stamp:
    """What a finished environment holds.

    Attributes:
        backend: tag of the torch build.
        groups: requirement group -> sha256 of its lock file.
        python: real path of the base interpreter; when it goes away, so does the environment.
        created: seconds since the epoch.
    """

    backend: str
    groups: dict[str, str]
    python: str
    created: float = field(default_factory=time.time)
    format: int = FORMAT


@dataclass(frozen=True)
class Layout:
    """All places that set-up uses, derived from the project's folder.

    Attributes:
        root: the project's folder.
        source: where lock files and checks are read; another folder than `root` while an update is prepared.
    """

    root: Path
    source: Path | None = None

    @property
    def env(self) -> Path:
        return self.root / ".venv"

    @property
    def state(self) -> Path:
        return self.root / ".venv-setup"

    @property
    def log(self) -> Path:
        return self.state / "setup.log"

    @property
    def smoke(self) -> Path:
        return (self.source or self.root) / "bootstrap" / "smoke.py"

    def lock_file(self, group: str) -> Path:
        return (self.source or self.root) / "requirements" / f"{group}.txt"

    def lock_hash(self, group: str) -> str:
        """sha256 of a group's lock file, whatever line ends git gave it on this machine."""
        return hashlib.sha256(self.lock_file(group).read_bytes().replace(b"\r\n", b"\n")).hexdigest()

    def sides(self) -> list[Path]:
        """Folders of ours beside `.venv`: unfinished ones, and former ones that a killed swap left."""
        return [path for path in self.root.glob(".v???") if path != self.env and (path / MARK).is_file()]

    def new_side(self) -> Path:
        """A fresh, empty folder that git ignores, to build an environment in."""
        while True:
            letters = "".join(secrets.choice(string.ascii_lowercase) for _ in range(3))
            path = self.root / f".v{letters}"
            if path == self.env:
                continue
            try:
                path.mkdir()
            except FileExistsError:
                continue
            (path / MARK).touch()
            (path / ".gitignore").write_text("*\n")
            return path


def python_in(env: Path) -> Path:
    """The interpreter of an environment."""
    return env / "Scripts" / "python.exe" if os.name == "nt" else env / "bin" / "python"


def base_python(env: Path) -> str:
    """Real path of the interpreter that an environment stands on; empty when it is gone."""
    try:
        if os.name != "nt":
            return str(python_in(env).resolve(strict=True))
        for line in (env / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
            if line.replace(" ", "").startswith("home="):
                return str((Path(line.split("=", 1)[1].strip()) / "python.exe").resolve(strict=True))
    except OSError:
        pass
    return ""


def read_stamp(env: Path) -> Stamp | None:
    """The stamp of an environment that can still start, else None. Never raises for what is on disk."""
    try:
        raw: dict[str, Any] = json.loads((env / STAMP).read_text(encoding="utf-8"))
        stamp = Stamp(**raw)
    except (OSError, ValueError, TypeError):
        return None
    if stamp.format != FORMAT or not isinstance(stamp.groups, dict) or base_python(env) != stamp.python:
        return None
    return stamp


def write_stamp(env: Path, stamp: Stamp) -> None:
    """Put the stamp in place in one step: it is there whole, or not at all."""
    temporary = env / f"{STAMP}.new"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(asdict(stamp), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, env / STAMP)


def add_group(env: Path, stamp: Stamp, group: str, digest: str) -> None:
    """Note that one more group is installed."""
    write_stamp(env, replace(stamp, groups={**stamp.groups, group: digest}))


def point_scripts_at(side: Path, final: Path) -> None:
    """Make the console scripts and settings of an environment built in `side` fit its later place `final`.

    Both paths must have the same length in bytes; each file is replaced as a whole, because it may be a hard link
    into an installer's cache.
    """
    before, after = os.fsencode(side), os.fsencode(final)
    if len(before) != len(after):
        raise ValueError(f"{side} and {final} differ in length")
    for path in [side / "pyvenv.cfg", *python_in(side).parent.iterdir()]:
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        if before in content:
            temporary = path.with_name(path.name + ".new")
            temporary.write_bytes(content.replace(before, after))
            shutil.copymode(path, temporary)
            os.replace(temporary, path)


def swap_in(layout: Layout, side: Path) -> Path | None:
    """Make the stamped environment in `side` the one in use.

    Two renames; a kill between them leaves both stamped, and `recover` finishes the move at the next start. A former
    environment of ours is deleted; one that somebody else made is kept beside it.

    Returns:
        where somebody else's environment was moved to, if there was one.

    Raises:
        OSError: the old one is in use (Windows) or the folder is not writable; the old one is back in its place.
    """
    former: Path | None = None
    ours = (layout.env / MARK).is_file()
    if layout.env.exists() or layout.env.is_symlink():
        if ours:
            former = layout.new_side()
            remove(former)
        else:
            former = layout.root / f".venv-before-{int(time.time())}"
        os.rename(layout.env, former)
    try:
        os.rename(side, layout.env)
    except OSError:
        if former:
            os.rename(former, layout.env)
        raise
    if former and ours:
        remove(former)
        return None
    return former


def recover(layout: Layout) -> None:
    """Tidy up after a set-up that was killed. Call with the lock held."""
    if not layout.env.exists():
        stamped = [(stamp.created, side) for side in layout.sides() if (stamp := read_stamp(side))]
        if stamped:
            os.rename(max(stamped)[1], layout.env)
    for side in layout.sides():
        remove(side)


def remove(folder: Path) -> None:
    """Delete a folder as far as that is possible now; leftovers are found again by their mark."""
    (folder / STAMP).unlink(missing_ok=True)  # first of all it stops being valid

    def unlock_and_retry(function: Callable[[str], object], path: str, _: object) -> None:
        try:
            os.chmod(path, stat.S_IWRITE | stat.S_IREAD | stat.S_IEXEC)
            function(path)
        except OSError:
            pass  # a program still has it open; the next set-up tries again

    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        if entry.name == MARK:
            continue  # the mark goes last: without it the rest would never be found again
        if entry.is_dir() and not entry.is_symlink():
            if sys.version_info >= (3, 12):
                shutil.rmtree(entry, onexc=unlock_and_retry)
            else:
                shutil.rmtree(entry, onerror=unlock_and_retry)
        else:
            try:
                entry.unlink()
            except OSError:
                pass
    if folder.is_dir() and all(entry.name == MARK for entry in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def exclusive(layout: Layout, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of this project folder; the system lets go of it when the process dies, however it dies.

    Args:
        on_wait: called once if another set-up holds it.
    """
    layout.state.mkdir(exist_ok=True)
    (layout.state / ".gitignore").write_text("*\n")
    with (layout.state / "lock").open("a+b") as file:
        waited = False
        while not _try_lock(file.fileno()):
            if not waited:
                on_wait()
                waited = True
            time.sleep(0.2)
        yield  # closing the file gives the lock back


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

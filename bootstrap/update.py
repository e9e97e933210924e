"""Puts another version in the place of this one, and takes it back when it does not work.

    python launch.py update FILE_OR_URL [--sha256 HEX]
    python launch.py update --rollback          back to the version before

    .update/new/    the new version, unpacked and verified; its environment is built beside the old one (.vXYZ)
    .update/old/    what was replaced: the files of the version before and its environment
    .update/journal what is to be swapped; written before the first rename, and taken away when all is done

Nothing of the version in use is touched before the new one has passed its checks in its own environment. The swap is
a row of renames. A kill in the middle leaves the journal, and the next start puts everything back.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bootstrap import package, store
from bootstrap.installer import SetupError, clean_environment, in_words
from bootstrap.package import ReleaseError
from bootstrap.setup import OPTIONAL, build_beside
from bootstrap.store import Layout

FOLDER = ".update"
ENV = ".venv"
ENTRY = "launch.py"  # never absent, not even for a moment
CHECK_SECONDS = 300
# What must start in a new version before it takes over: module, arguments, exit codes that count as good.
CHECKS = (
    ("app.generate", ("--help",), (0,)),
    ("engine.doctor", ("--json",), (0, 1)),  # 1: it found something wrong with the machine, and could say so
    ("app.studio", ("--help",), (0,)),
)


@dataclass(frozen=True)
class Journal:
    """A swap: names in the program's folder. `env` is the folder of the new environment, "" where the old one stays."""

    leaving: list[str]
    coming: list[str]
    env: str


def main(argv: Sequence[str], root: Path) -> int:
    """Returns 0, 1 where nothing was changed (says why), 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="launch.py update", description="Change to another version.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("source", nargs="?", help="a release archive: a file, or an address that begins with https://")
    what.add_argument("--rollback", action="store_true", help="back to the version before the last update")
    parser.add_argument("--sha256", default="", help="what the archive must be")
    options = parser.parse_args(argv)
    layout = Layout(root)
    try:
        with store.exclusive(layout, lambda: _say("A set-up is running in this folder; waiting for it to end.")):
            recover(root)
            try:
                return _rollback(root) if options.rollback else _update(layout, options.source, options.sha256)
            except BaseException:
                recover(root)
                raise
    except KeyboardInterrupt:
        _say("\nInterrupted; the version in use is as it was.")
        return 130
    except (ReleaseError, SetupError, OSError) as error:
        _say(f"\nNo update: {error}\nThe version in use is as it was.")
        return 1


def _update(layout: Layout, source: str, digest: str) -> int:
    root, began = layout.root, time.monotonic()
    old = package.read_release(root) if (root / package.RELEASE).is_file() else None
    if old is None:
        raise ReleaseError("this folder is no unpacked release. Of a git checkout: git pull, then launch.py setup")
    new = root / FOLDER / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    (root / FOLDER / ".gitignore").write_text("*\n")
    archive = _fetch(source, root / FOLDER / "archive.zip")
    if digest and package.sha256(archive) != digest.lower():
        raise ReleaseError(f"{source} has another sha256 than {digest}")
    release = package.unpack(archive, new)
    _say(f"Version {old.version} is in use, {release.version} is being prepared beside it.")
    side = _environment_for(layout, new)
    try:
        check(new, side or layout.env)
        leaving = sorted({*old.entries, *release.entries})
        journal = Journal(_present(root, leaving), release.entries, side.name if side else "")
        swapped = time.monotonic()
        _swap(root, journal)
    except BaseException:
        if side and side.exists() and not (root / FOLDER / "journal").exists():
            store.remove(side)
        raise
    try:
        check(root, layout.env)
    except BaseException:
        undone = time.monotonic()
        recover(root)
        _say(
            f"The new version did not start in its place; the old one is back after {time.monotonic() - undone:.2f} s."
        )
        raise
    _keep_what_is_not_ours(root, old, root / FOLDER / "old", journal.leaving)
    (root / FOLDER / "journal").replace(root / FOLDER / "done")
    shutil.rmtree(new, ignore_errors=True)
    archive.unlink(missing_ok=True)
    _say(
        f"Version {release.version} is in use after {in_words(time.monotonic() - began)}; the swap took "
        f"{time.monotonic() - swapped:.2f} s with its check. Back again: launch.py update --rollback"
    )
    return 0


def _fetch(source: str, target: Path) -> Path:
    """A local file as it is; an address is fetched whole before anything is done with it."""
    if not source.startswith("https://"):
        path = Path(source).expanduser()
        if not path.is_file():
            raise ReleaseError(f"there is no file {path}; an address begins with https://")
        return path
    try:
        with urllib.request.urlopen(source, timeout=30) as answer, target.open("wb") as file:  # noqa: S310  (https only)
            shutil.copyfileobj(answer, file, 2**20)
    except (urllib.error.URLError, TimeoutError) as error:
        raise ReleaseError(f"{source} cannot be fetched: {error}") from None
    return target


def _environment_for(layout: Layout, new: Path) -> Path | None:
    """A new environment beside the old one where the new version's locks differ; None where the old one serves it."""
    coming = Layout(layout.root, source=new)
    stamp = store.read_stamp(layout.env)
    had = [group for group in (stamp.groups if stamp else ()) if group != "base" and group not in OPTIONAL]
    groups = ("base", *(group for group in had if coming.lock_file(group).is_file()))  # the next start offers the rest
    if stamp and all(stamp.groups.get(group) == coming.lock_hash(group) for group in groups):
        return None
    coming.state.mkdir(exist_ok=True)
    coming.log.write_text("")
    return build_beside(coming, groups)


def check(program: Path, env: Path) -> None:
    """Start the commands of a version in an environment.

    Raises:
        SetupError: one of them does not start; with the end of what it said.
    """
    environment = {**clean_environment(), "PYTHONPATH": str(program), "PYTHONDONTWRITEBYTECODE": "1"}
    for module, arguments, good in CHECKS:
        if not program.joinpath(*module.split(".")).with_suffix(".py").is_file():
            continue
        command = [str(store.python_in(env)), "-P", "-m", module, *arguments]
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=program,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
                timeout=CHECK_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise SetupError(f"{module} of the new version does not come to an end") from None
        if done.returncode not in good:
            raise SetupError(f"{module} of the new version does not start:\n{done.stderr.strip()[-1500:]}")


# ---- the swap and its way back


def _swap(root: Path, journal: Journal) -> None:
    """Renames only; `recover` undoes any part of it."""
    folder = root / FOLDER
    _clear(folder / "old")
    (folder / "done").unlink(missing_ok=True)
    shutil.copy2(root / ENTRY, folder / "old" / ENTRY)
    _write(folder / "journal", journal)
    for name in journal.leaving:
        if name != ENTRY:
            os.rename(root / name, folder / "old" / name)
    if journal.env:
        if (root / ENV).exists():
            os.rename(root / ENV, folder / "old" / ENV)
        os.rename(root / journal.env, root / ENV)
    for name in journal.coming:
        if name != ENTRY:
            os.rename(folder / "new" / name, root / name)
    os.replace(folder / "new" / ENTRY, root / ENTRY)


def recover(root: Path) -> bool:
    """Puts the version before back where a swap was begun and not finished; says whether there was one.

    Call with the lock held.
    """
    journal = _read(root / FOLDER / "journal")
    if journal is None:
        return False
    _put_back(root, journal)
    (root / FOLDER / "journal").unlink()
    store.recover(Layout(root))  # the environment that was to come
    return True


def _put_back(root: Path, journal: Journal) -> None:
    """Every step can be repeated: what is still in `old` is put back, what came without a forerunner goes."""
    folder = root / FOLDER
    failed = folder / "failed"
    _clear(failed)
    for name in [*journal.coming, *([ENV] if journal.env else [])]:
        had_one = name in journal.leaving or name == ENV
        if name != ENTRY and (root / name).exists() and ((folder / "old" / name).exists() or not had_one):
            os.rename(root / name, failed / name)
    for name in [*journal.leaving, *([ENV] if journal.env else [])]:
        if (folder / "old" / name).exists():
            os.replace(folder / "old" / name, root / name)
    shutil.rmtree(failed, ignore_errors=True)


def _rollback(root: Path) -> int:
    """The user's own way back."""
    began = time.monotonic()
    journal = _read(root / FOLDER / "done")
    if journal is None or not (root / FOLDER / "old" / package.RELEASE).is_file():
        raise ReleaseError("there is no version before this one to go back to")
    os.replace(root / FOLDER / "done", root / FOLDER / "journal")  # from here on a kill is mended by the next start
    recover(root)
    version = package.read_release(root).version
    _say(f"Version {version} is back after {time.monotonic() - began:.2f} s.")
    return 0


def _keep_what_is_not_ours(root: Path, old: package.Release, folder: Path, entries: Sequence[str]) -> None:
    """Files that the user put into folders of the program are there in the new version, too."""
    for entry in entries:
        for path in sorted((folder / entry).rglob("*")) if (folder / entry).is_dir() else []:
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in old.files and "__pycache__" not in name and not (root / name).exists():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(path, root / name)
                except OSError:
                    shutil.copy2(path, root / name)


def _present(root: Path, names: list[str]) -> list[str]:
    return [name for name in names if (root / name).exists()]


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def _write(path: Path, journal: Journal) -> None:
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(asdict(journal), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _read(path: Path) -> Journal | None:
    try:
        return Journal(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()

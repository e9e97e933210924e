"""Packages that are built on this machine: first their wheels, beside the environment, then the environment.

Building takes minutes and must be safe to kill; installing what was built takes seconds.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from bootstrap.installer import Progress, pip_command, run_logged

FOLDER = "wheels"  # in .venv-setup


def make(state: Path, log: Path, python: Path, lines: list[str], progress: Progress) -> list[Path]:
    """Builds or fetches the wheels of locked packages; changes nothing in the environment of `python`.

    Args:
        state: set-up's own folder. lines: pins and options of a lock file.

    Returns:
        the wheels; none where one could not be made, the log tells why.

    Raises:
        SetupError: there is no pip.
    """
    folder = state / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # what a killed build left, or another version
    folder.mkdir(parents=True)
    listing = state / f"{FOLDER}.txt"
    listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
    count = sum(not line.startswith("-") for line in lines)
    command = [*pip_command(python), "wheel", "--no-deps", "--wheel-dir", str(folder), "-r", str(listing)]
    if not run_logged(command, progress, log, state, count):
        return []
    return sorted(folder.glob("*.whl"))


def install(state: Path, log: Path, python: Path, wheels: list[Path], progress: Progress) -> bool:
    """Installs wheels that lie here, exactly these, without a network; whether that went well."""
    command = [*pip_command(python), "install", "--no-deps", "--no-index", *map(str, wheels)]
    done = run_logged(command, progress, log, state, len(wheels))
    if done:
        shutil.rmtree(state / FOLDER, ignore_errors=True)
    return done

"""Takes the installation away: `python launch.py uninstall`. Says what goes and what stays, and asks."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bootstrap import shortcuts, store
from bootstrap.store import Layout

OURS = (".venv-setup", ".update", ".uv")  # .uv last: it may hold the Python that runs this


def main(argv: Sequence[str], root: Path) -> int:
    """Returns 0; 1 where something could not be removed; 130 where the user says no."""
    parser = argparse.ArgumentParser(prog="launch.py uninstall", description=__doc__)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(argv)
    layout = Layout(root)
    doomed = [layout.env, *layout.sides(), *(root / name for name in OURS)]
    doomed = [path for path in doomed if path.exists()]
    say = sys.stdout.write
    say("This goes:\n")
    for path in doomed:
        say(f"  {path}  {_size(path) / 1e6:.0f} MB\n")
    say("  entries in the start menu and on the desktop\n")
    say("This stays:\n")
    for path in _data_folders():
        say(f"  {path}  {_size(path) / 1e6:.0f} MB  (clips, models and settings; delete it yourself if you want)\n")
    say(f"  {root}  (the program's files; delete the folder when this is done)\n")
    if not options.yes:
        if not sys.stdin.isatty():
            sys.stderr.write("There is nobody to ask here: add --yes\n")
            return 1
        if input("Remove? [y/N] ").strip().lower() not in ("y", "yes"):
            return 130
    with store.exclusive(layout, lambda: None):
        shortcuts.main(["--remove"], root)
        for path in doomed:
            if path == layout.state:
                continue  # holds the lock that we hold
            store.remove(path) if (path / store.MARK).is_file() else shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(layout.state, ignore_errors=True)
    left = [path for path in doomed if path.exists()]
    if left:
        say(
            f"In use, and so still there: {', '.join(map(str, left))}. Close the studio and delete the folder {root}.\n"
        )
        return 1
    say(f"Removed. Now delete {root}.\n")
    return 0


def _data_folders() -> list[Path]:
    """Where the studio keeps what belongs to the user, by each system's rules (as platformdirs has them)."""
    home = Path.home()
    if os.name == "nt":
        local = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        places = [local / "mova-studio"]
    elif sys.platform == "darwin":
        places = [home / "Library" / "Application Support" / "mova-studio", home / "Library" / "Caches" / "mova-studio"]
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
        places = [data / "mova-studio", cache / "mova-studio"]
    return [place for place in places if place.is_dir()]


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total

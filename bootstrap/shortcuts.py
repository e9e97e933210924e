"""Entries in the start menu and on the desktop: made, and taken away again. `python launch.py shortcuts [--remove]`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NAME = "MOVA Studio"
FILE = "mova-studio.desktop"
# Everything that varies comes through the environment, so that no path can be taken for a command.
MAKE_LINK = """
$ErrorActionPreference = 'Stop'
$shell = New-Object -ComObject WScript.Shell
foreach ($place in 'Programs', 'Desktop') {
  $folder = $shell.SpecialFolders.Item($place)
  $path = Join-Path $folder ($env:MOVA_NAME + '.lnk')
  if ($env:MOVA_REMOVE) { if (Test-Path -LiteralPath $path) { Remove-Item -LiteralPath $path } ; continue }
  $link = $shell.CreateShortcut($path)
  $link.TargetPath = Join-Path $env:MOVA_ROOT 'start.bat'
  $link.WorkingDirectory = $env:MOVA_ROOT
  $link.WindowStyle = 7
  $link.Save()
  $path
}
"""


def main(argv: Sequence[str], root: Path) -> int:
    """Returns 0, or 1 with the reason where this system lets us make none."""
    parser = argparse.ArgumentParser(prog="launch.py shortcuts", description=__doc__)
    parser.add_argument("--remove", action="store_true")
    options = parser.parse_args(argv)
    try:
        places = _windows(root, options.remove) if os.name == "nt" else _desktop_files(root, options.remove)
    except (OSError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"No shortcuts: {error}\n")
        return 1
    for place in places:
        sys.stdout.write(f"{'Removed' if options.remove else 'Made'} {place}\n")
    return 0


def _windows(root: Path, remove: bool) -> list[str]:
    environment = {**os.environ, "MOVA_ROOT": str(root), "MOVA_NAME": NAME, "MOVA_REMOVE": "1" if remove else ""}
    command = ["powershell", "-NoProfile", "-NonInteractive", "-Command", MAKE_LINK]
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=60, check=True
    )
    return done.stdout.splitlines()


def _desktop_files(root: Path, remove: bool) -> list[str]:
    """Where there is a desktop by freedesktop.org's rules; nowhere else (macOS, servers)."""
    if sys.platform == "darwin":
        return []
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    desktop = Path.home() / "Desktop"
    places = [data / "applications" / FILE, *([desktop / FILE] if desktop.is_dir() else [])]
    done = []
    for place in places:
        if remove:
            # Another copy of the program may have written it since: that one stays.
            if not place.is_file() or not _belongs_to(place, root):
                continue
            place.unlink()
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh = place.with_name(f".{FILE}.{os.getpid()}")
            fresh.write_text(desktop_entry(root), encoding="utf-8")
            fresh.chmod(0o755)
            os.replace(fresh, place)
        done.append(str(place))
    return done


def desktop_entry(root: Path) -> str:
    """The text of the .desktop file. Quoting happens twice there: as an argument, then as a string."""
    return "\n".join(
        [
            "[Desktop Entry]",
            "Type=Application",
            f"Name={NAME}",
            "Comment=Clips whose sound belongs to their picture",
            f"Exec=sh {_quoted(str(root / 'start.sh'))}",
            f"Path={_escaped(str(root))}",
            "Terminal=true",
            "Categories=AudioVideo;",
            "",
        ]
    )


def _quoted(argument: str) -> str:
    """In double quotes, inside which four signs take a backslash; a percent sign doubles."""
    inside = "".join(f"\\{sign}" if sign in '\\"`$' else sign for sign in argument)
    return '"' + _escaped(inside).replace("%", "%%") + '"'


def _escaped(text: str) -> str:
    """As a value of a desktop file."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _belongs_to(place: Path, root: Path) -> bool:
    return f"\nPath={_escaped(str(root))}\n" in place.read_text(encoding="utf-8", errors="replace")

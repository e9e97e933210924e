"""Runs pip or uv, shows how far they are, keeps all they say in a log."""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

OWN_UV = Path(__file__).resolve().parent.parent / ".uv" / ("uv.exe" if os.name == "nt" else "uv")
SECONDS_BETWEEN_LINES = 10.0  # how often progress is told where the output is a file and not a terminal


class SetupError(Exception):
    """Set-up cannot go on; the message is for the user and says what to do."""


def in_words(seconds: float) -> str:
    """A length of time for people."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


class Progress:
    """Numbered steps on the user's screen; in a terminal the current detail is one line that changes in place."""

    def __init__(self, total: int, out: TextIO | None = None) -> None:
        self.out = out or sys.stderr
        self.total = total
        self.number = 0
        self.started = time.monotonic()
        self.step_started = self.started
        self.last_line = 0.0
        self.live = self.out.isatty()

    def step(self, title: str) -> None:
        """Begin the next step."""
        self.number += 1
        self.step_started = self.last_line = time.monotonic()
        self.line(f"[{self.number}/{self.total}] {title}")

    def line(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        self.out.write(text + "\n")
        self.out.flush()

    def detail(self, text: str) -> None:
        """What is being done right now; passing."""
        now = time.monotonic()
        seconds = f"{now - self.step_started:.0f} s"
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self._clear()
            self.out.write(f"      {seconds:>5}  {text}"[:width])
            self.out.flush()
        elif now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            self.line(f"      {seconds:>5}  {text}")

    def elapsed(self) -> str:
        """Time since the beginning, for people."""
        return in_words(time.monotonic() - self.started)

    def _clear(self) -> None:
        if self.live:
            self.out.write("\r\033[K")


def clean_environment(source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment without what would make Python or pip act on another environment than ours."""
    foreign = {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    clean = {name: value for name, value in source.items() if name not in foreign}
    clean.update(PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PYTHONNOUSERSITE="1")
    clean.update(PYTHONIOENCODING="utf-8", UV_PYTHON_DOWNLOADS="never")
    if OWN_UV.is_file():
        clean.setdefault("UV_CACHE_DIR", str(OWN_UV.parent / "cache"))  # all that is ours in one folder
    return clean


def run_logged(command: Sequence[str], progress: Progress, log: Path, cwd: Path, total: int = 0) -> bool:
    """Run a program to its end, its output into the log, its progress onto the screen.

    Args:
        total: packages to be installed, for "12 of 70"; 0 if unknown.

    Returns:
        whether it exited with 0.
    """
    lines: queue.Queue[str | None] = queue.Queue()
    with log.open("a", encoding="utf-8") as sink:
        sink.write(f"\n$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )

        def read() -> None:
            assert process.stdout is not None  # noqa: S101  (asked for above)
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        try:
            seen, text = 0, "starting"
            while True:
                try:
                    line = lines.get(timeout=1.0)
                except queue.Empty:
                    progress.detail(text)  # the clock goes on while a big file comes in
                    continue
                if line is None:
                    break
                if not line.startswith("Progress "):
                    sink.write(line)
                    sink.flush()
                seen += bool(_PACKAGE.match(line))
                text = _describe(line, seen, total) or text
                progress.detail(text)
            return process.wait() == 0
        except BaseException:
            process.terminate()
            process.wait()
            raise


_PACKAGE = re.compile(r"Collecting |Requirement already satisfied: | \+ \S+==")
_WHEEL = re.compile(r"\s*(Downloading|Using cached) (?:\S*/)?([^-\s/]+)-\S*(?: \((.+)\))?")


def _describe(line: str, seen: int, total: int) -> str:
    """A line of pip's or uv's output in a few words; empty if it tells nothing."""
    position = f"{min(seen, total)} of {total}  " if total else ""
    if match := _WHEEL.match(line):
        size = f" ({match[3]})" if match[3] else ""
        return f"{position}{match[1].lower()} {match[2]}{size}"
    if match := re.match(r"(?:Collecting| \+) (\S+)", line):
        return f"{position}{match[1]}"
    if match := re.match(r"Progress (\d+) of (\d+)", line):
        return f"{position}{int(match[1]) / 1e6:.0f} of {int(match[2]) / 1e6:.0f} MB"
    if match := re.match(r"\s*(?:Building wheel for|Building) (\S+)", line):
        return f"{position}building {match[1].removesuffix(':')} (minutes)"
    if line.startswith("Installing collected packages"):
        count = line.count(",") + 1
        return f"unpacking {count} packages" if count > 1 else "unpacking"
    return ""


_SIZE = re.compile(r"Downloading \S.*?\((\d+(?:\.\d+)?)\s?([kKMG])i?B\)")
_UNITS = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}


def downloaded(log: Path) -> float:
    """Bytes that pip and uv say they fetched (uv names the larger files only)."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    return sum(float(number) * _UNITS[unit] for number, unit in _SIZE.findall(text))


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def pip_command(env_python: Path) -> list[str]:
    """How to call pip for an environment: its own pip, else that of the Python we run on."""
    own = [str(env_python), "-m", "pip"]
    if _answers([*own, "--version"]):
        return own
    other = [sys.executable, "-m", "pip", "--python", str(env_python)]
    if _answers([*other, "--version"]):
        return other
    raise SetupError(
        "This Python has neither pip nor ensurepip. Install uv (docs.astral.sh/uv, needs no administrator), "
        "or your system's package for it (Debian and Ubuntu: python3-venv), and start again."
    )


def _answers(command: Sequence[str]) -> bool:
    return (
        subprocess.run(command, env=clean_environment(), capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
    )


def uv_path() -> str | None:
    """uv: the one that the installer brought, else this machine's; None where `MOVA_NO_UV` forbids it."""
    if os.environ.get("MOVA_NO_UV"):
        return None
    return str(OWN_UV) if OWN_UV.is_file() else shutil.which("uv")

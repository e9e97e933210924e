"""How fast `python launch.py` opens, warm, and what the process of the page weighs.

    python tests/bench/studio_start.py --rounds 5 [--model FOLDER]

Measures from the start of the process to the first answer of the page over HTTP, and the memory of that process after
the page was fetched. Exits with 1 where the median is 4 s or more, memory 300 MB or more, or torch is loaded.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.app_parts import MODEL, environment

ROOT = Path(__file__).resolve().parents[2]
MOST_SECONDS, MOST_MEMORY = 4.0, 300 << 20


@dataclass
class Starts:
    """Seconds to the first page and those its process computed, its bytes, heavy libraries it has mapped."""

    seconds: list[float] = field(default_factory=list)
    computed: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    heavy: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        each = ", ".join(f"{s:.2f}" for s in self.seconds)
        return (
            f"page answers after {statistics.median(self.seconds):.2f} s (median of {each}), "
            f"{statistics.median(self.computed):.2f} s of it computing; memory of its process "
            f"{max(self.memory) / (1 << 20):.0f} MB; torch loaded: {'yes' if self.heavy else 'no'}"
        )


def measure(folder: Path, model: Path, rounds: int, command: list[str]) -> Starts:
    """Starts the studio `rounds` times on one folder; the first start, which compiles files, is not counted."""
    starts = Starts()
    for number in range(rounds + 1):
        address = folder / "running.json"
        address.unlink(missing_ok=True)
        began = time.monotonic()
        arguments = ["--no-browser", "--port", "0", "--data-dir", str(folder), "--model", str(model)]
        process = subprocess.Popen(
            [*command, *arguments], env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert process.stdout is not None
            url = next(line.split()[-1].decode() for line in process.stdout if b"http://" in line)
            with urllib.request.urlopen(url, timeout=60) as page:  # noqa: S310 - our own address
                assert b"<!doctype html" in page.read(200).lower()
            seconds = time.monotonic() - began
            serving = _serving(process.pid)
            if number:
                starts.seconds.append(seconds)
                times = serving.cpu_times()
                starts.computed.append(times.user + times.system)
                starts.memory.append(serving.memory_full_info().uss)
                maps = {Path(m.path).name for m in serving.memory_maps()}
                starts.heavy |= {name for name in maps if name.startswith("libtorch")}
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    return starts


def _serving(pid: int) -> psutil.Process:
    """The process that listens: the one that was started, or a child of it (launch.py starts another Python)."""
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        if any(c.status == psutil.CONN_LISTEN for c in process.net_connections("tcp")):
            return process
    raise AssertionError("no process listens")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--model", type=Path, default=MODEL)
    p.add_argument("--launch", action="store_true", help="through launch.py and its environment, instead of this one")
    args = p.parse_args()
    command = [sys.executable, "launch.py"] if args.launch else [sys.executable, "-m", "app.studio"]
    with tempfile.TemporaryDirectory(prefix="mova-start-") as folder:
        starts = measure(Path(folder), args.model.resolve(), args.rounds, command)
    print(starts)
    slow = statistics.median(starts.seconds) >= MOST_SECONDS
    return 1 if slow or max(starts.memory) >= MOST_MEMORY or starts.heavy else 0


if __name__ == "__main__":
    sys.exit(main())

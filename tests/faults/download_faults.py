"""Downloads a model while things go wrong, again and again, from a hub on this machine.

    python tests/faults/download_faults.py --rounds 100

Each round starts from nothing, meets one kind of trouble at random places, and then gets the same command once more
without trouble. After every run each file under its final name must be whole and what the hub promises; after the
second the model must be there, verified, and nothing left over. Exits with 1 if anything of that fails.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.downloads import DownloadError, Hub, Shelf
from engine.downloads import files as drive
from tests.hub_server import REPOSITORY, Fault, LocalHub, model_files, serving, stray, wrong_files

ROOT = Path(__file__).resolve().parents[2]
MODEL = REPOSITORY.split("/")[1]
ONCE_FETCHED = 1.05  # bytes over the network by size, for troubles that spoil no bytes
LOST_BY_KILL = 2 * 2**20  # bytes: what was on the wire or not yet noted on four connections
DISK = 6 * 2**20


@dataclass
class Toll:
    """What a campaign came to."""

    rounds: Counter[str] = field(default_factory=Counter)
    whole_at_once: int = 0
    refused: int = 0
    most_fetched: float = 0.0
    most_lost: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.rounds.items()))
        return (
            f"{self.rounds.total()} rounds ({kinds}) in {self.seconds:.0f} s: {self.whole_at_once} whole in spite of "
            f"it, {self.refused} stopped with a reason and whole at the next try; at most {self.most_fetched:.3f} x "
            f"the size fetched over cuts, at most {self.most_lost / 1e6:.2f} MB fetched twice after a kill; "
            f"{len(self.faults)} faults"
        )


@dataclass(frozen=True)
class Round:
    """One round's surroundings."""

    server: LocalHub
    shelf: Shelf
    dice: random.Random

    def get(self) -> str:
        """The command in this process; the reason why it stopped, or ""."""
        with Hub(self.server.url, first_wait=0.005, read_seconds=0.5) as hub:
            try:
                self.shelf.get(self.shelf.plan(REPOSITORY, hub), hub)
            except DownloadError as error:
                return str(error)
        return ""

    def start(self) -> subprocess.Popen[str]:
        """The command in a process of its own, as a user gives it."""
        command = [sys.executable, "-m", "engine.downloads.cli", "--data-dir", str(self.shelf.data)]
        command += ["get", REPOSITORY, "--mirror", self.server.url, "--yes"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
        )

    def requests_fail(self, share: float, make: Callable[[int], Fault]) -> str:
        """A share of the requests meets a fault; `make` gets the bytes that were asked for."""
        lock = threading.Lock()

        def fault(path: str, start: int, end: int, number: int) -> Fault | None:
            with lock:
                return make(max(1, end - start)) if self.dice.random() < share else None

        self.server.fault = fault
        return self.get()

    def one_file_always_fails(self, make: Callable[[int], Fault]) -> str:
        doomed = self.dice.choice([path for path in self.server.files if path != "README.md"])
        self.server.fault = lambda path, start, end, number: make(max(1, end - start)) if path == doomed else None
        return self.get()


def cut(around: Round) -> str:
    return around.requests_fail(0.7, lambda size: Fault("cut", at=around.dice.randrange(size)))


def silent(around: Round) -> str:
    return around.requests_fail(0.2, lambda size: Fault("silent", at=around.dice.randrange(size)))


def slow(around: Round) -> str:
    return around.requests_fail(1.0, lambda size: Fault("slow"))


def wrong_once(around: Round) -> str:
    spoiled: set[str] = set()

    def fault(path: str, start: int, end: int, number: int) -> Fault | None:
        if path in spoiled or end - start < 2:
            return None
        spoiled.add(path)
        return Fault("wrong", at=around.dice.randrange(end - start))

    around.server.fault = fault
    return around.get()


def wrong_always(around: Round) -> str:
    return around.one_file_always_fails(lambda size: Fault("wrong", at=around.dice.randrange(size)))


def status(code: int, retry_after: str = "") -> Callable[[Round], str]:
    def trouble(around: Round) -> str:
        return around.requests_fail(0.4, lambda size: Fault("status", status=code, retry_after=retry_after))

    return trouble


def etag(around: Round) -> str:
    return around.requests_fail(0.2, lambda size: Fault("etag"))


def new_content(around: Round) -> str:
    """While it is fetched, a file becomes another of the same size on the server; then it is the old one again."""
    path = max(around.server.files, key=lambda name: around.server.files[name].size)
    old, at = around.server.files[path], around.dice.randrange(around.server.files[path].size)
    assert isinstance(old.source, bytes)
    other = type(old).of(old.source[:at] + bytes([old.source[at] ^ 1]) + old.source[at + 1 :])
    enough = around.dice.randrange(around.server.size)

    def fault(asked: str, start: int, end: int, number: int) -> Fault | None:
        if around.server.sent >= enough:
            around.server.files[path] = other
        return Fault("slow")

    around.server.fault = fault
    said = around.get()
    around.server.files[path] = old
    return said


def redirect(around: Round) -> str:
    return around.requests_fail(0.05, lambda size: Fault("circle"))


def no_ranges(around: Round) -> str:
    return around.requests_fail(0.5, lambda size: Fault(around.dice.choice(["whole", "other"])))


def kill(around: Round) -> str:
    """SIGKILL after a number of bytes, or just some time after the start."""
    around.server.fault = lambda *_: Fault("slow")
    process = around.start()
    if around.dice.random() < 0.8:
        enough = around.dice.randrange(around.server.size)
        while around.server.sent < enough and process.poll() is None:
            time.sleep(0.002)
    else:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(around.dice.uniform(0.2, 3.0))
    process.kill()
    said = process.communicate()[0]
    return "" if process.returncode == 0 else f"killed after {said.count(chr(10))} lines"


def two_at_once(around: Round) -> str:
    """One is killed in half of the rounds; the other must finish in any case."""
    around.server.fault = lambda *_: Fault("slow")
    both = [around.start(), around.start()]
    if around.dice.random() < 0.5:
        while around.server.sent < around.server.size // 3 and both[0].poll() is None:
            time.sleep(0.005)
        both[0].kill()
    said = [process.communicate()[0] for process in both]
    if both[1].returncode != 0:
        raise AssertionError(f"the second process ended with {both[1].returncode}: {said[1]}")
    return "" if both[0].returncode == 0 else "killed"


def disk_full(around: Round) -> str:
    """Another program fills the drive in the middle of it."""
    enough, filler = around.dice.randrange(around.server.size), around.shelf.data / "other.bin"

    def fault(path: str, start: int, end: int, number: int) -> Fault | None:
        if around.server.sent >= enough:
            with contextlib.suppress(OSError), filler.open("ab") as file:
                while True:
                    file.write(bytes(2**16))
                    file.flush()
        return Fault("slow")

    around.server.fault = fault
    said = around.get()
    filler.unlink(missing_ok=True)
    return said


TROUBLES: dict[str, Callable[[Round], str]] = {
    "cut": cut,
    "silent": silent,
    "slow": slow,
    "wrong bytes once": wrong_once,
    "wrong bytes always": wrong_always,
    "404": status(404),
    "429": status(429, retry_after="0"),
    "500": status(500),
    "changed etag": etag,
    "changed content": new_content,
    "redirect in circles": redirect,
    "no ranges": no_ranges,
    "disk full": disk_full,
    "kill -9": kill,
    "two processes": two_at_once,
}
SPOIL_NO_BYTES = ("cut", "slow", "429", "500")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A drive of `DISK` bytes mounted on a folder; False where this user may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    mounted = os.name != "nt" and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def one_round(kind: str, folder: Path, dice: random.Random, toll: Toll) -> None:
    data = folder / "data"
    big = kind in ("kill -9", "two processes")  # so that what is on the wire at a kill is little of the whole
    with contextlib.ExitStack() as stack:
        if kind == "disk full" and not stack.enter_context(small_disk(data)):
            toll.rounds["disk full, left out: mount is not allowed"] += 1
            return
        server = stack.enter_context(serving(model_files(dice.randrange(2**30), (24 if big else 3) * 2**19)))
        around = Round(server, Shelf(data), dice)
        said = TROUBLES[kind](around)
        toll.rounds[kind] += 1
        target = around.shelf.folder / MODEL
        there = (target / "manifest.json").is_file()
        if there == bool(said) and kind not in ("kill -9", "two processes"):
            toll.faults.append(f"{kind}: said {said!r}, installed: {there}")
        for place in (target, around.shelf.folder / ".incoming" / MODEL):
            toll.faults += [f"{kind}: {path} is wrong" for path in wrong_files(place, server)]
        toll.whole_at_once += there
        toll.refused += not there
        server.fault = lambda *_: None
        if again := around.get():
            toll.faults.append(f"{kind}: second try: {again}")
            return
        toll.faults += [f"{kind}: {path} is damaged" for path in around.shelf.verify(MODEL)]
        toll.faults += [f"{kind}: {path} was left" for path in stray(around.shelf.folder)]
        wanted = server.size - server.files["README.md"].size
        if kind in SPOIL_NO_BYTES:
            toll.most_fetched = max(toll.most_fetched, server.sent / wanted)
            if server.sent > ONCE_FETCHED * wanted:
                toll.faults.append(f"{kind}: {server.sent / wanted:.3f} x the size was fetched")
        elif big:
            toll.most_lost = max(toll.most_lost, server.sent - wanted)
            if server.sent - wanted > LOST_BY_KILL:
                toll.faults.append(f"{kind}: {server.sent - wanted} bytes were fetched twice")


def campaign(folder: Path, rounds: int, seed: int) -> Toll:
    """Runs it below `folder`, each kind of trouble in turn."""
    toll, began, kinds = Toll(), time.monotonic(), list(TROUBLES)
    spare, drive.SPARE = drive.SPARE, 0  # the small drive has none
    try:
        for number in range(rounds):
            kind = kinds[number % len(kinds)]
            with tempfile.TemporaryDirectory(dir=folder) as place:
                try:
                    one_round(kind, Path(place), random.Random(seed + number), toll)
                except AssertionError as error:
                    toll.faults.append(f"{kind}: {error}")
    finally:
        drive.SPARE = spare
    toll.seconds = time.monotonic() - began
    return toll


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20260)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        toll = campaign(Path(folder), options.rounds, options.seed)
    for fault in toll.faults:
        print(fault)
    print(toll)
    return 1 if toll.faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""A studio with 10,000 waiting jobs and 1,000 clips: how long its answers take.

    python tests/faults/crowded_studio.py --jobs 10000 --clips 1000

Over HTTP and through the functions that the page polls. Exits with 1 where the 95th percentile of any is over 300 ms.
The database is then thrown away, and must come back from the sidecars with every clip.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from app.core import Core
from app.library import LOCAL, clip_from_file, write_sidecar
from app.order import Order
from app.publishing import publish
from app.server import make_server
from app.view import clips_view, studio_view
from engine.media import Clip as MediaClip
from tests.app_parts import GUEST, OWNER, small, studio
from tests.faults.verdict import verdict

MOST = 0.3  # seconds, at the 95th percentile
SUBMITTED_AT_ONCE = 64


@dataclass
class Toll:
    """What a campaign came to. times: by question, 95th percentile in seconds."""

    jobs: int
    clips: int
    times: dict[str, float] = field(default_factory=dict)
    opened: float = 0.0
    rebuilt: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        times = ", ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in self.times.items())
        return (
            f"{self.jobs} jobs waiting, {self.clips} clips; 95th percentiles in ms: {times}; opened in "
            f"{self.opened:.1f} s; library rebuilt in {self.rebuilt:.1f} s; {len(self.faults)} faults"
        )


def fill(core: Core, jobs: int, clips: int) -> None:
    """Real jobs, and real clips: one made, the others copies of its file with sidecars of their own."""
    core.queue.hold()
    for start in range(0, jobs, SUBMITTED_AT_ONCE):
        visitor = GUEST if (start // SUBMITTED_AT_ONCE) % 5 == 0 else OWNER
        spec = core.settle(small(f"job {start}"), visitor)
        core.queue.variations(spec, min(SUBMITTED_AT_ONCE, jobs - start), visitor.owner)
    first = f"{0:032x}"
    spec = core.settle(small("the first of many"), OWNER)
    media = MediaClip(np.full((5, 32, 32, 3), 99, np.uint8), np.zeros(10_000, np.float32), 24.0, 48_000, spec.to_dict())
    publish(Order(first, LOCAL, spec, core.paths.root, core.paths.root, "cpu", "float32", False), media, None, _nothing)
    made = next(core.paths.results.rglob("*.mp4"))
    clip = clip_from_file(made, core.paths)
    for number in range(1, clips):
        path = made.with_name(f"clip-{number}.mp4")
        path.hardlink_to(made)
        prompt = f"{'red' if number % 2 else 'blue'} clip {number}"
        settings = {**clip.settings, "prompt": prompt}
        copy = replace(
            clip,
            id=f"{number:032x}",
            job=f"{number:032x}",
            owner=GUEST.owner if number % 5 == 0 else LOCAL,
            settings=settings,
            created=clip.created + number,
            favourite=number % 7 == 0,
        )
        write_sidecar(path.with_suffix(".json"), copy)
    core.library.refresh()


def _nothing() -> None: ...


def campaign(folder: Path, jobs: int, clips: int, rounds: int) -> Toll:
    """Fills a studio, asks it, opens it again, and once more without its database."""
    toll = Toll(jobs, clips)
    with studio(folder) as core:
        fill(core, jobs, clips)
        with TestClient(make_server(core), base_url="http://127.0.0.1") as client:
            toll.times = {name: _p95(ask, rounds) for name, ask in _questions(core, client).items()}
        waiting = core.queue.counts()["queued"]
        before = json.dumps([repr(clip) for clip in core.library.find(limit=clips)])
    toll.faults += [f"{name} takes {t * 1000:.0f} ms" for name, t in toll.times.items() if t > MOST]
    began = time.monotonic()
    with studio(folder) as core:
        toll.opened = time.monotonic() - began
        if core.queue.counts()["queued"] != waiting:
            toll.faults.append(f"{core.queue.counts()['queued']} of {waiting} jobs after opening again")
    (folder / "studio.sqlite3").write_bytes(b"torn" * 999)
    for suffix in ("-wal", "-shm"):
        (folder / f"studio.sqlite3{suffix}").unlink(missing_ok=True)
    began = time.monotonic()
    with studio(folder) as core:
        toll.rebuilt = time.monotonic() - began
        after = json.dumps([repr(clip) for clip in core.library.find(limit=clips)])
        if after != before:
            toll.faults.append(f"{core.library.count()} of {clips} clips came back, or they are not the same")
    if not list(folder.glob("studio.sqlite3.broken-*")):
        toll.faults.append("the damaged database was not kept")
    return toll


def _questions(core: Core, client: TestClient) -> dict[str, Callable[[], Any]]:
    """What pages and programs ask, over and over; none of it changes anything but what it names."""
    waiting = core.queue.find(states=("queued",), limit=5000)
    last = waiting[-1].id

    def ok(path: str) -> Callable[[], Any]:
        def ask() -> None:
            assert client.get(path).status_code == 200, path

        return ask

    return {
        "page": lambda: studio_view(core, None, OWNER, None, "en"),
        "page of a guest": lambda: studio_view(core, None, GUEST, None, "en"),
        "library": lambda: clips_view(core, OWNER, "", False, 0, 48),
        "its end": lambda: clips_view(core, OWNER, "", False, 900, 48),
        "search": lambda: clips_view(core, OWNER, "red 17", False, 0, 48),
        "favourites of a guest": lambda: clips_view(core, GUEST, "clip", True, 0, 48),
        "/v1/videos": ok("/v1/videos?limit=100"),
        "/v1/videos after": ok(f"/v1/videos?limit=100&order=asc&after={last}"),
        "one job": ok(f"/v1/videos/{last}"),
        "submit": lambda: core.submit(small(), OWNER),
        "cost": lambda: core.cost(small(), OWNER),
        "move": lambda: core.queue.move(last, "up", None),
        "cancel": lambda: core.queue.cancel(core.submit(small(), OWNER)[0].id, None),
    }


def _p95(ask: Callable[[], Any], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - began)
    return float(np.percentile(seconds, 95))


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--jobs", type=int, default=10_000)
    p.add_argument("--clips", type=int, default=1000)
    p.add_argument("--rounds", type=int, default=40)
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="mova-crowd-") as folder:
        toll = campaign(Path(folder), args.jobs, args.clips, args.rounds)
    return verdict(toll, toll.faults)


if __name__ == "__main__":
    sys.exit(main())

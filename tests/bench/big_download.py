"""A model as big as the released ones through the model manager: is memory flat, and does progress tell the truth?

    python tests/bench/big_download.py --gb 60

The files are sparse on the hub's side, and the downloading process leaves holes where zeros arrive, so that they take
no room on this disk; every byte still crosses the network, is counted, and is hashed. Exits with 1 when memory grows
by more than 32 MB after the first 2 % or the progress is more than 32 MB away from what the hub has sent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from engine.downloads import Hub, Progress, Shelf
from engine.downloads.partial import PartFile, Writer
from tests.hub_server import REPOSITORY, Content, LocalHub, serving

ROOT = Path(__file__).resolve().parents[2]
SHARD = 4_900_000_000
MUCH = 32 * 2**20
SETTLED = 0.02  # of the download: by then all buffers exist


class HoleWriter(Writer):
    """Leaves a hole where zeros would be written."""

    zeros = bytes(2**21)

    def write(self, data: bytes) -> None:
        if data == self.zeros[: len(data)]:
            self._file.seek(len(data), os.SEEK_CUR)
            self.position += len(data)
            super().write(b"")
        else:
            super().write(data)


def downloading(url: str, data: Path) -> None:
    """The process that is measured; tells its progress as lines of JSON."""

    def writer(part: PartFile, start: int) -> Writer:
        if part.path.stat().st_size < part.size:
            os.truncate(part.path, part.size)
        return HoleWriter(part, start)

    def tell(progress: Progress) -> None:
        print(json.dumps(asdict(progress)), flush=True)

    PartFile.writer = writer  # type: ignore[method-assign]
    shelf = Shelf(data)
    with Hub(url) as hub:
        model = shelf.get(shelf.plan(REPOSITORY, hub), hub, tell)
    print(json.dumps({"folder": str(model.folder)}), flush=True)


@cache
def sha_of_zeros(size: int) -> str:
    sha, block = hashlib.sha256(), bytes(2**22)
    for _ in range(size // len(block)):
        sha.update(block)
    sha.update(bytes(size % len(block)))
    return sha.hexdigest()


def fill(server: LocalHub, folder: Path, size: int) -> None:
    """Shards as in the released layout, with small files between them, `size` bytes in all."""
    parts, number, left = ("video_dit", "video_dit_2", "text_encoder"), 0, size
    while left > 0:
        part = parts[number % len(parts)]
        length = min(SHARD, left)
        path = folder / f"shard-{length}"
        if not path.exists():
            path.touch()
            os.truncate(path, length)
        server.files[f"{part}/model-{number:05}.safetensors"] = Content.of(path, sha_of_zeros(length))
        for note in range(8):
            server.set(f"{part}/note-{number}-{note}.json", b'{"number": %d}' % (number * 8 + note))
        left, number = left - length, number + 1


def watch(process: subprocess.Popen[str], server: LocalHub) -> dict[str, Any]:
    """Follows a downloading process to its end."""
    measured = psutil.Process(process.pid)
    settled, memory, off, rates, wait = 0, 0, 0, [], 0.0
    began, told = time.monotonic(), {}
    assert process.stdout is not None
    for line in process.stdout:
        said = json.loads(line)
        if "done" not in said:
            told = said
            break
        off = max(off, abs(server.sent - said["done"]))
        rates.append((time.monotonic() - began, said["done"], said["seconds_left"]))
        resident = measured.memory_info().rss
        if said["done"] < SETTLED * said["total"]:
            settled = resident
        memory = max(memory, resident)
    seconds = time.monotonic() - began
    process.wait()
    # what was promised at a third of the way, against what it took from there
    at, _, promised = next(rate for rate in rates if rate[1] > said.get("total", server.size) / 3)
    wait = rates[-1][0] - at
    return {
        "bytes": rates[-1][1],
        "seconds": round(seconds),
        "settled_mb": round(settled / 2**20, 1),
        "most_mb": round(memory / 2**20, 1),
        "progress_off_mb": round(off / 2**20, 1),
        "promised_s": round(promised or 0),
        "took_s": round(wait),
        "sent_by_size": round(server.sent / rates[-1][1], 4),
        **told,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=60.0)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        downloading(options.child[0], Path(options.child[1]))
        return 0
    with tempfile.TemporaryDirectory() as folder, serving({"model_index.json": b"{}"}) as server:
        fill(server, Path(folder), int(options.gb * 1e9))
        command = [sys.executable, __file__, "--child", server.url, str(Path(folder) / "data")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, encoding="utf-8")
        found = watch(process, server)
    print(json.dumps(found, indent=1))
    flat = found["most_mb"] - found["settled_mb"] <= MUCH / 2**20
    return 0 if process.returncode == 0 and flat and found["progress_off_mb"] <= MUCH / 2**20 else 1


if __name__ == "__main__":
    sys.exit(main())

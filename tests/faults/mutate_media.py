"""Damaged videos by the thousand: `python -m tests.faults.mutate_media --count 2000`.

Each is a real clip with bytes changed, cut out, doubled or cut off, biased towards the headers. Reading one must end
within a bound, either with a clip or with a `MediaError`, and in no other way.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from engine.errors import MediaError
from engine.media import export_gif, export_webm, read_clip, write_clip
from tests.faults.damage import KINDS, damage

BOUND = 10.0  # seconds one pass over a damaged file may take
NUMBERS = (b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1")  # big endian
PASSES = 4  # probe, pictures, sound, settings


def seeds(folder: Path) -> list[bytes]:
    """One small clip each as mp4, webm and gif."""
    rng = np.random.default_rng(7)
    frames = np.repeat(rng.integers(0, 256, (6, 32, 48, 3), np.uint8), 2, axis=0)
    samples = (0.2 * rng.standard_normal(8000)).astype(np.float32)
    write_clip(folder / "seed.mp4", frames, samples, 24.0, 16_000, {"prompt": "a seed"}, sidecar=False)
    export_webm(folder / "seed.webm", folder / "seed.mp4")
    export_gif(folder / "seed.gif", folder / "seed.mp4")
    # mp4 twice as often: it is what people drop on the page
    return [(folder / f"seed.{kind}").read_bytes() for kind in ("mp4", "webm", "gif", "mp4")]


def header_bytes(data: bytes) -> range:
    """Where damage hurts most: mp4's moov is at the start (faststart), webm's and gif's headers too."""
    return range(min(len(data), 3000))


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to twelve damages of random kinds."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 13))):
        if len(out) < 16:
            break
        where = int(rng.choice(len(header_bytes(out)))) if rng.random() < 0.7 else int(rng.integers(len(out)))
        damage(out, where, rng, NUMBERS, 16, KINDS)
    return bytes(out)


def attempt(job: tuple[str, int]) -> tuple[str, float, str]:
    """Outcome ("clip", "refused" or "defect"), seconds and what was said, for one mutation."""
    folder, seed = job
    rng = np.random.default_rng(seed)
    originals = sorted(Path(folder).glob("*.seed"))
    path = Path(folder) / f"{seed}.mp4"
    path.write_bytes(mutated(originals[seed % len(originals)].read_bytes(), rng))
    started = time.monotonic()
    try:
        clip = read_clip(path, max_seconds=30, max_bytes=1 << 28, timeout=BOUND)
        sound = np.isfinite(clip.samples).all()
        outcome, said = ("clip", "") if clip.frames.dtype == np.uint8 and sound else ("defect", "not finite")
    except MediaError as error:
        outcome, said = "refused", str(error)
        if "\n" in said:
            outcome = "defect"
    except Exception as error:
        outcome, said = "defect", repr(error)
    seconds = time.monotonic() - started
    path.unlink()
    return outcome, seconds, said


def campaign(count: int, first: int = 0, workers: int = 2) -> dict[str, object]:
    """Read `count` damaged videos; figures of what happened."""
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds(Path(folder))):
            (Path(folder) / f"{number}.seed").write_bytes(data)
        jobs = [(folder, seed) for seed in range(first, first + count)]
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            results = pool.map(attempt, jobs, chunksize=4)
    outcomes = Counter(outcome for outcome, _, _ in results)
    seconds = sorted(taken for _, taken, _ in results)
    return {
        "count": count,
        "clips": outcomes["clip"],
        "refused": outcomes["refused"],
        "defects": [(first + i, said) for i, (outcome, _, said) in enumerate(results) if outcome == "defect"],
        "timed_out": sum("did not finish" in said for _, _, said in results),
        "median_s": round(seconds[len(seconds) // 2], 3),
        "slowest_s": round(seconds[-1], 3),
        "bound_s": BOUND * PASSES,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Read damaged videos and count how it ends.")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first mutation")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    figures = campaign(arguments.count, arguments.first, arguments.workers)
    print(json.dumps(figures, indent=2))
    return 1 if figures["defects"] else 0


if __name__ == "__main__":
    sys.exit(main())

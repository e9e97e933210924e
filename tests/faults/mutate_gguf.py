"""Damaged GGUF files by the thousand: `python -m tests.faults.mutate_gguf --count 2000`.

Each is the bundled model with bytes changed, cut out, doubled or cut off, mostly in its header. The process that loads
it may die; the caller may not: asking for a suggestion must end within a bound in a valid prompt, with the reason where
rules wrote it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from prompt_enhancer import EnhanceRequest, enhance
from prompt_enhancer.catalogue import BUNDLED_FILE
from prompt_enhancer.guarantees import verify
from prompt_enhancer.writer import Writer
from tests.faults.damage import KINDS, damage

BOUND = 40.0  # seconds for one file
HEADER = 40_000  # bytes of names, tokens and shapes before the weights
NUMBERS = (b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f", b"\1\0\0\0")  # little endian
SECONDS = 20.0  # that a model may take


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to eight damages of random kinds; in half of the files all bytes keep their places."""
    out = bytearray(data)
    kinds, most = (3, 3) if rng.random() < 0.5 else (KINDS, 8)
    for _ in range(int(rng.integers(1, most + 1))):
        place = rng.random()
        reach = 400 if place < 0.3 else HEADER if place < 0.8 else len(out)
        where = int(rng.integers(min(reach, len(out))))
        damage(out, where, rng, NUMBERS, 4, kinds)
    return bytes(out)


def attempt(folder: Path, data: bytes, seed: int) -> tuple[str, str]:
    """What came of one damaged file: (outcome, what the user is told)."""
    path = folder / "damaged.gguf"
    path.write_bytes(mutated(data, np.random.default_rng(seed)))
    request = EnhanceRequest('A red ball bounces. A man says "Hello."', model=str(path), seconds=SECONDS)
    writer = Writer(threads=1)
    began = time.monotonic()
    try:
        result = enhance(request, writer=writer)
    finally:
        writer.release()
    seconds = time.monotonic() - began
    if wrong := verify(result, request):
        return "defect", "; ".join(wrong)
    if seconds > BOUND:
        return "defect", f"took {seconds:.0f} s"
    if result.written_by != "rules":
        return "model", ""
    if not result.why_rules or "Traceback" in result.why_rules or len(result.why_rules) > 500:
        return "defect", f"says {result.why_rules!r}"
    kind = "died" if "process ended" in result.why_rules else "slow" if "too long" in result.why_rules else "told"
    return kind, result.why_rules


def campaign(count: int, seed: int, folder: Path, tell: bool = False) -> tuple[Counter[str], list[str]]:
    """Outcomes, and each defect with its number."""
    data = BUNDLED_FILE.read_bytes()
    outcomes: Counter[str] = Counter()
    defects = []
    for number in range(count):
        outcome, said = attempt(folder, data, seed * 1_000_000 + number)
        outcomes[outcome] += 1
        if tell and (number + 1) % 100 == 0:
            print(f"{number + 1} of {count}: {dict(outcomes)}", flush=True)
        if outcome == "defect":
            defects.append(f"{number}: {said}")
    return outcomes, defects


def main(argv: list[str] | None = None) -> int:
    """The campaign; exit code 1 where a file ended in anything but a prompt and a reason."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, defects = campaign(options.count, options.seed, Path(folder), tell=True)
    for one in defects[:20]:
        print(one)
    print(f"{options.count} files: {dict(outcomes)} in {time.monotonic() - began:.0f} s")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())

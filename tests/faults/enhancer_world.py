"""Ideas from the demo video model's own world through the bundled enhancer: `python -m tests.faults.enhancer_world`.

The ideas are held-out captions of that world, in sentence frames that neither model was trained on. The judge is the
reader of captions that the video model's own scores use: it must find in the prompt what it finds in the idea. The
sound must stay by name. A second look leaves the idea's words out and reads only what was added.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from dataclasses import asdict

import numpy as np

from engine.training.demo_world.captions import caption, parse_caption, vocabulary
from engine.training.demo_world.clip import sample_spec
from engine.training.demo_world.words import FAMILY_WORDS
from prompt_enhancer import EnhancedPrompt, EnhanceRequest, enhance, release

KEPT = ("family", "colour", "size", "tempo", "background")


def ideas(count: int, seed: int) -> list[tuple[str, str]]:
    """(idea, family) of held-out captions."""
    rng = np.random.default_rng(seed)
    specs = [sample_spec(rng) for _ in range(count)]
    return [(caption(spec, rng, held_out=True), spec.family) for spec in specs]


def lost(idea: str, family: str, result: EnhancedPrompt) -> list[str]:
    """Which of the idea's facts the prompt does not hold, or holds otherwise."""
    asked, got = asdict(parse_caption(idea)), asdict(parse_caption(result.text))
    wrong = [name for name in KEPT if asked[name] is not None and asked[name] != got[name]]
    sounds = [sound for sound in FAMILY_WORDS[family].sounds if sound.lower() in idea.lower()]
    if sounds and max(sounds, key=len).lower() not in result.text.lower():
        wrong.append("sound")
    added = asdict(parse_caption(" ".join(result.added)))
    return wrong + [
        f"added {name}" for name in KEPT if added[name] is not None and asked[name] not in (None, added[name])
    ]


def unknown_words(result: EnhancedPrompt) -> set[str]:
    """Words that were added and that the demo video model has never read."""
    return set(re.findall(r"[a-z]+", " ".join(result.added).lower())) - set(vocabulary())


def campaign(count: int, seed: int = 11) -> tuple[Counter[str], Counter[str], list[str], float]:
    """(what was lost, who wrote, lines about each loss, seconds)."""
    losses: Counter[str] = Counter()
    writers: Counter[str] = Counter()
    lines, began = [], time.monotonic()
    for idea, family in ideas(count, seed):
        result = enhance(EnhanceRequest(idea))
        writers[result.written_by if not result.why_rules else f"rules: {result.why_rules}"] += 1
        if result.written_by == "demo" and (strange := unknown_words(result)):
            lines.append(f"unknown to the video model: {sorted(strange)}")
        wrong = lost(idea, family, result)
        losses["all kept" if not wrong else "something lost"] += 1
        for one in wrong:
            losses[one] += 1
            lines.append(f"{one}: {idea!r} -> {result.text!r}")
    release()
    return losses, writers, lines, time.monotonic() - began


def main(argv: list[str] | None = None) -> int:
    """The campaign; exit code 1 below 98 %."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args(argv)
    losses, writers, lines, seconds = campaign(options.count)
    for line, times in Counter(lines).most_common(30):
        print(f"{times} x {line}")
    share = losses["all kept"] / options.count
    print(f"{options.count} ideas: {share:.1%} kept all; {dict(losses)}; written by {dict(writers)}; {seconds:.0f} s")
    return 0 if share >= 0.98 else 1


if __name__ == "__main__":
    sys.exit(main())

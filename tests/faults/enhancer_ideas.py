"""Two hundred ideas by hand through the bundled model: `python -m tests.faults.enhancer_ideas`.

tests/data/enhancer/ideas.json holds ideas that training never saw, each with what is said in it. The checks here share
no code with the enhancer: they look at the finished text as a stranger would.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

from prompt_enhancer import EnhancedPrompt, EnhanceRequest, enhance, release

IDEAS = Path(__file__).resolve().parents[1] / "data" / "enhancer" / "ideas.json"
ANY_QUOTE = re.compile('["\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d\u300e\u300f]')
STILLNESS = re.compile(r"\b(motionless|stationary|(stands?|standing|perfectly) still|frozen in)\b", re.IGNORECASE)


def all_ideas() -> list[dict]:
    """Each with idea, speech and triggers."""
    return json.loads(IDEAS.read_text(encoding="utf-8"))


def faults(one: dict, result: EnhancedPrompt) -> list[str]:
    """What is wrong with a result, as its reader would see it."""
    wrong = []
    text = result.text
    parts = text.split("\n\n")
    kinds = [paragraph.kind for paragraph in result.paragraphs]
    if not text.startswith("This video has no subtitles. ") or text.count("This video has no subtitles.") != 1:
        wrong.append("structure: first line")
    if len(parts) < 3 or len(parts) != len(kinds) or kinds[0] != "opening" or kinds[-1] != "sound":
        wrong.append(f"structure: {kinds}")
    if len(text.split()) > 250:
        wrong.append(f"structure: {len(text.split())} words")
    if list(result.speech) != one["speech"]:
        wrong.append(f"speech: {list(result.speech)}")
    at, rest = 0, ""
    for said in one["speech"]:
        found = text.find(f'"{said}"', at)
        if found < 0:
            wrong.append(f"speech lost: {said}")
            continue
        rest += text[at:found]
        at = found + len(said) + 2
    rest += text[at:]
    if ANY_QUOTE.search(re.sub(r"\d\u2033", "", rest)):
        wrong.append("speech invented")
    wrong += [f"trigger lost: {word}" for word in one["triggers"] if word not in text]
    if STILLNESS.search(rest):
        wrong.append("implies stillness")
    return wrong + [f"lost {word!r}" for word in words_to_keep(one["idea"]) if word not in text]


def words_to_keep(idea: str) -> list[str]:
    """Numbers and names of a short idea; a long one may lose its end."""
    if len(idea.split()) > 80:
        return []
    names = re.findall(r"(?<=[a-z,] )[A-Z][^\W\d_]+", idea)
    return re.findall(r"\d+", idea) + names


def main(argv: list[str] | None = None) -> int:
    """All ideas; exit code 1 where one is not kept whole."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--show", action="store_true", help="print every prompt")
    options = parser.parse_args(argv)
    writers: Counter[str] = Counter()
    bad, seconds, tokens = [], [], 0
    for one in all_ideas():
        began = time.monotonic()
        result = enhance(EnhanceRequest(one["idea"], trigger_words=tuple(one["triggers"])))
        seconds.append(time.monotonic() - began)
        tokens += result.tokens
        writers[result.written_by if not result.why_rules else f"rules: {result.why_rules}"] += 1
        if wrong := faults(one, result):
            bad.append((one["idea"], wrong))
        if options.show:
            print(f"[{result.written_by}] {result.text}\n    refused: {result.refused}\n")
    release()
    for idea, wrong in bad:
        print(f"NOT KEPT {idea[:70]!r}: {'; '.join(wrong)}")
    middle = sorted(seconds)[len(seconds) // 2]
    print(f"{len(seconds) - len(bad)} of {len(seconds)} kept; written by {dict(writers)}")
    print(f"median {middle:.2f} s, longest {max(seconds):.2f} s, {tokens} tokens in {sum(seconds):.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

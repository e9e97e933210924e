"""`python launch.py enhance "idea"`: the enhancer on the command line.

Exit codes: 0, 2 for an idea, picture or model that cannot be used, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from prompt_enhancer.catalogue import BUNDLED, RECOMMENDED, damage, installed, models_folder
from prompt_enhancer.enhance import enhance, release
from prompt_enhancer.request import LANGUAGES, MAX_WORDS, EnhancedPrompt, EnhanceRequest, EnhancerError
from prompt_enhancer.writer import missing


def parser() -> argparse.ArgumentParser:
    """All options."""
    parsing = argparse.ArgumentParser(
        prog="launch.py enhance",
        description="Turns an idea into the prompt that MOVA likes. Speech in quotes stays word for word.",
    )
    parsing.add_argument("idea", nargs="?", help='what is seen and heard; "-" reads it from standard input')
    parsing.add_argument("--image", type=Path, help="the first frame: PNG, JPEG or WebP")
    parsing.add_argument("--describe", default="", metavar="TEXT", help="what is in the first frame, in your words")
    parsing.add_argument("--trigger", action="append", default=[], metavar="WORD", help="a LoRA's word; repeatable")
    parsing.add_argument("--style", default="", help="a look, such as watercolour")
    parsing.add_argument("--language", default="auto", choices=LANGUAGES, help="of the words that are added")
    parsing.add_argument("--length", type=int, default=MAX_WORDS, help="words at most (default: %(default)s)")
    parsing.add_argument("--model", help='a name from --models, a .gguf file, or "rules"')
    parsing.add_argument("--vision", help='the model that describes the image: a name, a .gguf file, or "off"')
    parsing.add_argument("--seed", type=int, default=0, help="another number, another suggestion")
    parsing.add_argument("--seconds", type=float, default=60.0, help="for the model at most (default: %(default)s)")
    parsing.add_argument("--json", action="store_true", help="everything that is known of the result, as JSON")
    parsing.add_argument("--models", action="store_true", help="list the language models and end")
    return parsing


def main(argv: Sequence[str] | None = None) -> int:
    """One suggestion; the prompt on standard output, remarks on standard error."""
    parsing = parser()
    options = parsing.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if options.models:
        sys.stdout.write(listed())
        return 0
    if options.idea is None:
        parsing.error('an idea is missing, for instance: "A red ball bounces slowly."')
    idea = sys.stdin.read() if options.idea == "-" else options.idea
    if not idea.strip() and options.image is None and not options.describe:
        sys.stderr.write('the idea is empty; say what is seen and heard, for instance: "A red ball bounces slowly."\n')
        return 2
    request = EnhanceRequest(
        idea,
        image=options.image,
        image_description=options.describe,
        trigger_words=tuple(options.trigger),
        language=options.language,
        style=options.style,
        length=options.length,
        model=options.model,
        vision=options.vision,
        seed=options.seed,
        seconds=options.seconds,
    )
    try:
        result = enhance(request)
    except EnhancerError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        release()
    sys.stdout.write(json.dumps(asdict(result), ensure_ascii=False, indent=1) + "\n" if options.json else shown(result))
    if not options.json:
        sys.stderr.write(remarks(result))
    return 0


def shown(result: EnhancedPrompt) -> str:
    """The prompt as it is."""
    return result.text + "\n"


def remarks(result: EnhancedPrompt) -> str:
    """Who wrote it, and what was left out."""
    lines = [f"written by {result.written_by} in {result.seconds:.1f} s"]
    if result.why_rules:
        lines.append(f"by rules, because {result.why_rules}")
    lines += [f"left out: {one}" for one in result.refused]
    return "\n" + "".join(f"{line}\n" for line in lines)


def listed() -> str:
    """The models that are there and those that can be had; of the bundled one, whether it is whole."""
    there = installed()
    lines = [f"{name:<14} installed  {chosen.path}" for name, chosen in there.items()]
    if BUNDLED.name in there and (reason := damage(BUNDLED)):
        lines.append(f"{BUNDLED.name:<14} damaged    {reason}")
    if BUNDLED.name not in there:
        lines.append(f"{BUNDLED.name:<14} missing    it should lie in this program's assets folder")
    for known in RECOMMENDED:
        if known.name not in there:
            lines.append(f"{known.name:<14} {known.size / 1e9:.1f} GB     {known.licence}, {known.page}")
    lines.append(f"Any .gguf file in {models_folder()} can be chosen, too.")
    if reason := missing():
        lines.append(reason)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

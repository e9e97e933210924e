"""`python launch.py generate`: the engine's command, with the prompt enhancer before it where that is wanted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine import cli
from prompt_enhancer import EnhanceRequest, EnhancerError, enhance, release
from prompt_enhancer.cli import remarks, shown


def parser() -> cli.Parser:
    """The engine's options and --enhance."""
    parsing = cli.parser()
    parsing.add_argument(
        "--enhance",
        nargs="?",
        const="",
        metavar="MODEL",
        help='write the prompt out first; a model of the enhancer, a .gguf file, or "rules"',
    )
    return parsing


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code. What was written for the prompt is told on standard error."""
    args = parser().parse_args(argv)
    if args.enhance is not None and args.prompt.strip():  # the engine tells of an empty one
        try:
            args.prompt = written(args)
        except EnhancerError as error:
            print("generate: " + " ".join(str(error).split()), file=sys.stderr)
            return cli.EXIT_WRONG
        except KeyboardInterrupt:
            print("generate: stopped; nothing was written", file=sys.stderr)
            return cli.EXIT_STOPPED
    return cli.run(args)


def written(args: argparse.Namespace) -> str:
    """The prompt that the enhancer makes of the idea in ``args.prompt``."""
    image = Path(args.image) if args.image else None
    try:
        result = enhance(EnhanceRequest(args.prompt, image=image, model=args.enhance or None))
    finally:
        release()  # the engine may need the memory
    sys.stderr.write(shown(result) + remarks(result))
    return result.text


if __name__ == "__main__":
    sys.exit(main())

"""``python launch.py evaluate``: make clips with a model, judge them, show the figures.

    python launch.py evaluate --model demo
    python launch.py evaluate --model demo --mode text image --clips 300
    python launch.py evaluate --model demo --mode sound picture --families ball drop
    python launch.py evaluate --model demo --bridge 0        the bridge between sound and picture off
    python launch.py evaluate --model rendered               the judges on ground truth

Prints a table for each mode and writes scores-MODE.json and sheet-MODE.png into the output folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engine.errors import MovaError
from engine.evaluation.runs import (
    MODES,
    Options,
    Trial,
    given_trials,
    held_out_trials,
    make_clips,
    make_clips_side_by_side,
    rendered_clips,
)
from engine.evaluation.scores import Clip, score_clips, table, to_json
from engine.evaluation.sheet import contact_sheet
from engine.folders import find_model
from engine.profile import ModelProfile, read_profile
from engine.training.demo_world import FAMILIES

RENDERED = "rendered"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py evaluate", description="Score clips that a model makes.")
    parser.add_argument("--model", default="demo", help=f"name of a bundled model, a folder, or {RENDERED!r}")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=["text"], help="what the model is given")
    parser.add_argument("--clips", type=int, default=48, help="clips in each mode")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument(
        "--prompts", type=Path, help="a text file with a caption on each line, instead of held-out ones"
    )
    parser.add_argument("--seeds", type=int, default=1, help="clips for each line of --prompts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--height", type=int, help="pixels; this and what follows: the model's own where not given")
    parser.add_argument("--width", type=int, help="pixels")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--fps", type=float)
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--guidance", type=float, help="text guidance")
    parser.add_argument("--sound-steps", type=int, default=1, help="parts in which the sound takes each step")
    parser.add_argument("--bridge-guidance", type=float, default=1.0, help="guidance by the bridge; 1 is off")
    parser.add_argument("--a2v", type=float, default=1.0, help="strength of sound to picture; 0 is off")
    parser.add_argument("--v2a", type=float, default=1.0, help="strength of picture to sound; 0 is off")
    parser.add_argument("--threads", type=int, help="CPU threads of one process")
    parser.add_argument("--processes", type=int, default=1, help="clips made at once, on a CPU thread each")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder for scores and sheets")
    parser.add_argument("--sheet", type=int, default=12, help="clips on each contact sheet")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        evaluate(options)
    except (MovaError, ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def evaluate(options: argparse.Namespace) -> None:
    """Every mode in turn: clips, table, JSON and sheet."""
    trials = _trials(options)
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    folder = None if options.model == RENDERED else find_model(options.model)
    pipe = _pipeline(folder) if folder is not None and options.processes == 1 else None
    options.out.mkdir(parents=True, exist_ok=True)
    for mode in options.mode:
        settings = _settings(options, mode, folder)
        began = time.monotonic()
        made: Iterable[Clip]
        if folder is None:
            made = rendered_clips(trials, settings)
        elif pipe is None:
            made = make_clips_side_by_side(folder, trials, settings, options.processes, _count(trials))
        else:
            made = make_clips(pipe, trials, settings, _count(trials))
        clips = list(made)
        seconds = time.monotonic() - began
        scores = score_clips(clips)
        name = mode + "".join(f"-{way}-{s:g}" for way, s in (("a2v", options.a2v), ("v2a", options.v2a)) if s != 1.0)
        name += "" if options.sound_steps == 1 else f"-sound-{options.sound_steps}"
        name += "" if options.bridge_guidance == 1.0 else f"-guided-{options.bridge_guidance:g}"
        about = {"model": options.model, **vars(settings), "seconds_per_clip": round(seconds / len(clips), 2)}
        _write(options.out / f"scores-{name}.json", to_json(scores, **about).encode())
        spread = _spread(len(clips), options.sheet)
        sheet = contact_sheet([clips[i] for i in spread], [scores.clips[i] for i in spread])
        sheet.save(options.out / f"sheet-{name}.png", optimize=True)
        print(f"\n{options.model}, {name}: {len(clips)} clips, {seconds / len(clips):.2f} s each")
        print(table(scores))
    print(f"\nwritten to {options.out}")


def _trials(options: argparse.Namespace) -> list[Trial]:
    if options.clips < 1 or options.seeds < 1:
        raise ValueError("at least one clip and one seed are needed")
    if options.prompts is None:
        return held_out_trials(options.clips, options.seed, options.families)
    lines = [line.strip() for line in options.prompts.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ValueError(f"{options.prompts} holds no caption")
    return given_trials(lines, options.seeds, options.seed)


def _settings(options: argparse.Namespace, mode: str, folder: Path | None) -> Options:
    """What was asked for, and where nothing was, what the model prefers."""
    profile = ModelProfile(sizes=((96, 96),), frames=49) if folder is None else read_profile(folder)
    width, height = profile.sizes[0]
    return Options(
        mode=mode,
        height=options.height or height,
        width=options.width or width,
        frames=options.frames or profile.frames,
        fps=options.fps or profile.fps,
        steps=options.steps or profile.steps,
        guidance=profile.guidance if options.guidance is None else options.guidance,
        a2v=options.a2v,
        v2a=options.v2a,
        bridge_guidance=options.bridge_guidance,
        sound_steps=options.sound_steps,
    )


def _pipeline(folder: Path) -> Any:
    from engine import MovaPipeline  # late: a wrong name is told at once

    return MovaPipeline.from_pretrained(folder)


def _count(trials: list[Trial]) -> Callable[[int], None] | None:
    """A counter on the terminal, and nothing where output goes to a file."""
    if not sys.stderr.isatty():
        return None

    def show(done: int) -> None:
        print(f"\rclip {done} of {len(trials)}", end="" if done < len(trials) else "\n", file=sys.stderr, flush=True)

    return show


def _spread(count: int, most: int) -> list[int]:
    """Evenly chosen rows for the sheet, so that all families are on it."""
    return sorted({int(step * count / min(count, most)) for step in range(min(count, most))})


def _write(path: Path, data: bytes) -> None:
    """All of the file or nothing of it."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())

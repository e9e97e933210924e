"""What the two guidances and the two strengths of the bridge do to a model's clips, side by side.

    python -m tests.campaigns.guidance_table --clips 48 --steps 12 --processes 4

The same captions and seeds in every row. Prints a table in markdown and writes the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from engine.evaluation.runs import Options, held_out_trials, make_clips_side_by_side
from engine.evaluation.scores import score_clips
from engine.folders import find_model
from engine.profile import read_profile

SETTINGS: tuple[tuple[str, float | None, float, float, float], ...] = (
    ("defaults", None, 1.0, 1.0, 1.0),
    ("no text guidance", 1.0, 1.0, 1.0, 1.0),
    ("more text guidance", 4.0, 1.0, 1.0, 1.0),
    ("bridge guided", None, 1.5, 1.0, 1.0),
    ("bridge guided more", None, 2.5, 1.0, 1.0),
    ("sound heeds the picture half", None, 1.0, 1.0, 0.5),
    ("sound does not heed the picture", None, 1.0, 1.0, 0.0),
    ("picture heeds the sound half", None, 1.0, 0.5, 1.0),
    ("picture does not heed the sound", None, 1.0, 0.0, 1.0),
    ("no bridge", None, 1.0, 0.0, 0.0),
)
SHOWN = ("object", "tempo", "sound", "found", "sync", "shuffled")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clips", type=int, default=48, help="in every row")
    parser.add_argument("--steps", type=int, help="the model's own where not given")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("evaluation/guidance.json"))
    args = parser.parse_args()
    folder = find_model(args.model)
    profile = read_profile(folder)
    width, height = profile.sizes[0]
    common = Options(
        height=height, width=width, frames=profile.frames, fps=profile.fps, steps=args.steps or profile.steps
    )
    trials = held_out_trials(args.clips, args.seed)
    figures: dict[str, dict[str, float | None]] = {}
    print("| | text | bridge | a2v | v2a | " + " | ".join(SHOWN) + " |\n|" + "---|" * (5 + len(SHOWN)), flush=True)
    for name, guidance, bridge, a2v, v2a in SETTINGS:
        text = profile.guidance if guidance is None else guidance
        options = replace(common, guidance=text, bridge_guidance=bridge, a2v=a2v, v2a=v2a)
        scores = score_clips(make_clips_side_by_side(folder, trials, options, args.processes)).overall
        figures[name] = {shown: getattr(scores, shown) for shown in SHOWN}
        cells = [f"{text:g}", f"{bridge:g}", f"{a2v:g}", f"{v2a:g}"]
        cells += ["-" if value is None else f"{value:.2f}" for value in figures[name].values()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

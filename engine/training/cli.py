"""``python launch.py train``: a LoRA of one's own clips, or the demo model from nothing, stage by stage.

    python launch.py train lora --data CLIPS --name NAME --trigger WORD

    python launch.py train demo --all                    everything, from where it was left
    python launch.py train demo --stage towers --until 2000
    python launch.py train demo --stage export --out FOLDER
    python launch.py train demo --all --from assets/models/demo    goes on from the bundled model

Ctrl-C ends a stage with a checkpoint; the same command goes on from there. `accelerate launch -m engine.training.cli`
runs the same stages on several devices.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from engine.errors import MovaError

OUT = Path(__file__).parents[2] / "assets" / "models" / "demo"


def build_parser() -> argparse.ArgumentParser:
    from engine.training.demo import STAGES
    from engine.training.lora.cli import add_parser as add_lora
    from engine.training.recipe import RECIPES

    parser = argparse.ArgumentParser(prog="launch.py train", description="Train a model.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="the bundled demo model, from nothing")
    what = demo.add_mutually_exclusive_group(required=True)
    what.add_argument("--stage", choices=STAGES, help="one stage")
    what.add_argument("--all", action="store_true", help="all stages in turn")
    demo.add_argument("--recipe", type=Path, default=RECIPES / "demo.toml", help="TOML file (default: the shipped one)")
    demo.add_argument("--work", type=Path, default=Path("runs/demo"), help="folder for data, checkpoints and logs")
    demo.add_argument("--out", type=Path, default=OUT, help="where export writes the model")
    demo.add_argument(
        "--from",
        dest="model",
        type=Path,
        metavar="MODEL",
        help="go on from a finished model: its weights stand for stages without a checkpoint",
    )
    demo.add_argument("--until", type=int, help="end the stage at this step, with a checkpoint")
    demo.add_argument("--device", choices=("auto", "cpu"), default="auto")
    demo.add_argument("--threads", type=int, help="CPU threads, and processes that render")
    demo.add_argument("--compile", action="store_true", help="compile what is trained; needs a C++ compiler")
    add_lora(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        {"demo": _train_demo, "lora": _train_lora}[options.command](options)
    except (MovaError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"{stopped or 'stopped'}; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _train_demo(options: argparse.Namespace) -> None:
    import torch

    from engine.training.adopt import adopt
    from engine.training.demo import STAGES, DemoRun
    from engine.training.loop import keep_memory
    from engine.training.recipe import read_recipe

    keep_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    run = DemoRun(read_recipe(options.recipe), options.work, options.device, options.threads or 1, options.compile)
    if options.model is not None:
        adopt(run, options.model)
    for stage in STAGES if options.all else (options.stage,):
        logging.getLogger(__name__).info("stage %s", stage)
        run.run(stage, options.out, options.until)


def _train_lora(options: argparse.Namespace) -> None:
    from engine.training.lora.cli import run

    run(options)


if __name__ == "__main__":
    sys.exit(main())

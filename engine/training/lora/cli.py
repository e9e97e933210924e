"""`python launch.py train lora`: a LoRA of one's own clips.

python launch.py train lora --data CLIPS --name zorb --trigger zorb
python launch.py train lora --data CLIPS --name zorb --trigger zorb        goes on after Ctrl-C or a crash
accelerate launch -m engine.training.cli lora --data CLIPS --name zorb     on several devices
"""

from __future__ import annotations

import argparse
import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import RequestError
from engine.training.lora.settings import FROZEN, IN_PARTS, LEARN, MODULES, OPTIMIZERS, PRECISIONS, LoraSettings

if TYPE_CHECKING:
    from engine.training.lora.run import LoraOrder

HELP = {
    "trigger": "a made-up word that calls the new thing; put in front of captions that lack it",
    "learn": "what learns: the picture, the sound, or both",
    "modules": "attention: a smaller file, for style and looks; all: also for new things",
    "rank": "how much can be learned; twice the rank is twice the file",
    "alpha": "how loudly it speaks while it learns; the rank where not given",
    "steps": "how long",
    "batch": "clips that a step looks at",
    "rate": "how fast; chosen by the model's width where not given; half of it if the picture breaks up",
    "bridge_scale": "how much faster the bridge learns than the towers",
    "warmup": "steps in which the rate climbs",
    "decay": "weight decay",
    "audio_weight": "of the sound's loss; the picture's is 1",
    "text_drop": "share of samples without words",
    "picture_drop": "share of samples without a first picture",
    "equal": "share of samples with both sides at one noise level",
    "keep": "share of all samples spent on not forgetting; needs --keep-prompts",
    "keep_weight": "how much the error of those samples counts",
    "keep_clips": "of how many of its lines a clip is made, so that there is something to show their words with",
    "ema": "how much of the averaged factors stays at each step; 0 writes the last ones",
    "seed": "same seed, same LoRA",
    "save_every": "steps between two checkpoints",
    "sample_every": "steps between two samples; 0 for none",
    "precision": "float32 or bfloat16; auto takes what the device is good at",
    "accumulate": "parts of a batch computed one after the other, for less memory; 0 chooses",
    "frozen": "how the frozen model is held: exact, int8, or auto (8 bits only where it does not fit otherwise)",
    "in_parts": "compute blocks some tokens at a time, for less memory: yes, no, or auto (where needed)",
    "optimizer": "adamw, adamw8bit (moments in 8 bits, needs bitsandbytes), or auto (8 bits on a card that has it)",
}
SHARD = ("auto", "no", "yes")
CHOICES = {
    "learn": tuple(LEARN),
    "modules": tuple(MODULES),
    "precision": PRECISIONS,
    "frozen": FROZEN,
    "in_parts": IN_PARTS,
    "optimizer": OPTIMIZERS,
}


def add_parser(commands: Any) -> None:
    """Adds the `lora` command to `train`."""
    parser: argparse.ArgumentParser = commands.add_parser("lora", help="a LoRA of your own clips")
    parser.add_argument("--data", type=Path, required=True, help="folder of videos, captions (NAME.txt) beside them")
    parser.add_argument("--name", required=True, help="what it is called")
    parser.add_argument("--base", help="name or folder of the model; the bundled one where not given")
    parser.add_argument("--work", type=Path, help="the run's folder; among the user's data where not given")
    parser.add_argument("--library", type=Path, help="the LoRA folder; the user's own where not given")
    parser.add_argument("--no-library", action="store_true", help="leave the result in the run's folder")
    parser.add_argument("--size", help="WIDTHxHEIGHT; the model's own where not given")
    parser.add_argument("--frames", type=int, help="length of the clips; the model's own where not given")
    parser.add_argument("--keep-prompts", type=Path, help="text file: what the model shall not forget, a line each")
    parser.add_argument("--sample-prompt", action="append", default=[], help="looked at while it trains; repeatable")
    parser.add_argument("--until", type=int, help="stop at this step, with a checkpoint")
    parser.add_argument("--finish", action="store_true", help="train no more: write what the last checkpoint learned")
    parser.add_argument("--plan", action="store_true", help="say what a step takes here, as JSON, and train nothing")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--memory", type=float, help="GB of the card to count on; all that is free where not given")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument(
        "--shard", choices=SHARD, default="auto",
        help="with several processes, each holds a share of the frozen model; auto: where it does not fit otherwise",
    )  # fmt: skip
    for setting in fields(LoraSettings):
        default = None if setting.default is MISSING else setting.default
        name = "--" + setting.name.replace("_", "-")
        kind: Any = float if default is None else type(default)
        parser.add_argument(
            name, dest=f"set_{setting.name}", type=kind, default=default, choices=CHOICES.get(setting.name),
            help=f"{HELP[setting.name]} (default: {'auto' if default is None else default or 'none'})",
        )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Trains, and prints where the result is; or with --plan what it would take."""
    import torch

    from engine.folders import find_model
    from engine.lora.library import Library
    from engine.training.lora.run import LoraOrder, train_lora

    if options.threads:
        torch.set_num_threads(options.threads)
    settings = LoraSettings(**{f.name: getattr(options, f"set_{f.name}") for f in fields(LoraSettings)})
    order = LoraOrder(
        data=options.data.expanduser(),
        model=find_model(options.base),
        name=options.name,
        settings=settings,
        work=options.work,
        size=_size(options.size),
        frames=options.frames,
        old_prompts=read_prompts(options.keep_prompts),
        sample_prompts=tuple(options.sample_prompt),
        device=options.device,
        memory=options.memory,
        shard=options.shard,
    )
    if options.plan:
        print(json.dumps(_plan(order)))
        return
    library = None if options.no_library else Library(options.library)
    done = train_lora(order, library, options.until, finish=options.finish)
    if done is not None:
        print(done.entry.path if done.entry else done.path)


def _plan(order: LoraOrder) -> dict[str, Any]:
    """{"why": a sentence on memory, "fits": whether there is enough, "step_seconds": by calculation or None}."""
    from engine.device import choose_device
    from engine.training.lora.choose import plan_training

    device = choose_device(order.device)
    way = plan_training(order, device)
    if way is None:
        return {"why": f"the model stands in the memory of {device.type}", "fits": True, "step_seconds": None}
    return {"why": way.why, "fits": way.base.fits, "step_seconds": way.base.seconds}


def read_prompts(path: Path | None) -> tuple[str, ...]:
    """The lines of a text file that are not empty."""
    if path is None:
        return ()
    try:
        lines = path.expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path.name} cannot be read as text") from error
    return tuple(line.strip() for line in lines if line.strip())


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and len(text) < 12):
        raise RequestError(f"size {text[:40]!r} is not WIDTHxHEIGHT, for instance 640x352")
    return int(width), int(height)

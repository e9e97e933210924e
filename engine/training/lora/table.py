"""What training a LoRA of the released model takes, by calculation: `python -m engine.training.lora.table`.

Prints the planner's choice for cards of several sizes, and what its figure for the card consists of, for docs/lora.md.
"""

from __future__ import annotations

import json
import sys

import torch

from engine.lora.keys import AUDIO, BRIDGE, HIGH, LOW
from engine.memory.machine import GIB
from engine.memory.plan import BASE_DEVICE
from engine.memory.sizes import RELEASED, Work
from engine.memory.table import machine
from engine.models import AudioTower, Bridge, VideoTower
from engine.training.lora.memory import (
    MIXED,
    Load,
    Shapes,
    TrainPlan,
    account,
    factor_bytes,
    load_from,
    make_train_plan,
    start,
    working,
)
from engine.training.lora.settings import LoraSettings

TOWER = {"text_dim": 4096, "freq_dim": 256, "eps": 1e-6}
VIDEO = {**TOWER, "dim": 5120, "in_dim": 36, "ffn_dim": 13824, "out_dim": 16, "patch_size": [1, 2, 2], "num_heads": 40,
         "num_layers": 40}  # fmt: skip
AUDIO_TOWER = {**TOWER, "dim": 1536, "in_dim": 128, "ffn_dim": 8960, "out_dim": 128, "patch_size": [1],
               "num_heads": 12, "num_layers": 30}  # fmt: skip
BRIDGES = {"visual_layers": 40, "audio_layers": 30, "visual_hidden_dim": 5120, "audio_hidden_dim": 1536,
           "audio_fps": 50.0, "head_dim": 128}  # fmt: skip
CONFIGS = json.dumps([VIDEO, AUDIO_TOWER, BRIDGES])
VRAM, RAM = (12, 16, 24, 48, 80), (32, 64)  # GB
SECONDS = {8: 193, 5: 121, 2: 49}  # frames


def shapes() -> dict[str, Shapes]:
    """Of all parts of the released model."""
    with torch.device("meta"):
        video, audio, bridge = VideoTower(**VIDEO), AudioTower(**AUDIO_TOWER), Bridge(**BRIDGES)
    parts = {HIGH: video, LOW: video, AUDIO: audio, BRIDGE: bridge}
    return {part: {n: tuple(p.shape) for n, p in tower.named_parameters()} for part, tower in parts.items()}


def load_for(frames: int, settings: LoraSettings) -> Load:
    """Clips of so many frames at 360p, on a card."""
    return load_from(CONFIGS, shapes(), RELEASED, Work(640, 352, frames, passes=1), settings, 1, False, "bfloat16")


def row(vram: int, ram: int, load: Load, settings: LoraSettings) -> str:
    """A line of the table: the planner's choice for a card and a main memory."""
    way = make_train_plan(machine(vram, ram), RELEASED, load, settings, "cuda", "bfloat16")
    base = way.base
    if not base.fits:
        return f"| {vram} GB | {ram} GB | {base.vram / GIB:.1f} GB | {base.ram / GIB:.0f} GB | - | does not fit |"
    how = ["8 bits"] if base.weights != base.dtype else []
    how += [f"{base.residents} of {RELEASED.layers} layers stay"] if base.experts == "host" else ["all on the card"]
    how += ["the others from files"] if base.mapped else []
    how += ["states in main memory"] if way.to_host else []
    how += ["in parts"] if way.in_parts else []
    how += [f"batch in {way.accumulate}"] if way.accumulate > 1 else []
    return (
        f"| {vram} GB | {ram} GB | {base.vram / GIB:.1f} GB | {base.ram / GIB:.0f} GB | {base.seconds:.0f} s | "
        f"{', '.join(how)} |"
    )


def consists(load: Load, way: TrainPlan) -> list[str]:
    """What the leanest figure for the card is made of, nothing resident."""
    states, made = working(RELEASED, load, way, 1)
    graph = load.parts if way.in_parts else int(MIXED * load.graph)
    factors = factor_bytes(load)[0]
    whole = account(machine(80, 128), RELEASED, load, way, mapped=True).base.vram
    figures = {
        "one block while its gradient is computed": graph,
        f"states between blocks, {states / GIB:.2f} GB each, and the text": made - graph,
        f"{load.factors / 1e6:.0f} million factors: value, gradient, moments, average": factors,
        f"slots for {way.base.ring} blocks, and the ends of the model": whole - BASE_DEVICE - factors - made,
        "libraries": BASE_DEVICE, "together": whole,
    }  # fmt: skip
    return [f"| {name} | {value / GIB:.1f} GB |" for name, value in figures.items()]


def main() -> int:
    """Prints all tables."""
    settings = LoraSettings()
    for seconds, frames in SECONDS.items():
        load = load_for(frames, settings)
        print(f"**360p {seconds} s** ({frames} frames), batch of {settings.batch}, rank {settings.rank}\n")
        print("| card | main memory | on the card | in main memory | a step | how |\n|---|---|---|---|---|---|")
        print("\n".join(row(vram, ram, load, settings) for vram in VRAM for ram in RAM), end="\n\n")
        for name, kept in (("whole, states on the card", (True, False, False)), ("in parts", (True, True, True))):
            way = start("cuda", "bfloat16", "bfloat16", "host", settings.batch, *kept)
            print(f"Blocks {name}; nothing resident:\n\n| part | size |\n|---|---|")
            print("\n".join(consists(load, way)), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One canonical LoRA in every maker's form gives the same clip: the model's own output, to 1e-5 in float32.

    python -m tests.campaigns.round_trip_lora --draws 200 --converted 10

Each draw has its own ranks, modules, blocks, alphas (absent, zero, there) and dtype, for one tower. It is written in
every form, read back, placed, attached and compared with the factors added to the weights by hand; every key of every
file must be in its report. `--converted` draws go through .pt files and the converter too.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from engine import MovaPipeline
from engine.lora import LoraStack, Strengths
from engine.lora.convert import convert
from engine.lora.fit import needs_tower
from engine.lora.formats import read_lora
from tests import lora_files as makers

MODEL = Path(__file__).parents[1] / "data" / "mova-tiny" / "checkpoint"
CLOSE = 1e-5
TOWER = {"high": "high", "low": "low", "audio": "sound"}
TIMESTEP = {"high": 950.0, "low": 300.0, "audio": 600.0}
FORMS: dict[str, Callable[[makers.Canonical, Path], None]] = {
    "native": makers.native, "kohya": makers.kohya, "diffusers": makers.diffusers, "peft": makers.peft_folder,
    "diffsynth": makers.diffsynth, "diffsynth-pipe": makers.diffsynth_pipe, "lightx2v": makers.lightx2v,
    "mova": makers.mova,
}  # fmt: skip
ARCHIVES: dict[str, Callable[[makers.Canonical, Path], None]] = {
    "mova-low-resource": makers.mova_low_resource, "mova-fsdp": makers.mova_fsdp,
}  # fmt: skip


def velocity_of(pipe: MovaPipeline, part: str) -> Tensor:
    """Both velocities of one evaluation by the expert that `part` acts on, as one row."""
    g = torch.Generator().manual_seed(5)
    c = pipe.high_noise.config
    z, n = c.video["out_dim"], c.audio["in_dim"]
    video, audio = torch.randn(1, z, 2, 4, 4, generator=g), torch.randn(1, n, 9, generator=g)
    condition = torch.randn(1, c.video["in_dim"] - z, 2, 4, 4, generator=g)
    text = torch.randn(1, 6, c.video["text_dim"], generator=g)
    return torch.cat([v.flatten() for v in pipe.velocity(video, audio, condition, text, TIMESTEP[part])])


@contextmanager
def by_hand(stack: LoraStack, lora: makers.Canonical) -> Iterator[None]:
    """Within the block the weights themselves hold scale * up @ down, summed in float64."""
    kept = {}
    for module, (down, up, _) in lora.pairs.items():
        layer = stack._places[lora.part, module].layer
        kept[module] = layer, layer.weight.data
        change = lora.scale(module) * (up.double() @ down.double())
        layer.weight.data = (layer.weight.double() + change.view(layer.weight.shape)).float()
    try:
        yield
    finally:
        for layer, weight in kept.values():
            layer.weight.data = weight


def distance(pipe: MovaPipeline, stack: LoraStack, path: Path, part: str, wanted: Tensor) -> float:
    """How far a file's output is from `wanted`, of its largest value."""
    file = read_lora(path)
    placed = stack.fit(file, TOWER[part] if needs_tower(file) else None)
    keys = {line.key for line in placed.report if line.status != "missing"}
    if keys != set(file.header.tensors):
        return float("inf")
    applied = stack.attach(placed, Strengths())
    found = velocity_of(pipe, part)
    stack.detach(applied.name)
    return float((found - wanted).abs().max() / wanted.abs().max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--converted", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # a line for every draw that leaves blocks out
    pipe = MovaPipeline.from_pretrained(MODEL)
    stack = LoraStack(pipe.high_noise, pipe.low_noise)
    worst: Counter[str] = Counter()
    moved, began = 0, time.monotonic()
    plain = {part: velocity_of(pipe, part) for part in TOWER}
    for draw in range(args.seed, args.seed + args.draws):
        part = ("high", "low", "audio")[draw % 3]
        lora = makers.draw(stack.shapes, draw, part, same_alpha=draw < args.seed + args.converted)
        lora.pairs = {m: (a * 0.3, b * 0.3, alpha) for m, (a, b, alpha) in lora.pairs.items()}
        with by_hand(stack, lora):
            wanted = velocity_of(pipe, part)
        moved += bool((wanted - plain[part]).abs().max() > 1e-4)
        with tempfile.TemporaryDirectory() as folder:
            for form, write in FORMS.items():
                path = Path(folder) / (form if form == "peft" else f"{form}.safetensors")
                write(lora, path)
                worst[form] = max(worst[form], distance(pipe, stack, path, part, wanted))
            for form, write in ARCHIVES.items() if draw < args.seed + args.converted else ():
                write(lora, Path(folder) / f"{form}.pt")
                alpha = next(iter(lora.pairs.values()))[2]
                done = convert(Path(folder) / f"{form}.pt", alpha=alpha if form == "mova-fsdp" and alpha else None)
                worst[form] = max(worst[form], distance(pipe, stack, done.path, part, wanted))
    for form, value in worst.items():
        print(f"{form:18} {value:.2e}")
    print(f"{args.draws} draws, {moved} of them change the output, {time.monotonic() - began:.0f} s")
    return 0 if max(worst.values()) <= CLOSE and moved > 0.9 * args.draws else 1


if __name__ == "__main__":
    sys.exit(main())

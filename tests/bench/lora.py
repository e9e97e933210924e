"""Steps of LoRA training at full size with random weights, by the planner's choice: seconds and peak against its word.

    python -m tests.bench.lora [--caps 24 16 12] [--size 640x352] [--frames 193] [--batch 4] [--steps 2] [--json]
    python -m tests.bench.lora --small             a network of the same build, on any machine

Needs no model folder and no clips. On a GPU the allocator is held to each cap, so that one large card stands for
smaller ones. Random weights lie in main memory once for each shape, so that blocks that a plan leaves in the model's
files stream from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import torch

from engine.device import choose_device
from engine.lora.apply import LoraStack, native_name
from engine.lora.keys import AUDIO, BRIDGE, HIGH, LOW
from engine.memory.carry import PlannedCarrier
from engine.memory.machine import GIB, detect
from engine.memory.sizes import RELEASED, ModelSizes, Work
from engine.models import AudioTower, Bridge, DualTower, VideoTower
from engine.models.towers import known_options
from engine.request import parse_size
from engine.training.lora.cache import Example
from engine.training.lora.memory import Load, Shapes, TrainPlan, load_from, make_train_plan
from engine.training.lora.settings import LoraSettings
from engine.training.lora.streamed import Frozen
from engine.training.lora.task import Levels, LoraObjective, LoraTask
from tests.bench.step import build, give_noise, small_sizes


def load_of(experts: tuple[DualTower, DualTower], sizes: ModelSizes, work: Work, settings: LoraSettings, device: str,
            dtype: str) -> Load:  # fmt: skip
    """What the planner is told, from networks instead of files."""
    config = experts[0].config
    kinds = ((VideoTower, config.video), (AudioTower, config.audio), (Bridge, config.bridge))
    configs = json.dumps([known_options(kind, dict(values)) for kind, values in kinds])
    shapes: dict[str, Shapes] = {part: {} for part in (HIGH, LOW, AUDIO, BRIDGE)}
    for expert, part in zip(experts, (HIGH, LOW), strict=True):
        for name, value in expert.named_parameters():
            module, _, leaf = name.rpartition(".")
            found = native_name(module, part)
            if found is not None:
                shapes[found[0]][f"{found[1]}.{leaf}"] = tuple(value.shape)
    return load_from(configs, shapes, sizes, work, settings, 1, device == "cpu", dtype)


def task_of(pipe: Any, sizes: ModelSizes, work: Work, settings: LoraSettings, device: torch.device) -> LoraTask:
    """One clip of noise with a text of noise."""
    config, generator = pipe.high_noise.config, torch.Generator().manual_seed(1)
    grid = work.frames // sizes.stride + 1, work.height // sizes.spatial, work.width // sizes.spatial
    inputs, channels = config.video["in_dim"], config.video["out_dim"]
    blank = torch.randn(inputs - channels, *grid, generator=generator)
    text = torch.randn(100, config.video["text_dim"], generator=generator)
    video = torch.randn(channels, *grid, generator=generator)
    audio = torch.randn(config.audio["in_dim"], work.tokens(sizes)[1], generator=generator)
    grown = LoraStack(pipe.high_noise, pipe.low_noise).grow(
        settings.rank, settings.scale_alpha, lambda part, module: settings.takes(module), settings.seed
    )
    rate = work.fps / sizes.stride
    objective = LoraObjective(pipe.high_noise, pipe.low_noise, grown, settings, rate).to(device)
    return LoraTask(objective, Levels(0.9, 5.0, 5.0, rate), [Example(video, audio, blank, text)], [], blank, text)


def measure(way: TrainPlan, sizes: ModelSizes, work: Work, settings: LoraSettings, steps: int,
            small: bool) -> dict[str, Any]:  # fmt: skip
    """Runs `steps` steps after a first one; seconds are the median."""
    device, dtype = torch.device(way.base.device), getattr(torch, way.base.dtype)
    experts = build(small)
    give_noise(experts, dtype)
    pipe: Any = SimpleNamespace(high_noise=experts[0], low_noise=experts[1], device=device)
    pipe.video_vae = pipe.audio_vae = torch.nn.Module()
    pipe.carrier = PlannedCarrier(pipe, way.base)
    frozen, task = Frozen(pipe, way), task_of(pipe, sizes, work, settings, device)
    optimizer = torch.optim.AdamW(task.objective.groups(), lr=1e-4, fused=device.type != "mps")
    average = [p.detach().clone() for p in task.objective.parameters()]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    with frozen.carried():
        for step in range(steps + 1):
            begun = time.perf_counter()
            for part in task.split(task.batch(step, 0, 1), way.accumulate):
                ready = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in part.items()}
                with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
                    loss, _ = task.objective(**ready)
                loss.backward()
            optimizer.step()
            torch._foreach_lerp_(average, [p.detach() for p in task.objective.parameters()], 0.1)
            optimizer.zero_grad(set_to_none=True)
            assert bool(torch.isfinite(loss))
            seconds.append(time.perf_counter() - begun)
    waiting, streamer = frozen.waiting, frozen.streamer
    return {
        "plan": asdict(way), "seconds": statistics.median(seconds[1:]), "predicted_seconds": way.base.seconds,
        "peak_vram": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "predicted_vram": way.base.vram, "predicted_ram": way.base.ram,
        "states_out_and_back": [0, 0] if waiting is None else [waiting.taken, waiting.brought],
        "blocks_copied": 0 if streamer is None else streamer.counters.copied,
        "copied_back": 0 if streamer is None else streamer.counters.copied_back,
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.lora", description=__doc__.split("\n")[0])
    parser.add_argument("--caps", type=float, nargs="+", default=[24, 16, 12], help="GB of the device")
    parser.add_argument("--size", help="640x352; with --small 128x128")
    parser.add_argument("--frames", type=int, help="193; with --small 9")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--in-parts", default="auto", choices=("auto", "no", "yes"))
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="a small network, for a machine without a GPU")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    device = choose_device(args.device)
    sizes = small_sizes() if args.small else RELEASED
    size = parse_size(args.size or ("128x128" if args.small else "640x352"))
    work = Work(*size, args.frames or (9 if args.small else 193), passes=1)
    settings = LoraSettings(batch=args.batch, in_parts=args.in_parts)
    dtype = "float32" if device.type == "cpu" else "bfloat16"
    load, rows = load_of(build(args.small), sizes, work, settings, device.type, dtype), []
    for cap in args.caps:
        machine = detect(str(device), int(cap * GIB))
        way = make_train_plan(machine, sizes, load, settings, str(device), dtype)
        if device.type == "cuda":
            share = min(1.0, cap * GIB / torch.cuda.get_device_properties(device).total_memory)
            torch.cuda.set_per_process_memory_fraction(share, device)
            torch.cuda.empty_cache()
        rows.append({"cap": cap} | measure(way, sizes, work, settings, args.steps, args.small))
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(
            f"{row['cap']:5g} GB: {row['seconds']:.2f} s a step (predicted {row['predicted_seconds']:.2f}), peak "
            f"{(row['peak_vram'] or 0) / GIB:.1f} GB (predicted {row['predicted_vram'] / GIB:.1f})\n"
            f"          {row['plan']['why']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One denoising step at full size with random weights, by every plan: speed, peaks, and what was streamed.

    python -m tests.bench.step [--caps 80 48 24 16 12 8] [--size 640x352] [--frames 193] [--steps 4] [--json]
    python -m tests.bench.step --small            a network of the same build that a processor computes in seconds

Needs no model folder: blocks are filled with seeded noise in main memory. On a GPU the allocator is held to each cap,
so that one large card stands for smaller ones. The first step is the warm-up; seconds are the median of the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import psutil
import torch
from torch import nn

from engine.device import choose_device
from engine.guided import compute_dtype, velocity
from engine.memory.carry import PlannedCarrier
from engine.memory.machine import GIB, detect
from engine.memory.plan import Plan, make_plan
from engine.memory.sizes import RELEASED, ModelSizes, Work, conditioner, tower_block, tower_ends
from engine.models import AudioTower, Bridge, DualTower, VideoTower
from engine.request import parse_size


def small_sizes() -> ModelSizes:
    """Eight layers of width 256, of which six have sound."""
    block, linear = tower_block(256, 704)
    parts = [tower_block(128, 352), conditioner(256, 128), conditioner(128, 256)]
    return ModelSizes(
        layers=8, shared=6, video_block=block, video_linear=linear, shared_block=sum(p[0] for p in parts),
        shared_linear=sum(p[1] for p in parts), ends=tower_ends(256, 64, 64, 144, 64),
        audio_ends=tower_ends(128, 64, 64, 32, 32), text_block=1, video_vae=1, audio_vae=1,
        width=256, ffn=704, audio_width=128, text_width=64,
    )  # fmt: skip


def build(small: bool) -> tuple[DualTower, DualTower]:
    """Both experts without values (on the meta device)."""
    with torch.device("meta"):
        if small:
            common: dict[str, Any] = {"freq_dim": 64, "text_dim": 64, "eps": 1e-6}
            video = {"dim": 256, "ffn_dim": 704, "num_heads": 2, "num_layers": 8}
            audio = {"dim": 128, "ffn_dim": 352, "num_heads": 1, "num_layers": 6, "in_dim": 32, "out_dim": 32}
        else:
            common = {"freq_dim": 256, "text_dim": 4096, "eps": 1e-6}
            video = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}
            audio = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "in_dim": 128, "out_dim": 128}
        towers = [VideoTower(in_dim=36, out_dim=16, patch_size=(1, 2, 2), **video, **common) for _ in range(2)]
        sound = AudioTower(patch_size=(1,), **audio, **common)
        bridge = Bridge(video["num_layers"], audio["num_layers"], video["dim"], audio["dim"], 50.0, 128)
    experts = [DualTower(tower, sound, bridge).eval().requires_grad_(False) for tower in towers]
    return experts[0], experts[1]


def give_noise(experts: tuple[DualTower, DualTower], dtype: torch.dtype) -> None:
    """Seeded values for all parameters. Parameters of one shape share them, until a plan packs them into its slabs."""
    generator = torch.Generator().manual_seed(0)
    known: dict[tuple[torch.Size, bool], torch.Tensor] = {}
    for expert in experts:
        for module in expert.modules():
            for name, value in list(module.named_parameters(recurse=False)):
                matrix = value.dim() > 1 and name == "weight"
                key = (value.shape, matrix)
                if key not in known:
                    noise = torch.randn(value.shape, generator=generator)
                    inputs = value[0].numel() if matrix else 1
                    known[key] = (noise * inputs**-0.5 if matrix else 1 + 0.01 * noise).to(dtype)
                module._parameters[name] = nn.Parameter(known[key], requires_grad=False)


def measure(plan: Plan, sizes: ModelSizes, work: Work, steps: int, small: bool) -> dict[str, Any]:
    """Runs `steps` steps of the high-noise expert by `plan`."""
    device, dtype = torch.device(plan.device), getattr(torch, plan.dtype)
    experts = build(small)
    give_noise(experts, dtype)
    none = nn.Module()
    pipe: Any = SimpleNamespace(high_noise=experts[0], low_noise=experts[1], video_vae=none, audio_vae=none)
    carrier = PlannedCarrier(pipe, plan)
    video_tokens, audio_tokens = work.tokens(sizes)
    frames = work.frames // sizes.stride + 1
    grid = (frames, work.height // sizes.spatial, work.width // sizes.spatial)
    branches, channels = work.passes, 128 if not small else 32
    video = torch.randn(branches, 16, *grid, device=device)
    condition = torch.randn(branches, 20, *grid, device=device)
    audio = torch.randn(branches, channels, audio_tokens, device=device)
    text = torch.randn(branches, 512, sizes.text_width, device=device)
    t = torch.full((branches,), 950.0, dtype=torch.float64, device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    with torch.inference_mode(), carrier.experts(experts[0]):
        for step in range(steps):
            carrier.step(experts[0], experts[0] if step + 1 < steps else None)
            begun = time.perf_counter()
            out = velocity(experts[0], video, audio, condition, text, t, t, work.fps / sizes.stride, 1.0, 1.0)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - begun)
        assert compute_dtype(experts[0]) == dtype
        assert bool(torch.isfinite(out[0]).all())
    counters = None if carrier.streamer is None else carrier.streamer.counters
    moved = [] if counters is None else counters.steps[1:]
    return {
        "plan": asdict(plan),
        "tokens": [video_tokens, audio_tokens],
        "seconds": statistics.median(seconds[1:] or seconds),
        "predicted_seconds": plan.seconds,
        "peak_vram": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "predicted_vram": plan.vram,
        "rss": psutil.Process().memory_info().rss,
        "predicted_ram": plan.ram,
        "streamed_a_step": statistics.median([s.streamed for s in moved]) if moved else 0,
        "prefetched": [sum(s.prefetched for s in moved), sum(s.blocks for s in moved)],
        "copied_back": 0 if counters is None else counters.copied_back,
        "pinned": 0 if counters is None else counters.pinned,
    }


def by_caps(
    caps: list[float], device: torch.device, sizes: ModelSizes, work: Work, steps: int, small: bool
) -> list[dict[str, Any]]:
    """The planner's own plan for each size of card, GB; `measure`'s rows with their "cap"."""
    rows = []
    for cap in caps:
        machine = detect(str(device), int(cap * GIB))
        plan = make_plan(machine, sizes, work, device=str(device))
        if device.type == "cuda":
            share = min(1.0, cap * GIB / torch.cuda.get_device_properties(device).total_memory)
            torch.cuda.set_per_process_memory_fraction(share, device)
        rows.append({"cap": cap} | measure(plan, sizes, work, steps, small))
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def by_ways(device: torch.device, sizes: ModelSizes, work: Work, steps: int, small: bool) -> list[dict[str, Any]]:
    """Every way to hold the weights, whatever the planner would say; `measure`'s rows with their "way"."""
    plan = make_plan(detect(str(device)), sizes, work, device=str(device))
    layers = sizes.layers
    held = replace(plan, weights=plan.dtype, residents=layers, ring=0, pinned=0, pageable=0, mapped=0)
    streamed = replace(held, experts="swap", residents=0, ring=2, pageable=layers)
    ways = {
        "all on the device": replace(held, experts="device"),
        "half streams": replace(streamed, residents=layers // 2, pageable=layers - layers // 2),
        "all streams": streamed,
        "all streams, ring of one": replace(streamed, ring=1),
        "all streams, one branch at a time": replace(streamed, at_once=1),
        "all streams in 8 bits": replace(streamed, weights="int8"),
    }
    return [{"way": name} | measure(one, sizes, work, steps, small) for name, one in ways.items()]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.step", description=__doc__.split("\n")[0])
    parser.add_argument("--caps", type=float, nargs="+", default=[80, 48, 24, 16, 12, 8], help="GB of the device")
    parser.add_argument("--size", default="640x352")
    parser.add_argument("--frames", type=int, default=193)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="a small network, for a machine without a GPU")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    device = choose_device(args.device)
    sizes = small_sizes() if args.small else RELEASED
    work = Work(*parse_size(args.size), args.frames, passes=args.passes)
    rows = by_caps(args.caps, device, sizes, work, args.steps, args.small)
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        done, of = row["prefetched"]
        print(
            f"{row['cap']:5g} GB: {row['seconds']:.2f} s a step (predicted {row['predicted_seconds']:.2f}), "
            f"peak {(row['peak_vram'] or 0) / GIB:.1f} GB (predicted {row['predicted_vram'] / GIB:.1f}), process "
            f"{row['rss'] / GIB:.1f} GB, {row['streamed_a_step'] / GIB:.2f} GB streamed, {done} of {of} prefetched\n"
            f"          {row['plan']['why']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How an order is trained on the machine there is: what is measured and written down, for the planner of memory.py."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from engine.device import choose_precision
from engine.memory.machine import GIB, Machine, detect
from engine.memory.sizes import read_sizes
from engine.profile import read_profile
from engine.timing import nearest_frame_count
from engine.training.lora.memory import TrainPlan, load_of, make_sharded_plan, make_train_plan
from engine.training.lora.optimizer import choose_optimizer
from engine.training.lora.progress import RUN
from engine.training.lora.settings import LoraSettings

if TYPE_CHECKING:
    from engine.training.lora.run import LoraOrder

BEFORE = {"frozen": "exact", "accumulate": 1, "in_parts": "no", "optimizer": "adamw"}  # of runs that wrote nothing down
SHORTER, LONGEST = 0.5, 60  # seconds between lengths that are tried, and how many


def plan_training(order: LoraOrder, device: torch.device, world: int = 1) -> TrainPlan | None:
    """How `order` is trained on this device; None where there is only one way.

    A run that was begun keeps what changes its numbers: 8-bit weights, the parts of a batch and of blocks, and the
    length of its clips.
    """
    if device.type not in ("cpu", "cuda"):
        return None
    known = _known(order)
    settings = order.settings if not known else replace(order.settings, **{**BEFORE, **known.get("memory", {})})
    settings = replace(settings, optimizer=choose_optimizer(settings.optimizer, device))
    machine = detect(str(device), None if order.memory is None else int(order.memory * GIB))
    machine = replace(machine, ram_free=machine.ram_free // world, pin_limit=machine.pin_limit // world)
    frames = order.frames or known.get("format", {}).get("frames") or read_profile(order.model).frames
    if order.shard == "yes":
        return _plan(order, settings, machine, device, world, frames, world)
    found = _plan(order, settings, machine, device, world, frames)
    stands = found.base.fits and found.base.plain and not found.to_host and not found.in_parts
    if order.shard == "auto" and world > 1 and not stands and may_shard(settings):
        shared = _plan(order, settings, machine, device, world, frames, world)
        if shared.base.fits:
            return shared
    if found.base.fits:
        return found
    shorter = [nearest_frame_count(round(n * SHORTER * read_profile(order.model).fps)) for n in range(1, LONGEST)]
    shorter = sorted({n for n in shorter if n < frames})
    low, high = -1, len(shorter)  # what fits, what does not
    while high - low > 1:
        middle = (low + high) // 2
        fits = _plan(order, settings, machine, device, world, shorter[middle]).base.fits
        low, high = (middle, high) if fits else (low, middle)
    if low < 0:
        return found
    return replace(found, frames=shorter[low], why=f"{found.why}; clips of {shorter[low]} frames would fit")


def shortened(order: LoraOrder, way: TrainPlan | None) -> int | None:
    """Frames of the clips, where the order leaves them open: those of a run that was begun, else what fits."""
    if order.frames is not None:
        return order.frames
    known: int | None = _known(order).get("format", {}).get("frames")
    return known or (way.frames if way is not None and way.frames else None)


def may_shard(settings: LoraSettings) -> bool:
    """Whether nothing that the frozen model's shares exclude was asked for."""
    return settings.frozen != "int8" and settings.in_parts != "yes"


def weights_dtype(settings: LoraSettings, device: torch.device) -> torch.dtype:
    """The frozen weights: half of the memory on a card; on a processor float32, as they are used in sampling."""
    return torch.float32 if device.type == "cpu" else choose_precision(settings.precision, device)


def _plan(
    order: LoraOrder,
    settings: LoraSettings,
    machine: Machine,
    device: torch.device,
    world: int,
    frames: int,
    shards: int = 1,
) -> TrainPlan:
    profile, sizes = read_profile(order.model), read_sizes(order.model)
    width, height = order.size or profile.sizes[0]
    dtype = str(weights_dtype(settings, device)).removeprefix("torch.")
    clip = width, height, frames, profile.fps
    load = load_of(order.model, sizes, clip, settings, world, device.type == "cpu", dtype)
    if shards > 1:
        found = make_sharded_plan(machine, sizes, load, settings, str(device), dtype, shards)
    else:
        found = make_train_plan(machine, sizes, load, settings, str(device), dtype)
    return replace(found, optimizer=settings.optimizer)


def _known(order: LoraOrder) -> dict[str, Any]:
    """What the run was begun with; nothing where it was not."""
    path = order.folder / RUN
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found

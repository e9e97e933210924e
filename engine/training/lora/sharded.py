"""The frozen model shared out over the processes of one training, with torch's FSDP2 inside accelerate's frame.

Every process holds its share of each block and gets the others' while the block computes. Factors stay whole: they are
small, DDP keeps them equal, and a checkpoint and the written LoRA have the form that they have with one process.

accelerate's own FSDP2 plugin takes graphics cards alone (`AcceleratorState` leaves several processors at MULTI_CPU, so
that nothing of it could be tried without cards), and it would cut up factors that PEFT's layers and the optimizer hold.
Its launch configuration is read all the same: "distributed_type: FSDP" asks for shares.

Bytes travel between processes instead of from main memory, so that streaming and this exclude each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.fsdp import fully_shard

from engine.errors import RequestError
from engine.training.lora.settings import LoraSettings

if TYPE_CHECKING:
    from engine.lora.apply import Grown
    from engine.models import DualTower
    from engine.pipeline import MovaPipeline

ASKED = "ACCELERATE_USE_FSDP"  # what `accelerate launch` sets for a configuration of FSDP


def take_over_fsdp(shard: str) -> str:
    """`shard`, or "yes" where accelerate was configured for FSDP; accelerate itself is told to keep to DDP.

    Raises:
        RequestError: the configuration says version 1.
    """
    if os.environ.pop(ASKED, "false").lower() not in ("true", "1"):
        return shard
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise RequestError("accelerate is configured for FSDP of version 1; set fsdp_version to 2")
    if shard == "no":
        raise RequestError("accelerate is configured for FSDP, but shard is no; leave one of them out")
    return "yes"


def check_shard(shard: str, settings: LoraSettings, world: int, device: torch.device) -> None:
    """Raises `RequestError` where shares are asked for together with what excludes them."""
    if shard != "yes":
        return
    if world < 2:
        raise RequestError("shard yes needs several processes: accelerate launch --num_processes 2, or torchrun")
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"shard yes works on cuda and cpu, not on {device.type}")
    if settings.frozen == "int8":
        raise RequestError("frozen int8 cannot be shared out; the nearest that can: --frozen exact")
    if settings.in_parts == "yes":
        raise RequestError("blocks that are shared out cannot be computed in parts; take --in-parts no, or --shard no")


class _Both(nn.Module):
    """Both experts under one root, since they share audio tower and bridge."""

    def __init__(self, high: DualTower, low: DualTower) -> None:
        super().__init__()
        self.high, self.low = high, low

    def forward(self, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        video, audio = plain(*args, **kwargs)
        return video.clone(), audio.clone()  # FSDP's hooks would be lost on views that are changed in place


def share_out(pipe: MovaPipeline, grown: Grown, device: torch.device) -> _Both:
    """Cuts the blocks of both experts into shares; the experts are then called as before, by all processes at once.

    Args:
        pipe: its experts lie on the CPU, best mapped from their files: one block at a time goes to the device.
        grown: factors, which stay whole on every device.
        device: of this process.
    """
    ours = {p for pair in grown.pairs.values() for p in pair}
    reshard = FullyShardedDataParallelPlugin(fsdp_version=2).reshard_after_forward
    mesh = torch.distributed.device_mesh.init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    both, seen = _Both(pipe.high_noise, pipe.low_noise), set()
    for expert in (both.high, both.low):
        for name, child in expert.named_children():
            if name != "blocks":
                child.to(device)
        for block in expert.blocks:
            for unit in block.children():  # a block's tower, its sound's, and both ways of the bridge
                if id(unit) not in seen:
                    seen.add(id(unit))
                    fully_shard(unit, mesh=mesh, reshard_after_forward=reshard, ignored_params=ours)
    cut = {p for expert in (both.high, both.low) for block in expert.blocks for p in block.parameters()}
    fully_shard(both, mesh=mesh, ignored_params=ours | (set(both.parameters()) - cut))
    for expert in (both.high, both.low):
        expert.__dict__["forward"] = partial(_through_root, both, expert.forward)
    return both


def _through_root(both: _Both, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """An expert's forward below the root. What is gathered in inference mode could not be used in training later."""
    grad = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(grad):
        return both(plain, *args, **kwargs)


def same_everywhere(accelerator: Accelerator, what: str, value: object) -> None:
    """Raises `RequestError` in all processes where they do not see the same."""
    if accelerator.num_processes > 1 and len(set(map(str, gather_object([value])))) > 1:
        raise RequestError(f"the processes do not see the same {what}: it must lie on a disk that all machines share")


def wanted_by_any(accelerator: Accelerator, wanted: set[int]) -> set[int]:
    """The union over all processes."""
    if accelerator.num_processes == 1:
        return wanted
    return set(gather_object(sorted(wanted)))

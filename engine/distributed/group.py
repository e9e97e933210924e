"""Processes that work on one clip, one a device.

`run_together` starts them and returns what the first one returned. Nothing else of the engine starts processes.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from engine.errors import RequestError

LOOPBACK = "127.0.0.1"


def run_together(count: int, function: Callable[..., Any], *args: Any, device: str = "cpu") -> Any:
    """Runs `function(rank, *args)` in `count` processes that form a group; returns what rank 0 returned.

    Args:
        function: importable by name; its result must be something that torch can save.
        device: "cuda" gives process i card i and talks through NCCL; "cpu" talks through gloo.

    Raises:
        RequestError: there are not so many cards.
        ProcessRaisedException: one of them failed; its traceback is in the message.
    """
    if device == "cuda" and count > torch.cuda.device_count():
        raise RequestError(f"{count} cards asked for; this machine has {torch.cuda.device_count()}")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.pt"
        mp.spawn(  # type: ignore[attr-defined]
            _one, (count, device, _free_port(), str(result), function, args), nprocs=count
        )
        return torch.load(result, weights_only=True)


def _one(
    rank: int, count: int, device: str, port: int, result: str, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ |= {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(port)}
    if device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", rank=rank, world_size=count)
    try:
        value = function(rank, *args)
        if rank == 0:
            torch.save(value, result)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        return int(free.getsockname()[1])

"""Processes that work on one clip, one a device.

`run_together` starts them and returns what the first one returned. Nothing else of the engine starts processes.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from engine import errors
from engine.errors import RequestError

LOOPBACK = "127.0.0.1"


def run_together(count: int, function: Callable[..., Any], *args: Any, device: str = "cpu") -> Any:
    """Runs `function(rank, *args)` in `count` processes that form a group; returns what rank 0 returned.

    Args:
        function: importable by name; its result must be something that torch can save.
        device: "cuda" gives process i card i and talks through NCCL; "cpu" talks through gloo.

    Raises:
        RequestError: there are not so many cards.
        MovaError: one of them raised it.
        RuntimeError: one of them failed otherwise; its traceback is the message.
    """
    if device == "cuda" and count > torch.cuda.device_count():
        raise RequestError(f"{count} cards asked for; this machine has {torch.cuda.device_count()}")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.pt"
        try:
            mp.spawn(  # type: ignore[attr-defined]
                _one, (count, device, _free_port(), str(result), function, args), nprocs=count
            )
        except Exception as error:
            raise _first_failure(Path(folder)) or error from None
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
    except Exception as error:
        told = {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        Path(result).with_name(f"{time.time_ns()}.json").write_text(json.dumps(told), encoding="utf-8")
        raise
    finally:
        dist.destroy_process_group()


def _first_failure(folder: Path) -> Exception | None:
    """The error that came first: the others only say that they lost their neighbour."""
    told = sorted(folder.glob("*.json"))
    if not told:
        return None
    first = json.loads(told[0].read_text(encoding="utf-8"))
    kind = getattr(errors, first["kind"], None)
    if isinstance(kind, type) and issubclass(kind, errors.MovaError):
        return kind(first["message"])
    return RuntimeError(first["traceback"])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        return int(free.getsockname()[1])

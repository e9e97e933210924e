"""Plans by hand for the tests of memory, and the peak of a process's own memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine import MovaPipeline
from engine.memory.plan import Plan
from tests.make_checkpoint import SIZES

ACCOUNT = Path("/proc/self/status")  # Linux's own account of a process
WIDE = replace(
    SIZES["wide"], video_dim=768, video_heads=6, video_layers=8, video_ffn=3072, audio_dim=384, audio_heads=6,
    audio_layers=6, audio_ffn=1536, bridge_head=64,
)  # fmt: skip
TINY = Path(__file__).parent / "data" / "mova-tiny" / "checkpoint"
SMALL = {"height": 64, "width": 96, "num_frames": 9, "num_inference_steps": 8, "output_type": "latent", "seed": 3}


def plan(**values: Any) -> Plan:
    """On the processor, in float32: everything streams from ordinary memory through two slots."""
    given: dict[str, Any] = {
        "device": "cpu",
        "dtype": "float32",
        "weights": "float32",
        "experts": "host",
        "residents": 0,
        "ring": 2,
        "pinned": 0,
        "pageable": 4,
        "mapped": 0,
        "at_once": 2,
        "tiles": "none",
        "seconds": 1.0,
        "vram": 0,
        "ram": 0,
    }
    return Plan(**(given | values))


def storage(kind: str, residents: int = 0, layers: int = 4) -> dict[str, Any]:
    """What waits where: "pinned", "pageable", "mapped", or "mixed" (some of each)."""
    waiting = layers - residents
    if kind == "mixed":
        pinned, pageable = min(1, waiting), max(0, min(1, waiting - 1))
        return {"residents": residents, "pinned": pinned, "pageable": pageable, "mapped": waiting - pinned - pageable}
    return {"residents": residents, "pinned": 0, "pageable": 0, "mapped": 0} | {kind: waiting}


def own_memory() -> int:
    """Bytes of anonymous pages: what the system cannot take back by forgetting a file."""
    with ACCOUNT.open() as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def watched() -> Iterator[list[int]]:
    """This process's own memory before the block, and its peak within it, in bytes. For a process of its own."""
    found, done = [own_memory()] * 2, threading.Event()

    def watch() -> None:
        while not done.is_set():
            found[1] = max(found[1], own_memory())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def run(pipe: MovaPipeline, **values: Any) -> tuple[torch.Tensor, torch.Tensor]:
    out = pipe("a bell rings", negative_prompt="noise", **(SMALL | values))
    return out.video_latents, out.audio_latents


def same(a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])

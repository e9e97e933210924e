"""One clip on several devices: which way of sharing, and what each process does."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.distributed.group import run_together
from engine.distributed.guidance import GuidanceSplit
from engine.distributed.ulysses import Ulysses
from engine.memory.plan import Plan
from engine.texts import TextCache


def way(count: int, passes: int) -> str:
    """ "guidance" where every device gets a branch of its own, else "ulysses"."""
    return "guidance" if count <= passes else "ulysses"


def make_together(
    count: int,
    folder: Path,
    plan: Plan,
    passes: int,
    arguments: dict[str, Any],
    way_of: str | None = None,
    texts: TextCache | None = None,
) -> dict[str, Any]:
    """Makes a clip in `count` processes, one a device.

    Args:
        plan: of each device.
        arguments: for `MovaPipeline.__call__`; its callbacks stay with the first process.
        texts: as for `MovaPipeline.from_pretrained`.

    Returns:
        "video_latents", "audio_latents", and "frames" and "audio" where `output_type` is "pt".
    """
    kind = torch.device(plan.device).type
    plan = replace(plan, device=kind)
    return run_together(count, _make, folder, plan, way_of or way(count, passes), arguments, texts, device=kind)


def _make(
    rank: int, folder: Path, plan: Plan, way_of: str, arguments: dict[str, Any], texts: TextCache | None
) -> dict[str, Any]:
    from engine.pipeline import MovaPipeline

    pipe = MovaPipeline.from_pretrained(folder, plan=plan, texts=texts)
    shared: AbstractContextManager[None] = nullcontext()
    ulysses = None
    if way_of == "guidance":
        pipe.split = GuidanceSplit()
    else:
        ulysses = Ulysses(int(pipe.high_noise.config.video["num_heads"]))
        shared = ulysses.on(pipe.high_noise, pipe.low_noise)
    with shared:
        latents = pipe(**(arguments | {"output_type": "latent"}))
    found: dict[str, Any] = {
        "video_latents": latents.video_latents.cpu(),
        "audio_latents": latents.audio_latents.cpu(),
        "sample_rate": latents.sample_rate,
        "exchanges": 0 if ulysses is None else ulysses.exchanges,
        "seeds": latents.seeds,
        "truncated": latents.truncated,
    }
    if rank == 0 and arguments.get("output_type") == "pt":
        samples = round(arguments["num_frames"] / arguments["fps"] * pipe.audio_vae.sample_rate)
        frames, audio = pipe.decode(latents.video_latents, latents.audio_latents, samples, "pt")
        found |= {"frames": frames.cpu(), "audio": audio.cpu()}
    return found

"""What a call asks for, clip by clip: prompts, pictures opened, seeds drawn, starting latents."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.errors import RequestError
from engine.media import load_image

Picture = Image.Image | np.ndarray | str | Path | None


@dataclass(frozen=True)
class ClipInputs:
    """What differs from clip to clip of a batch. Attributes: first, last: RGB pictures, or None; seed: unchecked."""

    prompt: str
    negative_prompt: str
    first: Image.Image | None
    last: Image.Image | None
    seed: Any


def clip_inputs(
    prompt: str | Sequence[str],
    negative_prompt: str | Sequence[str],
    image: Picture | Sequence[Picture],
    last_image: Picture | Sequence[Picture],
    seed: int | Sequence[int] | None,
) -> list[ClipInputs]:
    """One a prompt.

    Raises:
        RequestError: a list is empty or not as long as that of the prompts.
        MediaError: a picture cannot be read.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise RequestError("prompt list is empty; give at least one prompt")
    count = len(prompts)
    spread = (
        prompts,
        per_clip("negative_prompt", negative_prompt, count),
        [open_picture(picture) for picture in per_clip("image", image, count)],
        [open_picture(picture) for picture in per_clip("last_image", last_image, count)],
        _seeds(seed, count),
    )
    return [ClipInputs(*values) for values in zip(*spread, strict=True)]


def per_clip(name: str, value: Any, count: int) -> list[Any]:
    """A list of `count` values: a list as it is, anything else `count` times."""
    if isinstance(value, list | tuple):
        if len(value) != count:
            raise RequestError(f"{len(value)} values of {name} for {count} prompts; give one, or {count}")
        return list(value)
    return [value] * count


def open_picture(source: Picture) -> Image.Image | None:
    """A picture by path, as PIL or as (H, W, 3) uint8, to RGB."""
    if source is None:
        return None
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise RequestError(f"image array is {source.dtype} {source.shape}; expected uint8 (H, W, 3)")
        return Image.fromarray(source)
    return load_image(source)


def _seeds(seed: int | Sequence[int] | None, count: int) -> list[Any]:
    if seed is None:
        return [secrets.randbelow(2**32) for _ in range(count)]
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        if len(seed) != count:
            raise RequestError(f"{len(seed)} seeds for {count} prompts; give one, or {count}")
        return list(seed)
    return [seed + i if isinstance(seed, int) else seed for i in range(count)]


def noise_for(seed: int, side: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise of one side ("video" or "audio"), float32 on the CPU: the same on every device.

    Each side has its own generator, so that a longer picture does not change the sound's noise.
    """
    digest = hashlib.sha256(f"{side}:{seed}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(shape, generator=generator)


def starting_latents(
    side: str, shape: tuple[int, ...], seeds: Sequence[int], noise: torch.Tensor | None, given: torch.Tensor | None
) -> torch.Tensor:
    """What one side ("video" or "audio") starts from, (len(seeds), *shape): what is given, else noise.

    Args:
        shape: of one clip's latents.
        noise: instead of the seeds'. given: the side is known.

    Raises:
        RequestError: what was brought in has another shape.
    """
    if given is None and noise is None:
        return torch.stack([noise_for(seed, side, shape) for seed in seeds])
    latents = noise if given is None else given
    assert latents is not None
    expected = (len(seeds), *shape)
    if tuple(latents.shape) != expected:
        label = f"{side}_latents" if given is None else f"given_{side}_latents"
        raise RequestError(f"{label} have shape {tuple(latents.shape)}; this clip needs {expected}")
    return latents

"""A wider decoder that begins as the narrow one it is made of.

Latents and encoder stay, so a decoder can grow after the towers have learned its latents. New channels start silent:
nothing flows into them, and what they will send out is random, so that they learn from the first step.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from engine.training.video_vae import make_video_vae

PARTS_OF_ROWS = {"time_conv": 2, "to_qkv": 3}  # convolutions whose outputs are several things side by side
SPREAD = 0.5  # of a fresh layer's weights, for what new channels send out


@torch.no_grad()
def widen_decoder(narrow: AutoencoderKLWan, base_dim: int) -> AutoencoderKLWan:
    """The same function with ``decoder_base_dim`` = ``base_dim``; its float32 numbers differ by rounding alone.

    Raises:
        ValueError: ``base_dim`` is less than the narrow decoder's.
    """
    config: dict[str, Any] = {name: value for name, value in narrow.config.items() if not name.startswith("_")}
    if base_dim < (had := config["decoder_base_dim"] or config["base_dim"]):
        raise ValueError(f"a decoder of {had} channels cannot become one of {base_dim}")
    wide = make_video_vae(config | {"decoder_base_dim": base_dim})
    source = narrow.state_dict()
    for name, target in wide.state_dict().items():
        if name.startswith("decoder."):
            _embed(target, source[name], name)
        else:
            target.copy_(source[name])
    return wide


def _embed(target: Tensor, source: Tensor, name: str) -> None:
    """Puts a layer's numbers into the first channels of a wider one, in place."""
    if name.endswith("gamma"):  # the norm divides by the root of the mean square: more channels, a smaller mean
        share = source.shape[0] / target.shape[0]
        target.fill_(1.0)
        target[: source.shape[0]] = source
        target.mul_(math.sqrt(share))
        return
    parts = next((n for part, n in PARTS_OF_ROWS.items() if f".{part}." in name), 1)
    new, old = target.unflatten(0, (parts, -1)), source.unflatten(0, (parts, -1))
    rows = slice(old.shape[1])
    if name.endswith("bias"):
        new.zero_()
        new[:, rows] = old
    else:
        columns = old.shape[2]
        for part in range(parts):
            if (part, parts) != (1, 3):  # keys: were queries and keys both silent, neither would ever learn
                new[part, old.shape[1] :] = 0.0
        new[:, rows, columns:] *= SPREAD
        new[:, rows, :columns] = old
    if ".to_qkv." in name:  # attention divides q k by the root of the channels
        new[:2, rows] *= (new.shape[1] / old.shape[1]) ** 0.25

"""AdamW for the factors: torch's own, or one whose two moments are kept in 8 bits, where bitsandbytes is installed."""

from __future__ import annotations

from typing import Any

import torch

from engine.errors import RequestError
from engine.training.loop import Optimization

MOMENTS = {"adamw": 8.0, "adamw8bit": 2.04}  # bytes of state for a number that learns; 8 bits have a scale for each 256


def choose_optimizer(asked: str, device: torch.device) -> str:
    """ "adamw" or "adamw8bit"; auto takes 8 bits on a card where bitsandbytes can be imported.

    Raises:
        RequestError: 8 bits were asked for and cannot be had.
    """
    if asked == "adamw" or (asked == "auto" and device.type != "cuda"):
        return "adamw"
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # also of libraries that do not fit this machine
        if asked == "auto":
            return "adamw"
        raise RequestError(
            f"adamw8bit needs bitsandbytes ({error}): pip install bitsandbytes, or take --optimizer adamw"
        ) from error
    return "adamw8bit"


def make_eight_bit(groups: list[dict[str, Any]], how: Optimization) -> torch.optim.Optimizer:
    """AdamW with moments in 8 bits. Small tensors keep theirs in float32."""
    from bitsandbytes.optim import AdamW8bit

    made: torch.optim.Optimizer = AdamW8bit(groups, lr=how.rate, betas=how.betas, weight_decay=how.decay)
    return made

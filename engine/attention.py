"""The one place that decides how attention is computed.

Every attention of the networks goes through `attention`, which hands it to diffusers' dispatcher, so that
FlashAttention, cuDNN or Sage kernels can be chosen by name with `use_backend` and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Softmax attention with scale 1/sqrt(head width), without a mask.

    Args:
        query: (B, L, heads, head width).
        key, value: (B, S, heads, head width).

    Returns:
        (B, L, heads, head width), in the query's dtype.
    """
    return dispatch_attention_fn(query, key, value)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, compute attention with the diffusers backend `name` ("native", "flash", "sage", ...)."""
    with attention_backend(name):
        yield

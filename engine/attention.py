"""The one place that decides how attention is computed.

Every attention of the networks goes through `attention`, which hands it to diffusers' dispatcher, so that
FlashAttention, cuDNN or Sage kernels can be chosen by name with `use_backend` and nothing else changes. Training on a
CPU takes `use_products` instead: two matrix products and a softmax, whose backward is faster there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
_products: ContextVar[torch.Tensor | None] = ContextVar("products", default=None)
_instead: ContextVar[Attention | None] = ContextVar("instead", default=None)


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Softmax attention with scale 1/sqrt(head width), without a mask.

    Args:
        query: (B, L, heads, head width).
        key, value: (B, S, heads, head width).

    Returns:
        (B, L, heads, head width), in the query's dtype.
    """
    instead = _instead.get()
    if instead is not None:
        token = _instead.set(None)
        try:
            return instead(query, key, value)
        finally:
            _instead.reset(token)
    counts = _products.get()
    if counts is not None:
        return product_attention(query, key, value, counts if len(counts) == key.shape[1] else None)
    return dispatch_attention_fn(query, key, value)


def product_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, counts: torch.Tensor | None = None
) -> torch.Tensor:
    """`attention` as plain matrix products; shapes as there.

    Args:
        counts: (S,), how many times each key stands there; None for once each. Equal keys, like the padding of a
            prompt, can so be given once: the result is that of the long sequence.
    """
    q, k, v = ((x.transpose(1, 2)) for x in (query * query.shape[-1] ** -0.5, key, value))
    scores = torch.matmul(q, k.transpose(2, 3))  # (B, heads, L, S)
    if counts is not None:
        scores = scores + counts.log().to(scores)
    return torch.matmul(scores.softmax(-1).to(v), v).transpose(1, 2)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, compute attention with the diffusers backend `name` ("native", "flash", "sage", ...)."""
    with attention_backend(name):
        yield


@contextmanager
def use_attention(function: Attention) -> Iterator[None]:
    """Within the block, `attention` is `function`; within `function`, it is what it was."""
    token = _instead.set(function)
    try:
        yield
    finally:
        _instead.reset(token)


@contextmanager
def use_products(counts: torch.Tensor) -> Iterator[None]:
    """Within the block, compute attention with `product_attention`.

    Args:
        counts: (S,), for the attentions that have just S keys (the folded text); all others count each key once.
    """
    token = _products.set(counts)
    try:
        yield
    finally:
        _products.reset(token)

"""Long sequences without large temporaries, where no gradient is wanted.

Whatever is computed token by token is computed for a few thousand tokens at a time, and sums are taken in place. Short
sequences, and everything that will be differentiated, go the ordinary way.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

TOKENS = 4096  # at once: temporaries of some ten megabytes, matrix products that still fill a card


def wanted(x: torch.Tensor) -> bool:
    """Whether x (B, L, ...) is long, and gradients are off."""
    return not torch.is_grad_enabled() and x.shape[1] > TOKENS


def parts(length: int) -> Iterator[slice]:
    """Slices of at most `TOKENS` that cover `length` tokens."""
    for start in range(0, length, TOKENS):
        yield slice(start, min(start + TOKENS, length))

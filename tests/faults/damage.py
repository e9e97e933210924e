"""Damage to bytes, of the kinds that files come by: flipped bits, impossible numbers, noise, pieces gone or doubled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KINDS = 6


def damage(
    out: bytearray, where: int, rng: np.random.Generator, numbers: Sequence[bytes], keep: int, kinds: int
) -> None:
    """One damage at `where`, of one of the first `kinds` kinds; the first three leave all bytes in their places.

    Args:
        numbers: of four bytes, that no such file should hold. keep: bytes that are never cut off.
    """
    length = int(rng.integers(1, 65))
    match int(rng.integers(kinds)):
        case 0:
            out[where] ^= 1 << int(rng.integers(8))
        case 1:
            out[where : where + 4] = rng.choice(list(numbers))
        case 2:
            out[where : where + length] = rng.bytes(length)
        case 3:
            del out[where : where + length]
        case 4:
            out[where:where] = out[where : where + length]
        case 5 if rng.random() < 0.3:
            del out[max(keep, where) :]

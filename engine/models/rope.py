"""Rotary positions in real arithmetic: angles once in float64, tables and products in float32.

A table is a pair (cos, sin), each (tokens, head width / 2) float32. Towers rotate interleaved pairs (0,1), (2,3), ...;
the bridge rotates the first half of a head against its second half. Source: RoFormer (arXiv 2104.09864), section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from engine.models import lean

BASE = 10000.0

Table = tuple[torch.Tensor, torch.Tensor]


def _angles(positions: torch.Tensor, width: int) -> torch.Tensor:
    """(tokens,) positions -> (tokens, width/2) angles, float64."""
    frequencies = BASE ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.outer(positions.to(torch.float64), frequencies)


def _table(angles: torch.Tensor, device: torch.device) -> Table:
    with torch.inference_mode(False):  # tables are kept, and later ones may be asked for with gradients
        return angles.cos().float().to(device), angles.sin().float().to(device)


def video_axes(head_dim: int) -> tuple[int, int, int]:
    """How a head's width is shared out to time, height and width."""
    side = head_dim // 3
    return head_dim - 2 * side, side, side


@lru_cache(maxsize=8)
def video_table(frames: int, height: int, width: int, head_dim: int, device: torch.device) -> Table:
    """Positions of video tokens (frames x height x width, in that order), each axis on its own part of the head."""
    parts = []
    for axis, (length, part) in enumerate(zip((frames, height, width), video_axes(head_dim), strict=True)):
        shape = [1, 1, 1, part // 2]
        shape[axis] = length
        angles = _angles(torch.arange(length), part).view(shape)
        parts.append(angles.expand(frames, height, width, part // 2))
    return _table(torch.cat(parts, -1).flatten(0, 2), device)


@lru_cache(maxsize=8)
def audio_table(tokens: int, head_dim: int, device: torch.device) -> Table:
    """Positions 0 .. tokens-1 over the whole head width."""
    return _table(_angles(torch.arange(tokens), head_dim), device)


@lru_cache(maxsize=8)
def clock_table(
    frames: int, tokens_per_frame: int, ticks_per_frame: float, head_dim: int, device: torch.device
) -> Table:
    """The bridge's clock: every token of latent frame f sits at f * ticks_per_frame, in audio latents."""
    positions = torch.arange(frames, dtype=torch.float64) * ticks_per_frame
    return _table(_angles(positions, head_dim).repeat_interleave(tokens_per_frame, 0), device)


def rotate_pairs(x: torch.Tensor, table: Table) -> torch.Tensor:
    """Rotates (even, odd) neighbours. x: (B, L, heads, head width); the result has x's dtype."""
    return _in_parts(_turn_pairs, x, table)


def rotate_halves(x: torch.Tensor, table: Table) -> torch.Tensor:
    """Rotates the first half of each head against the second. x: (B, L, heads, head width)."""
    return _in_parts(_turn_halves, x, table)


def _turn_pairs(x: torch.Tensor, table: Table) -> torch.Tensor:
    cos, sin = (part[:, None] for part in table)  # (L, 1, head width / 2): the same for every head
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)


def _turn_halves(x: torch.Tensor, table: Table) -> torch.Tensor:
    cos, sin = (part[:, None] for part in table)
    first, second = x.float().chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)


def _in_parts(turn: Callable[[torch.Tensor, Table], torch.Tensor], x: torch.Tensor, table: Table) -> torch.Tensor:
    """`turn(x, table)`, whose float32 temporaries are never those of a long sequence."""
    if not lean.wanted(x):
        return turn(x, table)
    out = torch.empty_like(x)
    for part in lean.parts(x.shape[1]):
        out[:, part] = turn(x[:, part], (table[0][part], table[1][part]))
    return out

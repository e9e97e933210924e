"""Long sequences: the lean way computes the same, and takes the memory that the planner counts on."""

from __future__ import annotations

import pytest
import torch

from engine.models import lean
from tests.bench.velocity import build


def inputs(batch: int) -> tuple:
    g = torch.Generator().manual_seed(batch)
    t = torch.full((batch,), 500.0, dtype=torch.float64)
    video = torch.randn(batch, 36, 3, 16, 20, generator=g)
    audio = torch.randn(batch, 32, 40, generator=g)
    return video, audio, t, t, torch.randn(batch, 512, 64, generator=g), 6.0


@pytest.mark.parametrize("scale", [1.0, 0.0, 0.7, "each"])
@torch.inference_mode()
def test_long_sequences_come_out_the_same(monkeypatch, scale):
    network, given = build((3, 2)), inputs(2)
    strength = torch.tensor([0.3, 1.2]).view(2, 1, 1) if scale == "each" else scale
    slow = network(*given, strength, strength)
    monkeypatch.setattr(lean, "TOKENS", 37)  # 240 tokens in seven parts, the last one short
    fast = network(*given, strength, strength)
    error = max(float((a - b).abs().max()) for a, b in zip(slow, fast, strict=True))
    print(f"bridge {scale}: {error:.1e}")
    assert error <= 1e-5


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("at_once", [1, 2])
@torch.inference_mode()
def test_branches_one_after_the_other_come_out_the_same(monkeypatch, long, at_once):
    network, given = build((3, 2)), inputs(3)
    if long:
        monkeypatch.setattr(lean, "TOKENS", 37)
    strength = torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1)
    together = network(*given, strength, strength)
    for block in network.blocks:
        block.at_once = at_once
    apart = network(*given, strength, strength)
    error = max(float((a - b).abs().max()) for a, b in zip(together, apart, strict=True))
    print(f"long {long}, {at_once} at once: {error:.1e}")
    assert error <= 1e-5


def test_gradients_take_the_ordinary_way(monkeypatch):
    network, given = build((2, 1)), inputs(1)
    network.requires_grad_(True)
    plain = network(*given)[0]
    monkeypatch.setattr(lean, "TOKENS", 5)
    again = network(*given)[0]
    assert torch.equal(plain, again)
    again.sum().backward()
    assert network.blocks[0].video.ffn[0].weight.grad is not None

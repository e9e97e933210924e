"""The networks' fast forms against their plain twins."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.attention import attention, product_attention, use_products
from engine.models import DualTower
from engine.models.rope import (
    audio_table,
    clock_table,
    rotate_halves,
    rotate_pairs,
    video_axes,
    video_table,
)
from engine.models.towers import PatchAudio, PatchVideo
from tests.make_checkpoint import SIZES, networks

CPU = torch.device("cpu")


def turned(x: torch.Tensor, angles: torch.Tensor, halves: bool) -> torch.Tensor:
    """x (B, L, heads, width) times e^(i angle), in complex128; angles (L, width / 2)."""
    real, imaginary = x.double().chunk(2, -1) if halves else x.double().unflatten(-1, (-1, 2)).unbind(-1)
    z = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angles), angles)[:, None]
    parts = (z.real, z.imag)
    return torch.cat(parts, -1) if halves else torch.stack(parts, -1).flatten(-2)


def plain_angles(positions, width: int) -> torch.Tensor:
    """(tokens,) positions -> (tokens, width/2), each written out in Python's floats."""
    rows = [[float(p) / 10000.0 ** (2 * k / width) for k in range(width // 2)] for p in positions]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("width", [12, 32, 128])
def test_audio_positions_against_complex_numbers(width, halves):
    x = torch.randn(2, 403, 3, width, generator=torch.Generator().manual_seed(1))
    rotate = rotate_halves if halves else rotate_pairs
    got = rotate(x, audio_table(403, width, CPU))
    error = float((got.double() - turned(x, plain_angles(range(403), width), halves)).abs().max())
    print(f"width {width}: {error:.1e}")
    assert error <= 2e-6


@pytest.mark.parametrize("width", [24, 32, 128])
def test_video_positions_against_complex_numbers(width):
    frames, height, width_ = 5, 3, 7
    x = torch.randn(1, frames * height * width_, 2, width, generator=torch.Generator().manual_seed(2))
    places = [(f, h, w) for f in range(frames) for h in range(height) for w in range(width_)]
    angles = torch.cat([plain_angles([p[a] for p in places], part) for a, part in enumerate(video_axes(width))], -1)
    got = rotate_pairs(x, video_table(frames, height, width_, width, CPU))
    assert float((got.double() - turned(x, angles, False)).abs().max()) <= 2e-6


def test_the_released_head_is_shared_out_as_published():
    assert video_axes(128) == (44, 42, 42)


def test_the_clock_puts_picture_and_sound_of_one_instant_together():
    """A latent frame that lies on an audio latent's instant has that latent's angles, to the last bit."""
    ticks = 50.0 / 6.0  # audio latents per latent frame at 24 fps
    clock, sound = clock_table(49, 4, ticks, 128, CPU), audio_table(403, 128, CPU)
    for frame in range(0, 49, 3):
        latent = round(frame * ticks)
        assert frame * ticks == pytest.approx(latent)
        for table, other in zip(clock, sound, strict=True):
            assert torch.allclose(table[4 * frame : 4 * frame + 4], other[latent].expand(4, -1), atol=1e-6)


def test_rotation_keeps_dtype_and_length():
    x = torch.randn(1, 9, 2, 32).to(torch.bfloat16)
    for rotate in (rotate_pairs, rotate_halves):
        y = rotate(x, audio_table(9, 32, CPU))
        assert y.dtype == torch.bfloat16
        assert torch.allclose(y.float().norm(dim=-1), x.float().norm(dim=-1), rtol=1e-2)


@given(
    patch=st.tuples(st.just(1), st.integers(1, 3), st.integers(1, 3)),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    channels=st.integers(1, 5),
)
@settings(max_examples=25, deadline=None)
def test_patching_pictures_equals_the_convolution(patch, grid, channels):
    torch.manual_seed(0)
    layer = PatchVideo(channels, 7, patch, patch)
    x = torch.randn(2, channels, *(g * p for g, p in zip(grid, patch, strict=True)))
    plain = F.conv3d(x, layer.weight, layer.bias, stride=patch).flatten(2).transpose(1, 2)
    assert torch.allclose(layer(x), plain, atol=1e-5)


def test_patching_sound_equals_the_convolution():
    torch.manual_seed(0)
    layer = PatchAudio(16, 24, 1, 1)
    x = torch.randn(2, 16, 19)
    assert torch.allclose(layer(x), F.conv1d(x, layer.weight, layer.bias).transpose(1, 2), atol=1e-6)


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=9), heads=st.integers(1, 3), length=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_counted_keys_equal_the_long_sequence(counts, heads, length):
    torch.manual_seed(sum(counts))
    q, k, v = (torch.randn(2, n, heads, 8) for n in (length, len(counts), len(counts)))
    times = torch.tensor(counts)
    folded = product_attention(q, k, v, times)
    long = product_attention(q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1))
    kernel = attention(q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1))
    assert torch.allclose(folded, long, atol=2e-5)
    assert torch.allclose(long, kernel, atol=2e-5)
    with use_products(times):
        assert torch.equal(attention(q, k, v), folded)


def test_attention_is_its_definition():
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 5, 2, 8), torch.randn(1, 7, 2, 8), torch.randn(1, 7, 2, 8)
    for b, h in ((0, 0), (0, 1)):
        weights = (q[b, :, h].double() @ k[b, :, h].double().T / math.sqrt(8)).softmax(-1)
        assert torch.allclose(attention(q, k, v)[b, :, h].double(), weights @ v[b, :, h].double(), atol=1e-6)


@pytest.fixture(scope="module")
def network() -> DualTower:
    torch.manual_seed(0)
    parts = networks(SIZES["wide"])
    return DualTower(parts["video_dit"], parts["audio_dit"], parts["dual_tower_bridge"]).eval().requires_grad_(False)


def inputs(network: DualTower, batch: int) -> list:
    g = torch.Generator().manual_seed(3)
    v, a = network.config.video, network.config.audio
    return [
        torch.randn(batch, v["in_dim"], 3, 4, 6, generator=g),
        torch.randn(batch, a["in_dim"], 11, generator=g),
        torch.tensor([900.0, 400.0, 20.0, 700.0][:batch]),
        torch.tensor([800.0, 400.0, 90.0, 0.0][:batch]),
        torch.randn(batch, 10, v["text_dim"], generator=g),
    ]


def test_each_samples_own_bridge_strength_equals_single_runs(network):
    given_ = inputs(network, 4)
    a2v, v2a = torch.tensor([1.0, 0.0, 0.5, 2.0]), torch.tensor([0.0, 1.0, 1.5, 1.0])
    both = network(*given_, 6.0, a2v.view(-1, 1, 1), v2a.view(-1, 1, 1))
    for i in range(4):
        single = network(*(x[i : i + 1] for x in given_), 6.0, float(a2v[i]), float(v2a[i]))
        for got, expected in zip(both, single, strict=True):
            error = float((got[i] - expected[0]).abs().max())
            assert error <= 2e-5, f"sample {i}: {error}"


def test_the_bridge_carries_something_each_way(network):
    given_ = inputs(network, 1)
    video, audio = network(*given_, 6.0, 1.0, 1.0)
    assert float((video - network(*given_, 6.0, 0.0, 1.0)[0]).abs().max()) > 1e-3
    assert float((audio - network(*given_, 6.0, 1.0, 0.0)[1]).abs().max()) > 1e-3


def test_without_the_bridge_the_other_side_changes_nothing(network):
    given_, other = inputs(network, 1), inputs(network, 1)
    other[1] = other[1] + 1
    assert torch.equal(network(*given_, 6.0, 0.0, 0.0)[0], network(*other, 6.0, 0.0, 0.0)[0])
    assert not torch.equal(network(*given_, 6.0, 0.0, 0.0)[1], network(*other, 6.0, 0.0, 0.0)[1])

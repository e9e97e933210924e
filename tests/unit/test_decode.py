"""Decoding in large chunks gives what the library's small ones give, and can be stopped between two of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan

from engine.decode import decode_video, stoppable
from engine.encode import encode_frames, latent_statistics
from engine.errors import Cancelled
from engine.folders import find_model
from tests.memory_parts import TINY

FRAMES = 5


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    found: AutoencoderKLWan = AutoencoderKLWan.from_pretrained(TINY / "video_vae").eval()
    return found


def latents(vae: AutoencoderKLWan, frames: int = FRAMES) -> torch.Tensor:
    return torch.randn(1, vae.config.z_dim, frames, 4, 4, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("frames", [1, 2, 5, 8])
@pytest.mark.parametrize("at_once", [1, 2, 3, 16])
@pytest.mark.parametrize("model", [TINY, find_model("demo")], ids=["plain", "patched"])
def test_large_chunks_give_what_the_library_gives(
    model: Path, at_once: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae: AutoencoderKLWan = AutoencoderKLWan.from_pretrained(model / "video_vae", torch_dtype=torch.float32).eval()
    monkeypatch.setattr("engine.memory.plan.CHUNK", 32 * 32 * at_once)
    given, asked = latents(vae, frames), []
    mean, std = latent_statistics(vae)
    with torch.inference_mode():
        slow = vae.decode(given * std + mean).sample
    with stoppable(vae, lambda: asked.append(1)):
        fast = decode_video(vae, given)
    assert fast.shape == slow.shape == (1, 3, 4 * frames - 3, 32, 32)
    assert (fast - slow).abs().max() < 1e-5
    assert len(asked) == 1 + math.ceil((frames - 1) / at_once)


def after(count: int, asked: list[int]) -> Callable[[], None]:
    """Raises when it is asked for the time after `count`."""

    def check() -> None:
        asked.append(1)
        if len(asked) > count:
            raise Cancelled("stopped")

    return check


def test_decoding_stops_before_the_next_frames_and_goes_well_afterwards(
    vae: AutoencoderKLWan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.memory.plan.CHUNK", 1)
    whole = decode_video(vae, latents(vae))
    asked: list[int] = []
    with pytest.raises(Cancelled), stoppable(vae, after(2, asked)):
        decode_video(vae, latents(vae))
    assert len(asked) == 3
    assert all(kept is None for kept in vae._feat_map)
    asked.clear()
    with stoppable(vae, after(FRAMES, asked)):
        assert torch.equal(decode_video(vae, latents(vae)), whole)
    assert len(asked) == FRAMES
    decode_video(vae, latents(vae))
    assert len(asked) == FRAMES  # nobody is asked any more


def test_encoding_stops_too(vae: AutoencoderKLWan) -> None:
    asked: list[int] = []
    with pytest.raises(Cancelled), stoppable(vae, after(1, asked)):
        encode_frames(vae, torch.zeros(1, 3, 9, 32, 32))
    assert len(asked) == 2

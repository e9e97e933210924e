"""A picture that is being encoded or decoded can be stopped between two of its latent frames."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKLWan

from engine.decode import decode_video, stoppable
from engine.encode import encode_frames
from engine.errors import Cancelled
from tests.memory_parts import TINY

FRAMES = 5


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    found: AutoencoderKLWan = AutoencoderKLWan.from_pretrained(TINY / "video_vae").eval()
    return found


def latents(vae: AutoencoderKLWan) -> torch.Tensor:
    return torch.randn(1, vae.config.z_dim, FRAMES, 4, 4, generator=torch.Generator().manual_seed(3))


def after(count: int, asked: list[int]) -> Callable[[], None]:
    """Raises when it is asked for the time after `count`."""

    def check() -> None:
        asked.append(1)
        if len(asked) > count:
            raise Cancelled("stopped")

    return check


def test_decoding_stops_before_the_next_frames_and_goes_well_afterwards(vae: AutoencoderKLWan) -> None:
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

"""From latents to frames and samples, with the check that nothing broken is ever shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKLWan

from engine.encode import latent_statistics, tiling
from engine.errors import NumericsError
from engine.models import AudioVAE


def require_finite(tensor: torch.Tensor, what: str) -> torch.Tensor:
    """`tensor` itself.

    Raises:
        NumericsError: it holds NaN or infinity; the message says `what` it is.
    """
    if not bool(torch.isfinite(tensor).all()):
        raise NumericsError(f"{what} became NaN or infinite; try another precision, or guidance closer to 5")
    return tensor


@contextmanager
def stoppable(vae: AutoencoderKLWan, check: Callable[[], None]) -> Iterator[None]:
    """Within the block `check` is called before every few frames that `vae` encodes or decodes; what it raises ends it.

    A clip goes through the VAE a latent frame at a time, so that a cancel need not wait for the whole of it.
    """
    hooks = [part.register_forward_pre_hook(lambda *_: check()) for part in (vae.encoder, vae.decoder)]
    try:
        yield
    except BaseException:
        vae.clear_cache()  # what it keeps of the frames before
        raise
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def decode_video(vae: AutoencoderKLWan, latents: torch.Tensor, tiled: bool = False) -> torch.Tensor:
    """Normalised latents (B, C, F, H, W) -> frames (B, 3, frames, height, width) in [-1, 1], float32.

    Args:
        tiled: decode in overlapping tiles: less memory, tiny differences where tiles blend.
    """
    mean, std = latent_statistics(vae)
    with tiling(vae, tiled):
        frames = vae.decode((latents.to(vae.device, torch.float32) * std + mean).to(vae.dtype)).sample
    return require_finite(frames.float(), "the picture").clamp_(-1, 1)


@torch.inference_mode()
def decode_audio(vae: AudioVAE, latents: torch.Tensor, samples: int | None = None) -> torch.Tensor:
    """Latents (B, C, N) -> sound (B, samples) float32 in [-1, 1], cut to `samples`. Always computed in float32."""
    sound = vae.decode(latents.to(vae.device, torch.float32))[:, 0]
    return require_finite(sound, "the sound")[:, :samples]

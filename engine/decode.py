"""From latents to frames and samples, with the check that nothing broken is ever shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

from engine.encode import latent_statistics, tiling
from engine.errors import NumericsError
from engine.memory.plan import frames_at_once
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
    latents = (latents.to(vae.device, torch.float32) * std + mean).to(vae.dtype)
    if tiled:
        with tiling(vae, tiled):
            frames = vae.decode(latents).sample
    else:
        frames = _decode_in_chunks(vae, latents)
    return require_finite(frames.float(), "the picture").clamp_(-1, 1)


def _decode_in_chunks(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """What `vae.decode` gives, in fewer and larger chunks.

    The library goes one latent frame at a time, which small pictures do not fill a processor with. Its caches hold the
    last two frames before a chunk, however long that is; only the first latent frame, which is one frame of the picture
    instead of four, stands alone.
    """
    frames, rows, columns = latents.shape[2:]
    step = frames_at_once(rows * columns * vae.config.scale_factor_spatial**2)
    vae.clear_cache()
    x = vae.post_quant_conv(latents)
    parts = []
    for start, end in [(0, 1), *((i, i + step) for i in range(1, frames, step))]:
        vae._conv_idx = [0]
        part = vae.decoder(x[:, :, start:end], vae._feat_map, vae._conv_idx, first_chunk=start == 0)
        parts.append(part)
    vae.clear_cache()
    made = torch.cat(parts, 2)
    return unpatchify(made, vae.config.patch_size) if vae.config.patch_size else made


@torch.inference_mode()
def decode_audio(vae: AudioVAE, latents: torch.Tensor, samples: int | None = None) -> torch.Tensor:
    """Latents (B, C, N) -> sound (B, samples) float32 in [-1, 1], cut to `samples`. Always computed in float32."""
    sound = vae.decode(latents.to(vae.device, torch.float32))[:, 0]
    return require_finite(sound, "the sound")[:, :samples]

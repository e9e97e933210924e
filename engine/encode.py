"""From what the user brings to what the networks see: text to embeddings, pictures and sound to latents.

Shapes: B batch, F latent frames, H/W latent height/width, C latent channels.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ftfy
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from PIL import Image
from scipy.signal import resample_poly
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from engine.errors import RequestError
from engine.models import AudioVAE

TEXT_TOKENS = 512  # what the released weights were trained with; padding is attended to, so it is part of the model


@dataclass(frozen=True)
class TextEmbedding:
    """Attributes: embeds (B, 512, text_dim), zero past each prompt's end; truncated, one flag a prompt."""

    embeds: torch.Tensor
    token_ids: torch.Tensor
    truncated: list[bool]


def clean_prompt(text: str) -> str:
    """Mends broken Unicode, resolves HTML entities (twice, as training did) and collapses white space."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text)))).strip()


@torch.inference_mode()
def encode_text(tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, texts: list[str]) -> TextEmbedding:
    """Cleans, tokenizes to 512 tokens and encodes."""
    cleaned = [clean_prompt(t) for t in texts]
    full = [len(ids) for ids in tokenizer(cleaned)["input_ids"]]
    tokens = tokenizer(cleaned, padding="max_length", truncation=True, max_length=TEXT_TOKENS, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    # The table of words may lie in main memory while the layers compute elsewhere, in another precision.
    norm = encoder.encoder.final_layer_norm.weight
    words = encoder.shared(ids.to(encoder.shared.weight.device)).to(norm)
    hidden = encoder(inputs_embeds=words, attention_mask=mask.to(norm.device)).last_hidden_state
    return TextEmbedding(hidden * mask.to(hidden)[..., None], ids, [n > TEXT_TOKENS for n in full])


def latent_statistics(vae: AutoencoderKLWan) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of the video latents, each (1, C, 1, 1, 1) float32 on the VAE's device."""
    shape = (1, -1, 1, 1, 1)
    return (
        torch.tensor(vae.config.latents_mean, device=vae.device).view(shape),
        torch.tensor(vae.config.latents_std, device=vae.device).view(shape),
    )


@torch.inference_mode()
def encode_frames(vae: AutoencoderKLWan, frames: torch.Tensor) -> torch.Tensor:
    """(B, 3, frames, height, width) in [-1, 1] -> normalised mean latents (B, C, F, H, W), float32."""
    mean, std = latent_statistics(vae)
    count = (frames.shape[2] - 1) // vae.config.scale_factor_temporal + 1
    # diffusers takes the frames after the first in fours and drops a rest; the network is causal, so that frames put
    # behind the clip change nothing before them.
    frames = F.pad(frames, (0, 0, 0, 0, 0, -(frames.shape[2] - 1) % 4))
    latents = vae.encode(frames.to(vae.device, vae.dtype)).latent_dist.mode()[:, :, :count]
    return (latents.float() - mean) / std


def condition_latents(
    vae: AutoencoderKLWan,
    first: torch.Tensor | None,
    last: torch.Tensor | None,
    frames: int,
    height: int,
    width: int,
    tiled: bool = False,
) -> torch.Tensor:
    """Mask and latents of the known frames.

    Args:
        first, last: (3, height, width) in [-1, 1], or None. Without a first picture it is white, which is what the
            released weights accept as "no picture".
        tiled: encode in overlapping tiles: less memory, tiny differences where tiles blend.

    Returns:
        (1, stride + C, F, H, W): the mask channels, one per frame of a latent frame, then the condition latents of
        [first, 0, ..., last].
    """
    stride, spatial = vae.config.scale_factor_temporal, vae.config.scale_factor_spatial
    video = torch.zeros(1, 3, frames, height, width)
    video[0, :, 0] = 1.0 if first is None else first
    mask = torch.zeros(1, stride, (frames - 1) // stride + 1, height // spatial, width // spatial)
    mask[:, :, 0] = 1
    if last is not None:
        video[0, :, -1] = last
        mask[:, -1, -1] = 1
    with tiling(vae, tiled):
        latents = encode_frames(vae, video)
    return torch.cat((mask.to(latents), latents), 1)


@contextmanager
def tiling(vae: AutoencoderKLWan, tiled: bool) -> Iterator[None]:
    """Tiled only within the block: the VAE is shared by encoding and decoding."""
    before = vae.use_tiling
    if tiled:
        vae.enable_tiling()
    try:
        yield
    finally:
        vae.use_tiling = before


def picture_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB picture -> (3, height, width) float32 in [-1, 1]."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


def frames_tensor(frames: Any) -> torch.Tensor:
    """Frames as users hold them -> (B, 3, frames, height, width) float32 in [-1, 1].

    Args:
        frames: array or tensor (F, H, W, 3) or (B, F, H, W, 3), uint8 0..255 or float 0..1.
    """
    array = frames.detach().cpu().numpy() if isinstance(frames, torch.Tensor) else np.asarray(frames)
    if array.ndim == 4:
        array = array[None]
    if array.ndim != 5 or array.shape[-1] != 3:
        raise RequestError(f"frames have shape {array.shape}; expected (F, H, W, 3) or (B, F, H, W, 3)")
    scaled = array / 127.5 - 1 if array.dtype == np.uint8 else array * 2.0 - 1
    return torch.from_numpy(scaled.astype(np.float32)).permute(0, 4, 1, 2, 3).contiguous()


@torch.inference_mode()
def encode_samples(vae: AudioVAE, samples: Any, rate: int) -> torch.Tensor:
    """Sound -> mean latents (B, C, N), float32; N covers every sample.

    Args:
        samples: (T,) or (B, T) mono floats in [-1, 1], array or tensor.
        rate: their sample rate in Hz; resampled to the VAE's where it differs.
    """
    array = np.asarray(samples.detach().cpu() if isinstance(samples, torch.Tensor) else samples, dtype=np.float64)
    if array.ndim == 3 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2):
        raise RequestError(f"samples have shape {array.shape}; expected (T,) or (B, T)")
    array = np.atleast_2d(array)
    if rate != vae.sample_rate:
        common = math.gcd(int(rate), vae.sample_rate)
        array = resample_poly(array, vae.sample_rate // common, int(rate) // common, axis=-1)
    short = -array.shape[-1] % vae.hop
    wave = torch.from_numpy(np.pad(array, ((0, 0), (0, short))).astype(np.float32))[:, None]
    return vae.encode(wave.to(vae.device, vae.dtype))[0].float()

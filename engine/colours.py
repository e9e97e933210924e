"""Colours straight from latents: one matrix, for looks at a clip while the VAE that would decode it is far away.

The matrix is fitted to the model's own VAE: seeded soft patches of colour are encoded, and the mean colour of each
latent pixel is explained by its channels (least squares). It shows colours and shapes at the size of the latents.
"""

from __future__ import annotations

import weakref

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan

from engine.encode import encode_frames

SIDE, FRAMES = 128, 5  # pixels along a side of a picture, and frames
PATCHES = (4, 4, 4, 4)  # colour patches along a side, a picture each
RIDGE = 1e-3
_fitted: weakref.WeakKeyDictionary[AutoencoderKLWan, torch.Tensor] = weakref.WeakKeyDictionary()


@torch.inference_mode()
def colour_matrix(vae: AutoencoderKLWan) -> torch.Tensor:
    """(C + 1, 3) float32 on the CPU: from a latent pixel's channels and a 1 to its colour in [-1, 1]. Kept a VAE."""
    known = _fitted.get(vae)
    if known is None:
        generator = torch.Generator().manual_seed(0)
        patches = [torch.rand(1, 3, n, n, generator=generator) * 2 - 1 for n in PATCHES]
        pictures = torch.cat([F.interpolate(p, (SIDE, SIDE), mode="bicubic") for p in patches]).clamp_(-1, 1)
        clip = pictures[:, :, None].expand(-1, -1, FRAMES, -1, -1)
        latents = encode_frames(vae, clip).cpu()  # the first latent frame, and one of those after it
        colours = F.interpolate(pictures, latents.shape[3:], mode="area")
        channels = latents.permute(0, 2, 3, 4, 1)
        wanted = colours[:, None].expand(-1, latents.shape[2], -1, -1, -1).permute(0, 1, 3, 4, 2).reshape(-1, 3)
        given = F.pad(channels.reshape(-1, channels.shape[-1]), (0, 1), value=1.0)
        square = given.T @ given + RIDGE * len(given) * torch.eye(given.shape[1])
        known = _fitted[vae] = torch.linalg.solve(square, given.T @ wanted)
    return known


@torch.inference_mode()
def colours_of(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Normalised latents (B, C, H, W) on any device -> (B, 3, H, W) in [-1, 1], on the CPU."""
    pixels = F.pad(latents.float().cpu().permute(0, 2, 3, 1), (0, 1), value=1.0)
    return (pixels @ colour_matrix(vae)).clamp_(-1, 1).permute(0, 3, 1, 2)

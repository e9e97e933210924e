"""What a call returns: the clips of one run, in the form that was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

OUTPUT_TYPES = ("np", "pil", "pt", "latent")


@dataclass(frozen=True)
class MovaOutput:
    """One run's clips.

    Attributes:
        frames: (B, F, H, W, 3) float32 in [0, 1] for "np"; lists of pictures for "pil"; (B, F, 3, H, W) for "pt";
            None for "latent".
        audio: (B, samples) float32, exactly as long as the frames; a tensor for "pt", None for "latent".
        sample_rate: of the audio, Hz.
        fps: frames per second.
        video_latents, audio_latents: (B, C, F, H, W) and (B, C', N), float32.
        seeds: one a clip.
        truncated: one a clip: the prompt was longer than the model reads, and its end was cut.
    """

    frames: Any
    audio: Any
    sample_rate: int
    fps: float
    video_latents: torch.Tensor
    audio_latents: torch.Tensor
    seeds: list[int] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)


def in_form(frames: torch.Tensor, sound: torch.Tensor, output_type: str) -> tuple[Any, Any]:
    """Frames (B, 3, F, H, W) in [0, 1] and sound (B, samples) as "np", "pil" or "pt"; see `MovaOutput`."""
    if output_type == "pt":
        return frames.transpose(1, 2), sound
    array = frames.permute(0, 2, 3, 4, 1).cpu().numpy()
    if output_type == "pil":
        pictures = [[Image.fromarray(np.rint(f * 255).astype(np.uint8)) for f in clip] for clip in array]
        return pictures, sound.cpu().numpy()
    return np.ascontiguousarray(array), sound.cpu().numpy()

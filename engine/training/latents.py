"""Clips as latents: what the towers are trained on, made once and cached.

A shard of rendered clips becomes two shards of latents of the same number, float16, as the VAEs give them: one with
``video`` and ``condition`` (n, C, F, H, W), one with ``audio`` (n, C', N). The condition of a clip is the encoding of
[first frame, 0, 0, ...]. The encoder looks only back in time, and only so far: what it makes of the grey frames after
the first few is the same for every clip, so a short stretch is encoded for each and the rest once for all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from engine.device import multiplies_bfloat16
from engine.models import AudioVAE
from engine.training.data import SHARD, ClipFormat, read_shards, shard_path, shard_sizes, spec_at
from engine.training.towers import JointLatents
from engine.training.video_vae import encode_whole

log = logging.getLogger(__name__)

Array = np.ndarray
TOGETHER = 4  # clips encoded at once
HEAD_FRAMES = 29  # frames of [first, 0, 0, ...] that are encoded for each clip


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and deviation of each channel of the picture's latents, and deviation of the sound's."""

    video_mean: list[float]
    video_std: list[float]
    audio_std: list[float]


@torch.no_grad()
def encode_pictures(vae: AutoencoderKLWan, frames: Tensor) -> Tensor:
    """(B, T, H, W, 3) uint8 -> mean latents (B, C, F, h, w), float32."""
    video = frames.to(vae.device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    return encode_whole(vae, video)[0].float().cpu()


@torch.no_grad()
def encode_conditions(vae: AutoencoderKLWan, first: Tensor, frames: int, rest: Tensor | None = None) -> Tensor:
    """Latents of [first, 0, 0, ...].

    Args:
        first: (B, H, W, 3) uint8.
        frames: length of the clip.
        rest: (1, C, F, h, w) from any other picture, for the frames that no longer see the first; None encodes all.
    """
    count = frames if rest is None else min(frames, HEAD_FRAMES)
    video = torch.zeros(len(first), 3, count, *first.shape[1:3], device=vae.device)
    video[:, :, 0] = first.to(vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    latents = encode_whole(vae, video)[0].float().cpu()
    if rest is None:
        return latents
    return torch.cat((latents, rest[:, :, latents.shape[2] :].expand(len(first), -1, -1, -1, -1)), 2)


@torch.no_grad()
def encode_sounds(vae: AudioVAE, samples: Array) -> Tensor:
    """(B, T) int16 -> mean latents (B, C, N), float32; N covers every sample."""
    wave = torch.from_numpy(samples.astype(np.float32) / 32767.0).to(vae.device)
    return vae.encode(torch.nn.functional.pad(wave, (0, -wave.shape[1] % vae.hop))[:, None])[0].float().cpu()


def encode_pictures_of(
    data: Path, folder: Path, clips: int, form: ClipFormat, vae: AutoencoderKLWan, share: tuple[int, int] = (0, 1)
) -> None:
    """All missing shards of a set's pictures; a shard appears whole or not at all.

    Args:
        share: (i, n) does every n-th shard from i on, for n processes side by side.
    """
    grey = torch.full((1, form.height, form.width, 3), 128, dtype=torch.uint8)
    half = torch.autocast(vae.device.type, torch.bfloat16, enabled=multiplies_bfloat16(vae.device))
    with half:
        rest = encode_conditions(vae, grey, form.frames)
    for path, frames, _ in _missing(data, folder, clips, share):
        pictures = torch.from_numpy(frames)
        rows = [slice(i, i + TOGETHER) for i in range(0, len(pictures), TOGETHER)]
        with half:
            video = torch.cat([encode_pictures(vae, pictures[r]) for r in rows])
            condition = torch.cat([encode_conditions(vae, pictures[r, 0], form.frames, rest) for r in rows])
        _write(path, {"video": video, "condition": condition})


def encode_sounds_of(data: Path, folder: Path, clips: int, vae: AudioVAE) -> None:
    """All missing shards of a set's sounds."""
    for path, _, audio in _missing(data, folder, clips):
        _write(path, {"audio": torch.cat([encode_sounds(vae, audio[i : i + 16]) for i in range(0, len(audio), 16)])})


def _missing(
    data: Path, folder: Path, clips: int, share: tuple[int, int] = (0, 1)
) -> Iterator[tuple[Path, Array, Array]]:
    """The path, frames and sound of each shard that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = shard_sizes(clips)
    for number, count in enumerate(sizes):
        path = shard_path(folder, number)
        if number % share[1] == share[0] and not path.exists():
            frames, audio = next(read_shards(data, number * SHARD, count))
            yield path, frames, audio
            if (number + 1) % 8 == 0 or number + 1 == len(sizes):
                log.info("%s: %d of %d shards", folder.name, number + 1, len(sizes))


def _write(path: Path, latents: dict[str, Tensor]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with partial.open("wb") as file:
        arrays: dict[str, Any] = {name: value.numpy().astype(np.float16) for name, value in latents.items()}
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_latents(
    pictures: Path,
    sounds: Path,
    name: str,
    clips: int,
    seed: int,
    blank: Tensor,
    statistics: LatentStatistics | None = None,
) -> JointLatents:
    """A cached set in memory, normalised.

    Args:
        pictures, sounds: folders of the shards.
        blank: (1, C, F, h, w), the condition of a white first frame, not yet normalised.
        statistics: None leaves the latents as they are.
    """
    video, condition = (_gather(pictures, key, clips) for key in ("video", "condition"))
    audio = _gather(sounds, "audio", clips)
    specs = [spec_at(seed, name, i) for i in range(clips)]
    if statistics is None:
        return JointLatents(video, condition, audio, blank[0].half(), specs)
    shape = (1, -1, 1, 1, 1)
    mean, std = (torch.tensor(v).view(shape) for v in (statistics.video_mean, statistics.video_std))

    def normal(x: Tensor) -> Tensor:
        for start in range(0, len(x), SHARD):  # in place, shard by shard: no second copy of everything
            x[start : start + SHARD] = ((x[start : start + SHARD].float() - mean) / std).half()
        return x

    scale = torch.tensor(statistics.audio_std).view(1, -1, 1)
    sound = (audio.float() / scale).half()
    return JointLatents(normal(video), normal(condition), sound, ((blank - mean) / std)[0].half(), specs)


def _gather(folder: Path, key: str, clips: int) -> Tensor:
    parts = []
    for number, count in enumerate(shard_sizes(clips)):
        with np.load(shard_path(folder, number)) as shard:
            parts.append(shard[key][:count])
    return torch.from_numpy(np.concatenate(parts))


def measure(latents: JointLatents) -> LatentStatistics:
    """Statistics over the raw latents of a set."""
    video, audio = latents.video.float(), latents.audio.float()
    return LatentStatistics(
        video.mean((0, 2, 3, 4)).tolist(), video.std((0, 2, 3, 4)).tolist(), audio.std((0, 2)).tolist()
    )

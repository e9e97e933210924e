"""The demo model's video VAE: a small ``AutoencoderKLWan``, trained on rendered clips.

The library's VAE runs in chunks of four frames with caches, which is slow to train. ``encode_whole`` and
``decode_whole`` run the same modules over the whole sequence at once and give the same numbers; a test holds them
together. Shapes: B batch, T frames, F = (T - 1) / 4 + 1 latent frames, z latent channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample
from einops import rearrange
from torch import Tensor, nn

from engine.training.loop import Average, Figures, generator_at

Array = np.ndarray
MOVING = 0.08  # change between neighbouring frames, of a range of 2, from which a pixel counts as moving
DECIBEL_WEIGHT = 0.1  # so that gradients are as large as those of the weighted loss, and the KL term as heavy
TINY = 1e-6  # added to a mean square before its logarithm, 66 dB
LOGVAR_BIAS = -5.0  # of the latents at the start: noise of .08 on latents near 1


def make_video_vae(config: dict[str, Any]) -> AutoencoderKLWan:
    """A fresh VAE whose time convolutions do nothing yet, so that single frames can be learned first.

    Args:
        config: arguments of ``AutoencoderKLWan``; ``latents_mean`` and ``latents_std`` are filled in at export.
    """
    z = int(config["z_dim"])
    vae = AutoencoderKLWan(**{"latents_mean": [0.0] * z, "latents_std": [1.0] * z, **config})
    for module in vae.modules():
        if isinstance(module, WanCausalConv3d) and module.kernel_size[0] == 3:
            _init_in_time(module)
    with torch.no_grad():
        bias = vae.quant_conv.bias
        assert bias is not None
        vae.quant_conv.weight[z:].mul_(0.1)
        bias[z:] = LOGVAR_BIAS
    return vae


@torch.no_grad()
def _init_in_time(conv: WanCausalConv3d) -> None:
    """A 3x3x3 convolution that looks at the present frame only; a 3x1x1 one that copies it."""
    weight = conv.weight  # (out, in, 3, h, w)
    if weight.shape[3:] == (1, 1):
        out, into = weight.shape[:2]
        weight.zero_()
        weight[:, :, -1, 0, 0] = torch.eye(into).repeat(out // into, 1)
        if conv.bias is not None:
            conv.bias.zero_()
        return
    weight[:, :, :2] = 0.0
    weight[:, :, 2].mul_(math.sqrt(3.0))  # the fan that is left is a third


def encode_whole(vae: AutoencoderKLWan, video: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, T, H, W) in [-1, 1] -> mean and log-variance of the latents, each (B, z, F, H/8, W/8)."""
    x, patch = video, vae.config.patch_size
    if patch:
        x = rearrange(x, "B C T (h y) (w x) -> B (C x y) T h w", y=patch, x=patch)
    encoder = vae.encoder
    x = encoder.conv_in(x)
    for layer in encoder.down_blocks:
        x = _shrink(layer, x) if isinstance(layer, WanResample) else layer(x)
    x = encoder.conv_out(encoder.nonlinearity(encoder.norm_out(encoder.mid_block(x))))
    mean, logvar = vae.quant_conv(x).chunk(2, 1)
    return mean, logvar.clamp(-30.0, 20.0)


def decode_whole(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """(B, z, F, h, w) -> (B, 3, T, H, W), not clamped: training wants a gradient outside [-1, 1] too."""
    decoder, patch = vae.decoder, vae.config.patch_size
    x = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents)))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = resnet(x)
        for layer in block.upsamplers or ():
            x = _grow(layer, x)
    x = decoder.conv_out(decoder.nonlinearity(decoder.norm_out(x)))
    if patch:
        x = rearrange(x, "B (C x y) T h w -> B C T (h y) (w x)", y=patch, x=patch)
    return x


def _shrink(layer: WanResample, x: Tensor) -> Tensor:
    """Half the size; in time the first frame stays alone and every two after it become one."""
    x = _each_frame(layer.resample, x)
    if layer.mode == "downsample3d" and x.shape[2] > 1:
        later = nn.Conv3d.forward(layer.time_conv, x)  # windows of frames 0-2, 2-4, ...: no padding
        x = torch.cat((x[:, :, :1].to(later.dtype), later), 2)
    return x


def _grow(layer: WanResample, x: Tensor) -> Tensor:
    """Twice the size; in time the first frame stays alone and every one after it becomes two.

    The time convolution never sees the first frame: the library starts its cache after it.
    """
    if layer.mode == "upsample3d" and x.shape[2] > 1:
        later = layer.time_conv(x[:, :, 1:])
        later = rearrange(later, "B (two C) T h w -> B C (T two) h w", two=2)
        x = torch.cat((x[:, :, :1].to(later.dtype), later), 2)
    return _each_frame(layer.resample, x)


def _each_frame(module: nn.Module, x: Tensor) -> Tensor:
    """A 2-D module over every frame."""
    frames = x.shape[2]
    return rearrange(module(rearrange(x, "B C T h w -> (B T) C h w")), "(B T) C h w -> B C T h w", T=frames)


def moving_pixels(video: Tensor) -> Tensor:
    """Where (B, 3, T, H, W) differs from the frame before or after: (B, 1, T, H, W) bool."""
    change = (video[:, :, 1:] - video[:, :, :-1]).abs().amax(1, keepdim=True) > MOVING
    return F.pad(change, (0, 0, 0, 0, 1, 0)) | F.pad(change, (0, 0, 0, 0, 0, 1))


class VideoVaeObjective(nn.Module):
    """The VAE with its loss, as one module, so that whatever wraps a module can wrap both."""

    def __init__(self, vae: AutoencoderKLWan, moving_weight: float, kl_weight: float, square_weight: float) -> None:
        super().__init__()
        self.decibels, self.moving_share = False, 0.5  # set by the task, step by step
        self.vae = vae
        self.moving_weight = moving_weight
        self.kl_weight = kl_weight
        self.square_weight = square_weight

    def forward(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """frames (B, T, H, W, 3) uint8, noise (B, z, F, h, w) -> loss and figures."""
        video = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
        mean, logvar = encode_whole(self.vae, video)
        mean, logvar = mean.float(), logvar.float()
        made = decode_whole(self.vae, mean + (0.5 * logvar).exp() * noise).float()
        moving = moving_pixels(video)
        difference = made - video
        loss = (
            in_decibels(difference, moving, self.moving_share) if self.decibels else self._weighted(difference, moving)
        )
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        square = difference.detach().square().mean()
        figures = {"error": loss.detach(), "kl": kl.detach(), "psnr": 10.0 * torch.log10(4.0 / square)}
        return loss + self.kl_weight * kl, figures

    def _weighted(self, difference: Tensor, moving: Tensor) -> Tensor:
        weight = 1.0 + (self.moving_weight - 1.0) * moving
        error = difference.abs() + self.square_weight * difference.square()
        return (weight * error).mean() / weight.mean()


def in_decibels(difference: Tensor, moving: Tensor, moving_share: float = 0.5) -> Tensor:
    """DECIBEL_WEIGHT times a mean of ln(MSE) over all pixels and ln(MSE) over the moving ones.

    Every relative gain counts alike, however small the error is by now: what a figure in dB asks for.

    Args:
        difference: (B, 3, T, H, W).
        moving: (B, 1, T, H, W) bool.
        moving_share: weight of the moving ones in that mean.
    """
    square = difference.square().mean(1, keepdim=True)
    # without moving pixels the second term is a constant
    there = (square * moving).sum() / moving.sum().clamp(min=1)
    all_, moved = (square.mean() + TINY).log(), (there + TINY).log()
    return DECIBEL_WEIGHT * ((1.0 - moving_share) * all_ + moving_share * moved)


def channels_last(module: nn.Module) -> None:
    """Convolution weights in the layout that CPUs and tensor cores run twice as fast; no number changes."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last_3d)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Part:
    """A stretch of training: ``steps`` steps on windows of ``frames`` frames, ``batch`` of them at once.

    Attributes:
        encoder: False leaves the encoder as it is; only the decoder learns.
        decibels: the loss is `in_decibels` instead of the weighted error.
        moving_share: what moving pixels count in it.
    """

    steps: int
    frames: int
    batch: int
    encoder: bool = True
    decibels: bool = False
    moving_share: float = 0.5


class VideoVaeTask:
    """Windows of random clips from random frames on; held-out figures over whole clips."""

    def __init__(
        self,
        objective: VideoVaeObjective,
        parts: tuple[Part, ...],
        seed: int,
        train: Array,
        held: Array,
        name: str = "video-vae",
    ) -> None:
        """``train`` and ``held``: (clips, frames, height, width, 3) uint8."""
        self.name = name
        self.module: nn.Module = objective
        self.objective = objective
        self.parts = parts
        self.seed = seed
        self.train = train
        self.held = held

    def part_at(self, step: int) -> Part:
        for part in self.parts:
            if step < part.steps:
                return part
            step -= part.steps
        return self.parts[-1]

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        part = self.part_at(step)
        generator = generator_at(self.seed, step, rank)
        clips, length = self.train.shape[:2]
        count = max(1, part.batch // world)
        which = torch.randint(clips, (count,), generator=generator).tolist()
        start = torch.randint(length - part.frames + 1, (count,), generator=generator).tolist()
        windows = np.stack([self.train[c, s : s + part.frames] for c, s in zip(which, start, strict=True)])
        config = self.objective.vae.config
        side = [n // config.scale_factor_spatial for n in self.train.shape[2:4]]
        shape = (count, config.z_dim, (part.frames - 1) // config.scale_factor_temporal + 1, *side)
        return {"frames": torch.from_numpy(windows), "noise": torch.randn(shape, generator=generator)}

    def before_step(self, step: int, average: Average) -> None:
        """Chooses the loss of the step's part, and freezes or frees the encoder."""
        part, vae = self.part_at(step), self.objective.vae
        self.objective.decibels, self.objective.moving_share = part.decibels, part.moving_share
        encoder = [*vae.encoder.parameters(), *vae.quant_conv.parameters()]
        if part.encoder:
            for parameter in encoder:
                parameter.requires_grad_(True)
        else:
            average.freeze(self.objective, encoder)

    @torch.no_grad()
    def evaluate(self, module: nn.Module, step: int) -> Figures:
        """dB over all pixels of the held-out clips, over their first frames and over moving pixels."""
        sums = np.zeros(6)
        whole = []
        device = next(module.parameters()).device
        for clip in self.held:
            video = torch.from_numpy(clip[None]).to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
            mean, _ = encode_whole(self.objective.vae, video)
            made = decode_whole(self.objective.vae, mean).float().clamp(-1, 1)
            error = (made - video).square().mean(1, keepdim=True)
            moving = moving_pixels(video)
            whole.append(float(10.0 * torch.log10(4.0 / error.mean())))
            sums += [
                float(error.sum()), error.numel(), float(error[:, :, 0].sum()), error[:, :, 0].numel(),
                float(error[moving].sum()), float(moving.sum()),
            ]  # fmt: skip
        all_, first, moved = (float(10.0 * np.log10(4.0 * sums[i + 1] / sums[i])) for i in (0, 2, 4))
        return {"psnr": all_, "clip_psnr": float(np.mean(whole)), "first_frame_psnr": first, "moving_psnr": moved}

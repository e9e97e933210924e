"""The demo model's audio VAE: a small continuous DAC, trained on the sounds of rendered clips.

With the usual initialisation such a network stays silent for a thousand steps. So the weights start with unit gain,
the latents with unit deviation and the output quietly. What is compared first is the waveform alone, by its square:
that is learned at once, as a linear code is. Spectra at several resolutions come in later; from the start they would
ask for silence, since noise in a silent band costs more than a tone that is missing.
Shapes: B batch, T samples, N = T / hop latents, C latent channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.evaluation.judges import load_referee
from engine.evaluation.onsets import find_onsets
from engine.models import AudioVAE
from engine.models.dac import Snake
from engine.training.loop import Average, Figures, generator_at

Array = np.ndarray
WINDOWS = (1024, 256, 64)  # samples; hops are a quarter of them
BANDS = (48, 24, 8)  # bands that each window's spectrum is gathered into
FLOOR = 0.05  # least mean magnitude that errors are measured by, so that a silent window does not weigh more
QUIET = 1e-6  # energy, of a sine at full scale: 60 dB below it
OUTPUT_RMS = 0.04  # at the start; louder noise is so wrong that training would begin by silencing it
LOGVAR_BIAS = -4.5  # of the latents at the start
ONSET_REACH = 0.09  # s within which an onset of the copy answers one of the sound


@torch.no_grad()
def make_audio_vae(config: dict[str, Any], probe: Tensor) -> AudioVAE:
    """A fresh VAE with unit gains.

    Args:
        config: arguments of ``AudioVAE``.
        probe: sounds (B, 1, T) by which the scales of latents and output are set.
    """
    vae = AudioVAE(**config)
    for module in vae.modules():
        if isinstance(module, nn.ConvTranspose1d):  # two taps of the kernel reach each sample
            nn.init.normal_(module.weight, std=math.sqrt(1.0 / (2 * module.in_channels)))
        elif isinstance(module, nn.Conv1d):
            nn.init.normal_(module.weight, std=math.sqrt(1.0 / (module.in_channels * module.kernel_size[0])))
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for part in (vae.encoder, vae.decoder):
        for block in part.modules():
            inner = getattr(block, "block", None)
            if isinstance(inner, nn.Sequential) and len(inner) == 4 and isinstance(inner[3], nn.Conv1d):
                inner[3].weight.mul_(0.3)  # residual branches begin quietly
    half = vae.config.latent_dim
    vae.quant_conv.weight[half:].mul_(0.1)
    vae.quant_conv.bias[half:] = LOGVAR_BIAS
    mean, _ = vae.encode(probe)
    vae.quant_conv.weight[:half].div_(mean.std().clamp_min(1e-6))
    mean, _ = vae.encode(probe)
    out = [layer for layer in vae.decoder.model if isinstance(layer, nn.Conv1d)][-1]
    level = torch.atanh(vae.decode(mean).clamp(-0.999, 0.999)).square().mean().sqrt()
    out.weight.mul_(OUTPUT_RMS / level.clamp_min(1e-6))
    return vae


def spectra(wave: Tensor, window: int) -> Tensor:
    """(B, T) -> magnitudes (B, window / 2 + 1, steps), float32."""
    shape = torch.hann_window(window, device=wave.device)
    found = torch.stft(wave, window, window // 4, window=shape, return_complex=True)
    return torch.view_as_real(found).square().sum(-1).add(1e-8).sqrt()


def spectral_error(made: Tensor, wanted: Tensor) -> Tensor:
    """How far two sounds are apart in band levels and in spectra, each by its own size, over all WINDOWS.

    Band levels are compared by their square root, which stands for the ear.
    """
    total = made.new_zeros(())
    for window, bands in zip(WINDOWS, BANDS, strict=True):
        ours, theirs = spectra(made, window), spectra(wanted, window)
        total = total + (ours - theirs).norm() / theirs.norm().clamp_min(FLOOR)
        filters = band_filters(window, bands).to(made)
        ours, theirs = ((filters @ x.square() + 1e-6).sqrt().sqrt() for x in (ours, theirs))
        total = total + 2.0 * (ours - theirs).abs().mean() / theirs.mean().clamp_min(FLOOR)
    return total / len(WINDOWS)


@cache
def band_filters(window: int, bands: int) -> Tensor:
    """Triangles (bands, window / 2 + 1) that widen with the frequency, at least two bins wide each."""
    bins = torch.arange(window // 2 + 1, dtype=torch.float32)
    top = window / 2.0
    edges = [0.0]
    for k in range(bands + 1):  # as even as possible on a logarithmic scale, but never closer than a bin
        edges.append(max(edges[-1] + 1.0, top ** ((k + 1) / (bands + 1))))
    scale = top / edges[-1]
    e = torch.tensor(edges) * scale
    up = (bins - e[:-2, None]) / (e[1:-1] - e[:-2])[:, None]
    down = (e[2:, None] - bins) / (e[2:] - e[1:-1])[:, None]
    return torch.minimum(up, down).clamp_min(0.0)


def level_error(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean difference of band levels in powers of ten, over all WINDOWS; below QUIET one silence is like another.

    What ``spectral_error`` hardly sees and the ear does: the quiet end of a sound, which says what it was.
    """
    total = made.new_zeros(())
    for window, bands in zip(WINDOWS, BANDS, strict=True):
        filters = band_filters(window, bands).to(made)
        full = (window / 4.0) ** 2  # energy in the bin of a sine at full scale, under a Hann window
        ours, theirs = ((filters @ spectra(x, window).square() / full + QUIET).log10() for x in (made, wanted))
        total = total + (ours - theirs).abs().mean()
    return total / len(WINDOWS)


def wave_error(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean square difference of waveforms by the mean square of what is wanted."""
    return (made - wanted).square().mean() / wanted.square().mean().clamp_min(1e-6)


class AudioVaeObjective(nn.Module):
    """The VAE with its loss."""

    def __init__(self, vae: AudioVAE, kl_weight: float) -> None:
        super().__init__()
        self.vae = vae
        self.kl_weight = kl_weight

    def forward(
        self, samples: Tensor, noise: Tensor, spectral_weight: Tensor, level_weight: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """samples (B, T) int16, noise (B, C, N), weights () of the spectra and of the levels -> loss and figures.

        In float32 whatever the surroundings say: bf16 is coarser than the quiet parts, and no faster here.
        """
        with torch.autocast(samples.device.type, enabled=False):
            wanted = samples.float() / 32767.0
            mean, logvar = self.vae.encode(wanted[:, None])
            logvar = logvar.clamp(-30.0, 20.0)
            made = self.vae.decode(mean + (0.5 * logvar).exp() * noise)[:, 0]
            spectral = spectral_error(made, wanted)
            wave = wave_error(made, wanted) + 0.5 * wave_error(made.diff(dim=1), wanted.diff(dim=1))
            level = level_error(made, wanted)
            kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        figures = {"spectral": spectral.detach(), "level": level.detach(), "wave": wave.detach(), "kl": kl.detach()}
        return wave + spectral_weight * spectral + level_weight * level + self.kl_weight * kl, figures


@dataclass(frozen=True)
class AudioVaeRecipe:
    """How the batches of the stage are made.

    Attributes:
        batch: windows in a step.
        window: their length in samples.
        spectral: pairs (step, weight) in order: from that step on, spectra count so much.
        levels: the same for the differences of levels.
        frozen_from: step from which the encoder stays as it is and only the decoder learns; 0 for never.
    """

    batch: int = 12
    window: int = 9600
    spectral: tuple[tuple[int, float], ...] = ()
    levels: tuple[tuple[int, float], ...] = ()
    frozen_from: int = 0


class AudioVaeTask:
    """Windows of random sounds; held-out figures over whole clips, by the referee's ear and its onsets."""

    name = "audio-vae"

    def __init__(
        self,
        objective: AudioVaeObjective,
        recipe: AudioVaeRecipe,
        seed: int,
        train: Array,
        held: Array,
        names: Sequence[str],
    ) -> None:
        """``train``, ``held``: (clips, samples) int16; ``names``: the family of each held-out clip."""
        assert recipe.window % objective.vae.hop == 0, f"window {recipe.window} is no multiple of {objective.vae.hop}"
        self.module: nn.Module = objective
        self.objective = objective
        self.recipe = recipe
        self.seed = seed
        self.train = train
        self.held = held
        self.names = list(names)

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        generator = generator_at(self.seed, step, rank)
        clips, samples = self.train.shape
        count = max(1, self.recipe.batch // world)
        which = torch.randint(clips, (count,), generator=generator).tolist()
        start = torch.randint(samples - self.recipe.window + 1, (count,), generator=generator).tolist()
        windows = np.stack([self.train[c, s : s + self.recipe.window] for c, s in zip(which, start, strict=True)])
        vae = self.objective.vae
        noise = torch.randn((count, vae.config.latent_dim, self.recipe.window // vae.hop), generator=generator)
        return {
            "samples": torch.from_numpy(windows),
            "noise": noise,
            "spectral_weight": torch.tensor(_weight_at(self.recipe.spectral, step)),
            "level_weight": torch.tensor(_weight_at(self.recipe.levels, step)),
        }

    def before_step(self, step: int, average: Average) -> None:
        """Freezes the encoder when its time has come."""
        if self.recipe.frozen_from and step >= self.recipe.frozen_from:
            encoder = [*self.objective.vae.encoder.parameters(), *self.objective.vae.quant_conv.parameters()]
            average.freeze(self.objective, encoder)

    @torch.no_grad()
    def evaluate(self, module: nn.Module, step: int) -> Figures:
        """Share of sounds whose class the ear still hears, median onset error (ms), missed and extra onsets."""
        with torch.autocast(self.objective.vae.device.type, enabled=False):
            return self._listen()

    def _listen(self) -> Figures:
        vae, referee = self.objective.vae, load_referee()
        rate, errors, kept, missed, extra, spectral = vae.sample_rate, [], [], 0, 0, []
        for clip, family in zip(self.held, self.names, strict=True):
            wanted = torch.from_numpy(clip.astype(np.float32) / 32767.0)[None]
            whole = nn.functional.pad(wanted, (0, -wanted.shape[1] % vae.hop))[:, None]
            made = vae.decode(vae.encode(whole.to(vae.device))[0].float())[:, 0, : wanted.shape[1]].float().cpu()
            spectral.append(float(spectral_error(made, wanted)))
            kept.append(referee.hear(made[0].numpy(), rate) == family)
            there, here = find_onsets(wanted[0].numpy(), rate), find_onsets(made[0].numpy(), rate)
            near = [float(np.abs(here - t).min()) if len(here) else np.inf for t in there]
            errors += [e for e in near if e <= ONSET_REACH]
            missed += sum(e > ONSET_REACH for e in near)
            extra += sum(bool(len(there) == 0 or np.abs(there - t).min() > ONSET_REACH) for t in here)
        return {
            "spectral": float(np.mean(spectral)),
            "class_kept": float(np.mean(kept)),
            "onset_ms": float(np.median(errors)) * 1000.0 if errors else float("nan"),
            "missed": missed,
            "extra": extra,
        }


def _weight_at(plan: Sequence[tuple[int, float]], step: int) -> float:
    return next((weight for begin, weight in reversed(plan) if step >= begin), 0.0)


@torch.no_grad()
def fold_scale(vae: AudioVAE, deviation: Tensor) -> None:
    """Rescales the latents to unit deviation, inside the two 1x1 convolutions: the decoded sound stays the same.

    Args:
        deviation: (C,), of the latents over many clips.
    """
    half, bias = vae.config.latent_dim, vae.quant_conv.bias
    assert bias is not None
    scale = deviation.to(vae.quant_conv.weight).clamp_min(1e-6)
    vae.quant_conv.weight[:half].div_(scale[:, None, None])
    bias[:half].div_(scale)
    bias[half:].sub_(2.0 * scale.log())
    vae.post_quant_conv.weight.mul_(scale[None, :, None])


def snake_first(module: nn.Module) -> list[dict[str, Any]]:
    """Optimizer groups: the frequencies of the snakes learn without weight decay, which would pull them to zero."""
    snakes = {id(p) for layer in module.modules() if isinstance(layer, Snake) for p in layer.parameters()}
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if id(p) not in snakes]},
        {"params": [p for p in parameters if id(p) in snakes], "weight_decay": 0.0},
    ]

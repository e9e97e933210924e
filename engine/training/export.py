"""Writes a trained model in the released layout, so that the same strict loading takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import nn

from engine.models import AudioVAE
from engine.training.audio_vae import fold_scale
from engine.training.flow import JointObjective
from engine.training.latents import LatentStatistics
from engine.training.recipe import Recipe
from engine.training.text import save_tokenizer

DTYPE = torch.float16
COMPONENTS = {  # name: what model_index.json calls its class in released folders
    "audio_dit": ["mova.diffusion.models.wan_audio_dit", "WanAudioModel"],
    "audio_vae": ["mova.diffusion.models.dac_vae", "DAC"],
    "dual_tower_bridge": ["mova.diffusion.models.interactionv2", "DualTowerConditionalBridge"],
    "scheduler": ["mova.diffusion.schedulers.flow_match_pair", "FlowMatchPairScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "video_dit": ["mova.diffusion.models.wan_video_dit", "WanModel"],
    "video_dit_2": ["mova.diffusion.models.wan_video_dit", "WanModel"],
    "video_vae": ["diffusers", "AutoencoderKLWan"],
}


def export_model(
    out: Path,
    objective: JointObjective,
    video_vae: AutoencoderKLWan,
    audio_vae: AudioVAE,
    statistics: LatentStatistics,
    recipe: Recipe,
) -> None:
    """Every component in float16, ``studio.json`` and the recipe itself. The VAEs are changed by it."""
    with_statistics(video_vae, audio_vae, statistics)
    networks = objective.networks
    parts: dict[str, nn.Module] = {
        "video_dit": networks.high,
        "video_dit_2": networks.low,
        "audio_dit": networks.audio,
        "dual_tower_bridge": networks.bridge,
        "text_encoder": objective.text_encoder,
        "video_vae": video_vae,
        "audio_vae": audio_vae,
    }
    for name, module in parts.items():
        folder = out / name
        module.eval().to(DTYPE).save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
        _name_class(folder / "config.json", COMPONENTS[name][1])
    save_tokenizer(out / "tokenizer")
    _json(out / "scheduler" / "scheduler_config.json", _scheduler(recipe))
    index: dict[str, Any] = {"_class_name": "MOVA", **COMPONENTS, "audio_vae_type": "dac"}
    _json(out / "model_index.json", index | {"boundary_ratio": recipe.towers_steps.boundary})
    _json(out / "studio.json", recipe.studio.model_dump())
    (out / "recipe.toml").write_text(recipe.text, encoding="utf-8")


def with_statistics(
    video_vae: AutoencoderKLWan, audio_vae: AudioVAE, statistics: LatentStatistics
) -> tuple[AutoencoderKLWan, AudioVAE]:
    """Puts the statistics of the latents where the pipeline looks for them.

    Mean and deviation of the picture's latents go into the video VAE's config; the scale of the sound's into the audio
    VAE's own 1x1 convolutions, since its config has no place for it. Both are changed and returned.
    """
    fold_scale(audio_vae, torch.tensor(statistics.audio_std))
    video_vae.register_to_config(latents_mean=statistics.video_mean, latents_std=statistics.video_std)
    return video_vae, audio_vae


def _scheduler(recipe: Recipe) -> dict[str, Any]:
    off = ("extra_one_step", "exponential_shift", "inverse_timesteps", "reverse_sigmas")
    return {
        "_class_name": COMPONENTS["scheduler"][1],
        "shift": recipe.studio.video_shift,
        "num_train_timesteps": 1000,
        "num_inference_steps": recipe.studio.steps,
        "sigma_max": 1.0,
        "sigma_min": 0.003 / 1.002,
        **dict.fromkeys(off, False),
        "exponential_shift_mu": None,
        "shift_terminal": None,
    }


def _name_class(path: Path, name: str) -> None:
    """Our classes have names of their own; the file says what released configs say."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if "_class_name" in config:
        _json(path, config | {"_class_name": name})


def _json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

"""Random checkpoints in the released layout, of sizes other than the released ones.

    python -m tests.make_checkpoint FOLDER [--like wide|square|fine|single] [--seed N]

A test that only ever sees one set of sizes cannot tell a number read from a config from one written in the code.
The weights are random and finite: they make noise, quickly.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from engine.models import AudioTower, AudioVAE, Bridge, VideoTower

TINY = Path(__file__).parent / "data" / "mova-tiny" / "checkpoint"
RELEASED_CLASSES = {
    "video_dit": "WanModel",
    "video_dit_2": "WanModel",
    "audio_dit": "WanAudioModel",
    "dual_tower_bridge": "DualTowerConditionalBridge",
    "video_vae": "AutoencoderKLWan",
    "audio_vae": "DAC",
}


@dataclass(frozen=True)
class Sizes:
    """What differs between checkpoints. Widths in channels, rates in samples; `patch` is (time, height, width).

    Attributes:
        down_time: one flag a halving of the video VAE: whether it also halves time.
        vae_patch: pixels that the video VAE folds into channels before anything else; None for none.
        rates: strides of the audio VAE's encoder; the decoder has them reversed.
    """

    video_dim: int = 64
    video_heads: int = 2
    video_layers: int = 4
    video_ffn: int = 144
    patch: tuple[int, int, int] = (1, 2, 2)
    audio_dim: int = 32
    audio_heads: int = 1
    audio_layers: int = 3
    audio_ffn: int = 96
    bridge_head: int = 32
    z_dim: int = 16
    down_time: tuple[bool, ...] = (False, True, True)
    vae_patch: int | None = None
    rates: tuple[int, ...] = (2, 3, 4, 5, 8)
    audio_latent: int = 16
    sample_rate: int = 48000
    text_dim: int = 32
    freq_dim: int = 32
    fps: float = 24.0
    boundary_ratio: float = 0.9
    shift: float = 5.0

    @property
    def stride(self) -> int:
        """Frames per latent frame."""
        return int(2 ** sum(self.down_time))

    @property
    def spatial(self) -> int:
        """Pixels per latent, each way."""
        return int(2 ** len(self.down_time)) * (self.vae_patch or 1)

    @property
    def hop(self) -> int:
        """Samples per audio latent."""
        return math.prod(self.rates)


SIZES = {
    "wide": Sizes(
        video_dim=144,
        video_heads=6,
        video_layers=5,
        audio_dim=60,
        audio_heads=3,
        audio_layers=2,
        bridge_head=12,
        rates=(2, 4, 5, 8),
        sample_rate=16000,
        text_dim=48,
        freq_dim=64,
    ),
    "square": Sizes(
        video_dim=40,
        video_heads=2,
        video_layers=2,
        audio_dim=40,
        audio_heads=2,
        audio_layers=2,
        patch=(1, 1, 1),
        bridge_head=20,
        z_dim=4,
        down_time=(False, True),
        fps=12.0,
        rates=(3, 7, 7),
        audio_latent=6,
        sample_rate=44100,
        shift=3.0,
    ),
    "fine": Sizes(
        patch=(1, 2, 4),
        z_dim=8,
        down_time=(True, True),
        vae_patch=2,
        rates=(4, 4, 4, 5),
        audio_latent=8,
        sample_rate=32000,
        fps=30.0,
        boundary_ratio=0.5,
    ),
    "single": Sizes(
        video_layers=1,
        audio_layers=1,
        down_time=(False, False),
        rates=(5, 5),
        audio_latent=2,
        sample_rate=8000,
        fps=25.0,
        boundary_ratio=0.0,
    ),
}


def make_checkpoint(folder: Path, sizes: Sizes, seed: int = 0) -> Path:
    """Writes a checkpoint of these sizes into `folder`, which must not exist yet; returns it."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    for name, model in networks(sizes).items():
        _randomize(model)
        _write(folder / name, model, {"_class_name": RELEASED_CLASSES[name]} | dict(model.config))
    encoder = UMT5EncoderModel(_text_config(sizes))
    state = {k: v.contiguous() for k, v in encoder.state_dict().items() if k != "encoder.embed_tokens.weight"}
    (folder / "text_encoder").mkdir()
    save_file(state, folder / "text_encoder" / "model.safetensors")
    _json(folder / "text_encoder" / "config.json", _text_config(sizes).to_dict())
    shutil.copytree(TINY / "tokenizer", folder / "tokenizer")
    schedule = json.loads((TINY / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    (folder / "scheduler").mkdir()
    _json(folder / "scheduler" / "scheduler_config.json", schedule | {"shift": sizes.shift})
    index = json.loads((TINY / "model_index.json").read_text(encoding="utf-8"))
    _json(folder / "model_index.json", index | {"boundary_ratio": sizes.boundary_ratio})
    return folder


def networks(sizes: Sizes) -> dict[str, Any]:
    """The networks of a checkpoint by the folder that holds them."""
    s = sizes
    common: dict[str, Any] = {"text_dim": s.text_dim, "freq_dim": s.freq_dim, "eps": 1e-6}
    video: dict[str, Any] = common | {
        "dim": s.video_dim,
        "in_dim": 2 * s.z_dim + s.stride,
        "ffn_dim": s.video_ffn,
        "out_dim": s.z_dim,
        "patch_size": s.patch,
        "num_heads": s.video_heads,
        "num_layers": s.video_layers,
    }
    return {
        "video_dit": VideoTower(**video),
        "video_dit_2": VideoTower(**video),
        "audio_dit": AudioTower(
            dim=s.audio_dim,
            in_dim=s.audio_latent,
            ffn_dim=s.audio_ffn,
            out_dim=s.audio_latent,
            patch_size=(1,),
            num_heads=s.audio_heads,
            num_layers=s.audio_layers,
            **common,
        ),
        "dual_tower_bridge": Bridge(
            s.video_layers, s.audio_layers, s.video_dim, s.audio_dim, s.sample_rate / s.hop, s.bridge_head
        ),
        "video_vae": AutoencoderKLWan(
            base_dim=4,
            z_dim=s.z_dim,
            dim_mult=[1] + [2] * len(s.down_time),
            num_res_blocks=1,
            temperal_downsample=list(s.down_time),
            latents_mean=[0.1] * s.z_dim,
            latents_std=[1.5] * s.z_dim,
            in_channels=3 * (s.vae_patch or 1) ** 2,
            out_channels=3 * (s.vae_patch or 1) ** 2,
            patch_size=s.vae_patch,
            scale_factor_temporal=s.stride,
            scale_factor_spatial=s.spatial,
        ),
        "audio_vae": AudioVAE(
            4, list(s.rates), s.audio_latent, 8 * 2 ** len(s.rates), list(s.rates[::-1]), s.sample_rate
        ),
    }


def _text_config(sizes: Sizes) -> UMT5Config:
    text = json.loads((TINY / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    return UMT5Config.from_dict(text | {"d_model": sizes.text_dim})


def _randomize(model: nn.Module) -> None:
    """Weights that keep activations of order one; gains near one."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1 and p.numel() > p.shape[1]:
                p.normal_(0, 0.8 * (p.shape[0] / p.numel()) ** 0.5)
            elif "weight" in name or "gamma" in name or "alpha" in name:
                p.normal_(1, 0.05)
            else:
                p.normal_(0, 0.05)


def _write(folder: Path, model: nn.Module, config: dict[str, Any]) -> None:
    folder.mkdir()
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "diffusion_pytorch_model.safetensors"
    )
    _json(folder / "config.json", {k: v for k, v in config.items() if not k.startswith("_") or k == "_class_name"})


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Writes one checkpoint."""
    parser = argparse.ArgumentParser(prog="tests.make_checkpoint", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--like", choices=SIZES, default="wide")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    print(make_checkpoint(args.folder, SIZES[args.like], args.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How large a model is, part by part, and how much work a clip is. Counts only; no memory, no time.

A joint block is layer i of the video tower with layer i of the audio tower and of the bridge; the last layers of the
video tower stand alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.timing import ClipLength

TEXT_TOKENS = 512


@dataclass(frozen=True)
class ModelSizes:
    """Numbers of weights, and the widths that the work depends on.

    Attributes:
        layers, shared: joint blocks; how many of them have sound and bridge.
        video_block, video_linear: weights of one layer of an expert; those in its linear layers, which 8 bits can hold.
        shared_block, shared_linear: of the audio layer and both conditioners of one joint block.
        ends: of one expert's embeddings and head. audio_ends: of the audio tower's.
        text_block: of one layer of the text encoder.
        video_vae, audio_vae: always in float32.
        width, ffn, audio_width, text_width: of the towers and the text.
        patch: (time, height, width). stride, spatial: of the video VAE. hop, rate: of the audio VAE.
        vae_width, decoder_width: channels of the video VAE's two halves at full size, a pixel of the picture.
        itemsize: bytes a weight takes in the folder.
    """

    layers: int
    shared: int
    video_block: int
    video_linear: int
    shared_block: int
    shared_linear: int
    ends: int
    audio_ends: int
    text_block: int
    video_vae: int
    audio_vae: int
    width: int
    ffn: int
    audio_width: int
    text_width: int
    patch: tuple[int, int, int] = (1, 2, 2)
    stride: int = 4
    spatial: int = 8
    hop: int = 960
    rate: int = 48000
    vae_width: float = 96.0
    decoder_width: float = 96.0
    itemsize: int = 2

    def block(self, layer: int) -> int:
        """Weights of one joint block of one expert."""
        return self.video_block + (self.shared_block if layer < self.shared else 0)

    def linear(self, layer: int) -> int:
        return self.video_linear + (self.shared_linear if layer < self.shared else 0)

    @property
    def largest(self) -> int:
        """The joint block that a slot of the ring must hold."""
        return 0 if self.shared else self.layers - 1


def tower_block(width: int, ffn: int) -> tuple[int, int]:
    """All weights of one tower layer, and those of its linear layers."""
    linear = 8 * width * width + 2 * width * ffn
    return linear + 8 * width + ffn + width + 4 * width + 2 * width + 6 * width, linear


def conditioner(width: int, other: int) -> tuple[int, int]:
    """All weights of one conditioner, and those of its linear layers."""
    linear = 2 * width * width + 2 * other * width
    return linear + 4 * width + 2 * width + 2 * other, linear


def tower_ends(width: int, text: int, frequencies: int, inputs: int, outputs: int) -> int:
    """Weights of a tower's embeddings and head; inputs and outputs in channels times patch."""
    text_part = text * width + width + width * width + width
    time_part = frequencies * width + width + width * width + width + 6 * width * width + 6 * width
    return inputs * width + width + text_part + time_part + width * outputs + outputs + 2 * width


def _released() -> ModelSizes:
    video, video_linear = tower_block(5120, 13824)
    audio, audio_linear = tower_block(1536, 8960)
    to_video, to_video_linear = conditioner(5120, 1536)
    to_audio, to_audio_linear = conditioner(1536, 5120)
    return ModelSizes(
        layers=40,
        shared=30,
        video_block=video,
        video_linear=video_linear,
        shared_block=audio + to_video + to_audio,
        shared_linear=audio_linear + to_video_linear + to_audio_linear,
        ends=tower_ends(5120, 4096, 256, 36 * 4, 16 * 4),
        audio_ends=tower_ends(1536, 4096, 256, 128, 128),
        text_block=4 * 4096 * 4096 + 3 * 4096 * 10240 + 2 * 4096 + 32 * 64,
        video_vae=126_892_531,
        audio_vae=185_000_000,
        width=5120,
        ffn=13824,
        audio_width=1536,
        text_width=4096,
    )


RELEASED = _released()  # MOVA-360p and MOVA-720p


def read_sizes(folder: str | Path) -> ModelSizes:
    """The sizes of a model folder, from its configs and the headers of its weights.

    Raises:
        CheckpointError: it is not a whole model in the released layout.
    """
    from engine.weights import WEIGHT_STEM, read_json, stored_bytes, stored_shapes, weight_files

    folder = Path(folder)
    configs = {n: read_json(folder / n / "config.json") for n in ("video_dit", "audio_dit", "video_vae", "audio_vae")}
    files = {n: weight_files(folder / n, WEIGHT_STEM) for n in (*configs, "dual_tower_bridge")}
    files["text_encoder"] = weight_files(folder / "text_encoder", "model")
    shapes = {n: stored_shapes(f) for n, f in files.items()}
    video, audio, vae, dac = configs["video_dit"], configs["audio_dit"], configs["video_vae"], configs["audio_vae"]
    base, merged = vae.get("base_dim", 96), (vae.get("patch_size") or 1) ** 2
    v_block, v_linear = _layer(shapes["video_dit"], "blocks.0.")
    parts = [_layer(shapes["audio_dit"], "blocks.0.")]
    parts += [_layer(shapes["dual_tower_bridge"], f"{way}_conditioners.0.") for way in _WAYS]
    return ModelSizes(
        layers=video["num_layers"],
        shared=min(video["num_layers"], audio["num_layers"]),
        video_block=v_block,
        video_linear=v_linear,
        shared_block=sum(p[0] for p in parts),
        shared_linear=sum(p[1] for p in parts),
        ends=_count(shapes["video_dit"], lambda n: not n.startswith("blocks.")),
        audio_ends=_count(shapes["audio_dit"], lambda n: not n.startswith("blocks.")),
        text_block=_count(shapes["text_encoder"], lambda n: n.startswith("encoder.block.0.")),
        video_vae=_count(shapes["video_vae"]),
        audio_vae=_count(shapes["audio_vae"]),
        width=video["dim"],
        ffn=video["ffn_dim"],
        audio_width=audio["dim"],
        text_width=video["text_dim"],
        patch=tuple(video["patch_size"]),
        stride=vae.get("scale_factor_temporal", 4),
        spatial=vae.get("scale_factor_spatial", 8),
        hop=math.prod(dac["encoder_rates"]),
        rate=dac["sample_rate"],
        vae_width=base / merged,
        decoder_width=(vae.get("decoder_base_dim") or base) / merged,
        itemsize=stored_bytes(files["video_dit"]),
    )


_WAYS = ("audio_to_video", "video_to_audio")


def _layer(shapes: dict[str, tuple[int, ...]], start: str) -> tuple[int, int]:
    """Weights below `start`, and those of matrices among them."""
    linear = _count({n: s for n, s in shapes.items() if len(s) == 2}, lambda n: n.startswith(start))
    return _count(shapes, lambda n: n.startswith(start)), linear


def _count(shapes: dict[str, tuple[int, ...]], wanted: Any = lambda name: True) -> int:
    total = 0
    for name, shape in shapes.items():
        if wanted(name):
            size = 1
            for side in shape:
                size *= side
            total += size
    return total


def guidance_passes(guidance: float, bridge_guidance: float) -> int:
    """Branches a step: three with bridge guidance, two with text guidance, else one. See `engine.guidance`."""
    if bridge_guidance != 1:
        return 3
    return 1 if guidance == 1 else 2


@dataclass(frozen=True)
class Work:
    """One clip: sizes in pixels, length in frames.

    Attributes:
        passes: guidance branches a step, 1 to 3.
        batch: clips at once.
    """

    width: int
    height: int
    frames: int
    fps: float = 24.0
    passes: int = 2
    steps: int = 50
    batch: int = 1

    def tokens(self, sizes: ModelSizes) -> tuple[int, int]:
        """Video and audio tokens of one branch of one clip."""
        length = ClipLength(self.frames, self.fps, sizes.rate, sizes.hop, sizes.stride)
        frame = 1
        for side, patch in zip((self.height, self.width), sizes.patch[1:], strict=True):
            frame *= side // sizes.spatial // patch
        return length.latent_frames // sizes.patch[0] * frame, length.audio_latents

    def operations(self, sizes: ModelSizes) -> float:
        """Floating-point operations of one step: all branches of all clips."""
        video, audio = self.tokens(sizes)
        text_keys = 2 * sizes.width * sizes.width  # keys and values of the text are not computed for every token
        per_video = 2.0 * video * (sizes.video_linear - text_keys) + 2.0 * TEXT_TOKENS * text_keys
        per_video += 4.0 * video * video * sizes.width + 4.0 * video * TEXT_TOKENS * sizes.width
        to_video = 2.0 * (2 * video * sizes.width**2 + 2 * audio * sizes.audio_width * sizes.width)
        to_audio = 2.0 * (2 * audio * sizes.audio_width**2 + 2 * video * sizes.width * sizes.audio_width)
        bridge = to_video + to_audio + 4.0 * video * audio * (sizes.width + sizes.audio_width)
        per_audio = 2.0 * audio * max(0, sizes.shared_linear - 4 * sizes.width * sizes.width)
        one = sizes.layers * per_video + sizes.shared * (bridge + per_audio)
        return one * self.passes * self.batch

"""The bridge: cross-attention from each tower to the other, on one clock. MOVA (arXiv 2602.08794), section 3.2.

`audio_to_video` (a2v) lets picture tokens look at the sound, `video_to_audio` (v2a) lets sound tokens look at the
picture. Names and shapes of tensors are the released ones.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from engine.attention import attention
from engine.models.options import refuse_unbuilt, require
from engine.models.rope import Table, rotate_halves
from engine.models.towers import Attention


class Bridge(ModelMixin, ConfigMixin):
    """The conditioners of every layer that both towers have."""

    @register_to_config
    def __init__(
        self,
        visual_layers: int,
        audio_layers: int,
        visual_hidden_dim: int,
        audio_hidden_dim: int,
        audio_fps: float,
        head_dim: int,
        interaction_strategy: str = "full",
        apply_cross_rope: bool = True,
        apply_first_frame_bias_in_rope: bool = False,
        trainable_condition_scale: bool = False,
        pooled_adaln: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        refuse_unbuilt(
            "Bridge",
            apply_first_frame_bias_in_rope=apply_first_frame_bias_in_rope,
            trainable_condition_scale=trainable_condition_scale,
            pooled_adaln=pooled_adaln,
        )
        require(
            "Bridge",
            interaction_strategy == "full",
            f"interaction_strategy {interaction_strategy!r} is not built; only 'full'",
        )
        require("Bridge", bool(apply_cross_rope), "apply_cross_rope=False is not built")
        for name, width in (("visual", visual_hidden_dim), ("audio", audio_hidden_dim)):
            require(
                "Bridge",
                width % head_dim == 0 and head_dim % 2 == 0,
                f"{name}_hidden_dim {width} does not divide into heads of even width {head_dim}",
            )
        layers = min(visual_layers, audio_layers)
        self.audio_to_video_conditioners = nn.ModuleList(
            Conditioner(visual_hidden_dim, audio_hidden_dim, head_dim, eps) for _ in range(layers)
        )
        self.video_to_audio_conditioners = nn.ModuleList(
            Conditioner(audio_hidden_dim, visual_hidden_dim, head_dim, eps) for _ in range(layers)
        )


class Conditioner(nn.Module):
    """One direction at one layer: what the own tower's tokens take from the other tower."""

    def __init__(self, dim: int, other_dim: int, head_dim: int, eps: float) -> None:
        super().__init__()
        self.y_norm = nn.LayerNorm(other_dim, eps)
        self.inner = Attention(dim, other_dim, dim // head_dim, eps)

    def forward(self, x: torch.Tensor, other: torch.Tensor, clock: Table, other_clock: Table) -> torch.Tensor:
        """x (B, L, D) and other (B, S, other width), each on its own clock -> (B, L, D), to be added to x."""
        q, k, v = self.inner.heads(x, self.y_norm(other))
        return self.inner.o(attention(rotate_halves(q, clock), rotate_halves(k, other_clock), v).flatten(2))

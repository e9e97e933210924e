"""The video tower and the audio tower: diffusion transformers of the same block, with the released tensors' names.

A tower holds its weights in the released layout; `engine.models.dual_tower.DualTower` runs two of them together with
the bridge. Sources: Wan (arXiv 2503.20314) for the block, MOVA (arXiv 2602.08794), section 3, for the pair.
Shapes: B batch, L tokens, D tower width (`dim`), S text tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import nn

from engine.attention import attention
from engine.models import lean
from engine.models.options import refuse_unbuilt, require
from engine.models.rope import Table, rotate_pairs, video_axes


class Tower(ModelMixin, ConfigMixin):
    """Embeddings, blocks and head of one tower. `VideoTower` and `AudioTower` say how latents become tokens."""

    _no_split_modules = ["TowerBlock"]  # noqa: RUF012 - diffusers reads a list

    def _build(
        self,
        patch_embedding: nn.Module,
        dim: int,
        out_features: int,
        ffn_dim: int,
        freq_dim: int,
        text_dim: int,
        eps: float,
        num_heads: int,
        num_layers: int,
    ) -> None:
        name = type(self).__name__
        require(name, dim % num_heads == 0, f"dim {dim} is not divisible by num_heads {num_heads}")
        require(name, freq_dim % 2 == 0, f"freq_dim {freq_dim} is odd")
        self.patch_embedding = patch_embedding
        self.text_embedding = nn.Sequential(nn.Linear(text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(TowerBlock(dim, ffn_dim, num_heads, eps) for _ in range(num_layers))
        self.head = Head(dim, out_features, eps)


class VideoTower(Tower):
    """One video expert. Latents are (B, in_dim, F, H, W): noise, mask and condition side by side."""

    @register_to_config
    def __init__(
        self,
        dim: int,
        in_dim: int,
        ffn_dim: int,
        out_dim: int,
        text_dim: int,
        freq_dim: int,
        eps: float,
        patch_size: tuple[int, int, int],
        num_heads: int,
        num_layers: int,
        has_image_input: bool = False,
        has_image_pos_emb: bool = False,
        has_ref_conv: bool = False,
        add_control_adapter: bool = False,
        in_dim_control_adapter: int = 24,
        seperated_timestep: bool = False,  # the released config's own spelling
        require_vae_embedding: bool = True,
        require_clip_embedding: bool = False,
        fuse_vae_embedding_in_latents: bool = False,
    ) -> None:
        super().__init__()
        refuse_unbuilt(
            "VideoTower",
            has_image_input=has_image_input,
            has_image_pos_emb=has_image_pos_emb,
            has_ref_conv=has_ref_conv,
            add_control_adapter=add_control_adapter,
            seperated_timestep=seperated_timestep,
            require_clip_embedding=require_clip_embedding,
            fuse_vae_embedding_in_latents=fuse_vae_embedding_in_latents,
        )
        require("VideoTower", require_vae_embedding, "require_vae_embedding=False (no condition latents) is not built")
        require("VideoTower", len(patch_size) == 3, f"patch_size {list(patch_size)} must have 3 numbers")
        require("VideoTower", patch_size[0] == 1, f"patch_size {list(patch_size)} is not built; the first must be 1")
        require("VideoTower", dim % num_heads == 0, f"dim {dim} is not divisible by num_heads {num_heads}")
        axes = video_axes(dim // num_heads)
        require(
            "VideoTower",
            all(axis % 2 == 0 for axis in axes),
            f"head width {dim // num_heads} splits into {axes} for time, height and width; each must be even",
        )
        patch = PatchVideo(in_dim, dim, tuple(patch_size), tuple(patch_size))
        self._build(
            patch, dim, out_dim * math.prod(patch_size), ffn_dim, freq_dim, text_dim, eps, num_heads, num_layers
        )


class AudioTower(Tower):
    """The audio tower. Latents are (B, in_dim, N)."""

    @register_to_config
    def __init__(
        self,
        dim: int,
        in_dim: int,
        ffn_dim: int,
        out_dim: int,
        text_dim: int,
        freq_dim: int,
        eps: float,
        patch_size: tuple[int],
        num_heads: int,
        num_layers: int,
        has_image_input: bool = False,
        has_image_pos_emb: bool = False,
        has_ref_conv: bool = False,
        add_control_adapter: bool = False,
        in_dim_control_adapter: int = 24,
        seperated_timestep: bool = False,
        require_vae_embedding: bool = True,  # without meaning for sound; present in released configs
        require_clip_embedding: bool = False,
        fuse_vae_embedding_in_latents: bool = False,
        vae_type: str = "dac",
    ) -> None:
        super().__init__()
        refuse_unbuilt(
            "AudioTower",
            has_image_input=has_image_input,
            has_image_pos_emb=has_image_pos_emb,
            has_ref_conv=has_ref_conv,
            add_control_adapter=add_control_adapter,
            seperated_timestep=seperated_timestep,
            require_clip_embedding=require_clip_embedding,
            fuse_vae_embedding_in_latents=fuse_vae_embedding_in_latents,
        )
        require("AudioTower", vae_type == "dac", f"vae_type {vae_type!r} is not built; only 'dac'")
        require("AudioTower", list(patch_size) == [1], f"patch_size {list(patch_size)} is not built; only [1]")
        require(
            "AudioTower", dim % num_heads == 0 and dim // num_heads % 2 == 0, f"{dim}/{num_heads} is no even head width"
        )
        patch = PatchAudio(in_dim, dim, 1, 1)
        self._build(patch, dim, out_dim, ffn_dim, freq_dim, text_dim, eps, num_heads, num_layers)


class TowerEnds(nn.Module):
    """What stands before and after the blocks of a tower, sharing the tower's own modules."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.patch_embedding = tower.patch_embedding
        self.text_embedding = tower.text_embedding
        self.time_embedding = tower.time_embedding
        self.time_projection = tower.time_projection
        self.head = tower.head
        self.freq_dim = tower.config.freq_dim

    def embed_time(self, timestep: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) timesteps in 0..1000 -> embedding (B, D) for the head, modulation (B, 6, D) for the blocks."""
        half = self.freq_dim // 2
        frequencies = torch.exp(
            torch.arange(half, dtype=torch.float64, device=timestep.device) * (-math.log(10000.0) / half)
        )
        angles = timestep.to(torch.float64)[:, None] * frequencies
        embedding = self.time_embedding(torch.cat((angles.cos(), angles.sin()), -1).to(dtype))
        return embedding, self.time_projection(embedding).unflatten(-1, (6, -1))


class TowerBlock(nn.Module):
    """Self-attention and feed-forward, modulated by time; cross-attention to the text between them."""

    def __init__(self, dim: int, ffn_dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.self_attn = Attention(dim, dim, num_heads, eps)
        self.cross_attn = Attention(dim, dim, num_heads, eps)
        self.norm1 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.norm3 = nn.LayerNorm(dim, eps)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.GELU("tanh"), nn.Linear(ffn_dim, dim))
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(self, x: torch.Tensor, modulation: torch.Tensor, text: torch.Tensor, rope: Table) -> torch.Tensor:
        """x (B, L, D), modulation (B, 6, D), text (B, S, D) -> (B, L, D); a long x is changed in place."""
        if lean.wanted(x):
            return self._lean(x, modulation, text, rope)
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + modulation).chunk(6, 1)  # each (B, 1, D)
        h = torch.addcmul(shift1, self.norm1(x), 1 + scale1)
        x = torch.addcmul(x, gate1, self.self_attn(h, h, rope))
        x = x + self.cross_attn(self.norm3(x), text)
        h = torch.addcmul(shift2, self.norm2(x), 1 + scale2)
        return torch.addcmul(x, gate2, self.ffn(h))

    def _lean(self, x: torch.Tensor, modulation: torch.Tensor, text: torch.Tensor, rope: Table) -> torch.Tensor:
        """The same sums in place, and the feed-forward for a part of the tokens at a time."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + modulation).chunk(6, 1)
        h = torch.empty_like(x)
        for part in lean.parts(x.shape[1]):
            torch.addcmul(shift1, self.norm1(x[:, part]), 1 + scale1, out=h[:, part])
        torch.addcmul(x, gate1, self.self_attn(h, h, rope), out=x)
        torch.add(x, self.cross_attn(self.norm3(x), text), out=x)
        del h
        for part in lean.parts(x.shape[1]):
            some = x[:, part]
            hidden = torch.addcmul(shift2, self.norm2(some), 1 + scale2)
            torch.addcmul(some, gate2, self.ffn(hidden), out=some)
        return x


class Attention(nn.Module):
    """Multi-head attention whose q and k are normalised over their whole width, before the split into heads."""

    def __init__(self, dim: int, source_dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(source_dim, dim)
        self.v = nn.Linear(source_dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)

    def heads(self, x: torch.Tensor, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q of x and k, v of source, each (B, tokens, heads, head width), q and k normalised."""
        shape = (self.num_heads, -1)
        q = self.norm_q.own(self.q(x)).unflatten(-1, shape)
        k = self.norm_k.own(self.k(source)).unflatten(-1, shape)
        return q, k, self.v(source).unflatten(-1, shape)

    def forward(self, x: torch.Tensor, source: torch.Tensor, rope: Table | None = None) -> torch.Tensor:
        """x (B, L, D) attends to source (B, S, source width); `rope` turns both (self-attention only)."""
        q, k, v = self.heads(x, source)
        if rope is not None:
            q = rotate_pairs(q, rope)
            k = rotate_pairs(k, rope)
        mixed = attention(q, k, v).flatten(2)
        del q, k, v
        return self.o(mixed)


class RMSNorm(nn.RMSNorm):
    """The library's, with the weight in the input's dtype: under autocast it would else leave its fused kernel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)

    def own(self, x: torch.Tensor) -> torch.Tensor:
        """The same of an x (B, L, D) that nobody else needs: a long one is changed in place."""
        if not lean.wanted(x):
            return self(x)
        for part in lean.parts(x.shape[1]):
            x[:, part] = self(x[:, part])
        return x


class Head(nn.Module):
    """Tokens to patches of velocity, modulated by the time embedding."""

    def __init__(self, dim: int, out_features: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps, elementwise_affine=False)
        self.head = nn.Linear(dim, out_features)
        self.modulation = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """x (B, L, D), time (B, D) -> (B, L, out_features)."""
        shift, scale = (self.modulation + time[:, None]).chunk(2, 1)
        if lean.wanted(x):
            out = x.new_empty(*x.shape[:2], self.head.out_features)
            for part in lean.parts(x.shape[1]):
                out[:, part] = self.head(torch.addcmul(shift, self.norm(x[:, part]), 1 + scale))
            return out
        return self.head(torch.addcmul(shift, self.norm(x), 1 + scale))


class PatchVideo(nn.Conv3d):
    """A convolution whose kernel is its stride, computed as the matrix product it is.

    The weights keep the released shape (D, C, x, y, z); the product is several times faster to train on a CPU.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, F, H, W) -> tokens (B, f h w, D), f outermost."""
        a, b, c = self.kernel_size
        patches = rearrange(x, "B C (f a) (h b) (w c) -> B (f h w) (C a b c)", a=a, b=b, c=c)
        return F.linear(patches, self.weight.flatten(1), self.bias)


class PatchAudio(nn.Conv1d):
    """(B, C, N) -> tokens (B, N, D), as a matrix product; see `PatchVideo`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.transpose(1, 2), self.weight.flatten(1), self.bias)


def known_options(cls: type[ModelMixin], config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that `cls` takes; an unknown option that is switched on is refused by name."""
    accepted = set(cls._get_init_keys(cls))
    unknown = {k: v for k, v in config.items() if k not in accepted and not k.startswith("_")}
    refuse_unbuilt(cls.__name__, **{k: v for k, v in unknown.items() if v is True})
    return {k: v for k, v in config.items() if k in accepted and k != "self"}

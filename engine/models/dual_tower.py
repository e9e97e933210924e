"""The joint network: both towers and the bridge as one list of joint blocks, run by one `forward`.

Whatever hooks into a diffusers model (offload, regional compile, caching, context parallel, adapters) hooks in here.
Shapes: B batch, F/H/W latent frames, height, width; N audio latents; L video tokens; D video and A audio width.
"""

from __future__ import annotations

from typing import Protocol

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import nn

from engine.models import lean
from engine.models.bridge import Bridge, Conditioner
from engine.models.options import require
from engine.models.rope import Table, audio_table, clock_table, video_table
from engine.models.towers import AudioTower, TowerBlock, TowerEnds, VideoTower


class StepCache(Protocol):
    """What `forward` asks of a step cache; see `engine.step_cache`."""

    def begin(self, video: torch.Tensor, audio: torch.Tensor) -> None: ...
    def first(
        self, network: int, video: torch.Tensor, audio: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None: ...
    def last(self, network: int, video: torch.Tensor, audio: torch.Tensor) -> None: ...


Scale = float | torch.Tensor  # one strength, or one per sample as (B, 1, 1)


class DualTower(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin):
    """One video expert, the audio tower and the bridge.

    The two experts of a checkpoint are two instances that share audio tower and bridge. The module holds the given
    modules themselves, not copies.

    Args:
        video: the expert.
        audio: the audio tower; it may have fewer layers than the video tower, not more.
        bridge: the conditioners.

    Attributes:
        heard: where it is a list, every evaluation of all blocks leaves in it what the bridge adds to the sound, layer
            by layer, for `sound`.
    """

    config_name = "config.json"
    _repeated_blocks = ["JointBlock"]  # noqa: RUF012 - diffusers reads lists
    _no_split_modules = ["JointBlock"]  # noqa: RUF012
    _supports_group_offloading = True

    def __init__(self, video: VideoTower, audio: AudioTower, bridge: Bridge) -> None:
        super().__init__()
        self.register_to_config(video=dict(video.config), audio=dict(audio.config), bridge=dict(bridge.config))
        v, a, b = video.config, audio.config, bridge.config
        for name, tower, said in (
            ("visual_hidden_dim", v.dim, b.visual_hidden_dim),
            ("audio_hidden_dim", a.dim, b.audio_hidden_dim),
            ("visual_layers", v.num_layers, b.visual_layers),
            ("audio_layers", a.num_layers, b.audio_layers),
        ):
            require("Bridge", tower == said, f"{name} is {said}, but the tower has {tower}")
        require(
            "AudioTower",
            a.num_layers <= v.num_layers,
            f"{a.num_layers} layers, more than the video tower's {v.num_layers}, is not built",
        )
        shared = len(audio.blocks)
        self.blocks = nn.ModuleList(
            JointBlock(
                video.blocks[i],
                audio.blocks[i] if i < shared else None,
                bridge.audio_to_video_conditioners[i] if i < shared else None,
                bridge.video_to_audio_conditioners[i] if i < shared else None,
            )
            for i in range(len(video.blocks))
        )
        self.video_ends = TowerEnds(video)
        self.audio_ends = TowerEnds(audio)
        self.patch_size = tuple(v.patch_size)
        self.video_head_dim = v.dim // v.num_heads
        self.audio_head_dim = a.dim // a.num_heads
        self.bridge_head_dim = b.head_dim
        self.audio_fps = float(b.audio_fps)
        self.gradient_checkpointing = False
        self.step_cache: StepCache | None = None
        self.heard: list[torch.Tensor | None] | None = None

    def forward(
        self,
        video: torch.Tensor,
        audio: torch.Tensor,
        video_timestep: torch.Tensor,
        audio_timestep: torch.Tensor,
        text: torch.Tensor,
        latent_fps: float,
        a2v_scale: Scale = 1.0,
        v2a_scale: Scale = 1.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicts both velocities (noise minus sample).

        Args:
            video: (B, in_dim, F, H, W), noisy latents, mask and condition side by side.
            audio: (B, audio in_dim, N), noisy latents.
            video_timestep, audio_timestep: (B,), in 0..1000.
            text: (B, S, text_dim), zero past the prompt's end.
            latent_fps: latent frames per second (fps / temporal stride): the bridge's common clock.
            a2v_scale, v2a_scale: strength of each direction of the bridge; 0 switches it off.

        Returns:
            video velocity (B, out_dim, F, H, W) and audio velocity (B, out_dim, N), in the inputs' dtype.
        """
        dtype, device = video.dtype, video.device
        grid = [size // patch for size, patch in zip(video.shape[2:], self.patch_size, strict=True)]
        frames, per_frame, tokens = grid[0], grid[1] * grid[2], audio.shape[2]

        v_time, v_mod = self.video_ends.embed_time(video_timestep, dtype)
        a_time, a_mod = self.audio_ends.embed_time(audio_timestep, dtype)
        v_text, a_text = self.video_ends.text_embedding(text), self.audio_ends.text_embedding(text)
        v = self.video_ends.patch_embedding(video)  # (B, L, D)
        a = self.audio_ends.patch_embedding(audio)  # (B, N, A)

        v_rope = video_table(*grid, self.video_head_dim, device)
        a_rope = audio_table(tokens, self.audio_head_dim, device)
        ticks = self.audio_fps / (latent_fps / self.patch_size[0])
        v_clock = clock_table(frames, per_frame, ticks, self.bridge_head_dim, device)
        a_clock = audio_table(tokens, self.bridge_head_dim, device)

        cache = None if torch.is_grad_enabled() else self.step_cache
        if cache is not None:
            cache.begin(v, a)
        heard: list[torch.Tensor | None] = []
        for layer, block in enumerate(self.blocks):
            args = (v, a, v_mod, a_mod, v_text, a_text, v_rope, a_rope, v_clock, a_clock, a2v_scale, v2a_scale)
            if self.heard is not None:
                parts: list[torch.Tensor] = []
                v, a = block(*args, heard=parts)
                heard.append(torch.cat(parts) if parts else None)
            elif self.gradient_checkpointing and torch.is_grad_enabled():
                v, a = torch.utils.checkpoint.checkpoint(block, *args, use_reentrant=False)
            else:
                v, a = block(*args)
            if cache is not None and layer == 0:
                del args
                ahead = cache.first(id(self), v, a)
                if ahead is not None:
                    v, a = ahead
                    break
        else:
            if cache is not None:
                cache.last(id(self), v, a)
            if self.heard is not None:
                self.heard = heard

        x, y, z = self.patch_size
        v = rearrange(
            self.video_ends.head(v, v_time),
            "B (f h w) (x y z c) -> B c (f x) (h y) (w z)",
            f=grid[0],
            h=grid[1],
            w=grid[2],
            x=x,
            y=y,
            z=z,
        )
        return v, self.audio_ends.head(a, a_time).transpose(1, 2)

    def sound(self, audio: torch.Tensor, audio_timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The sound's velocity alone, with what the bridge added to it in the last evaluation of all blocks.

        Costs the audio tower only. Shapes as in `forward`; the batch has to be that of the last evaluation.
        """
        assert self.heard, "`heard` was not a list when all blocks were last evaluated"
        a_time, a_mod = self.audio_ends.embed_time(audio_timestep, audio.dtype)
        a_text = self.audio_ends.text_embedding(text)
        a = self.audio_ends.patch_embedding(audio)
        a_rope = audio_table(audio.shape[2], self.audio_head_dim, audio.device)
        none = a.new_empty(len(a), 0, self.config.video["dim"])  # no picture
        clock = audio_table(0, self.bridge_head_dim, audio.device)
        for block, added in zip(self.blocks, self.heard, strict=True):
            if block.audio is None:
                break
            _, a = block(none, a, none, a_mod, none, a_text, clock, a_rope, clock, clock, 0.0, 0.0, added=added)
        return self.audio_ends.head(a, a_time).transpose(1, 2)


class JointBlock(nn.Module):
    """Layer i of both towers, with the bridge before them; the video tower's last layers have no partner.

    Attributes:
        at_once: samples of a batch that go through together, the others after them; None is all. Fewer at once take
            less memory for the same weights.
    """

    at_once: int | None = None

    def __init__(
        self, video: TowerBlock, audio: TowerBlock | None, a2v: Conditioner | None, v2a: Conditioner | None
    ) -> None:
        super().__init__()
        self.video = video
        self.audio = audio
        self.a2v = a2v
        self.v2a = v2a

    def forward(
        self,
        video: torch.Tensor,
        audio: torch.Tensor,
        video_mod: torch.Tensor,
        audio_mod: torch.Tensor,
        video_text: torch.Tensor,
        audio_text: torch.Tensor,
        video_rope: Table,
        audio_rope: Table,
        video_clock: Table,
        audio_clock: Table,
        a2v_scale: Scale,
        v2a_scale: Scale,
        heard: list[torch.Tensor] | None = None,
        added: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """video (B, L, D), audio (B, N, A) -> the same shapes. Both directions see the states as they stood.

        Without gradients a long `video` (see `engine.models.lean`) is changed in place. What the bridge adds to the
        sound is put at the end of `heard`. Where there is no picture (L is 0), `added` stands for it.
        """
        if self.audio is not None and video.shape[1] == 0:
            return video, self.audio(audio if added is None else audio + added, audio_mod, audio_text, audio_rope)
        if not self.at_once or len(video) <= self.at_once or torch.is_grad_enabled():
            return self._together(
                video, audio, video_mod, audio_mod, video_text, audio_text, video_rope, audio_rope, video_clock,
                audio_clock, a2v_scale, v2a_scale, heard,
            )  # fmt: skip
        done = []
        for start in range(0, len(video), self.at_once):
            some = slice(start, start + self.at_once)
            per_sample = (x[some] for x in (video, audio, video_mod, audio_mod, video_text, audio_text))
            scales = (s[some] if isinstance(s, torch.Tensor) else s for s in (a2v_scale, v2a_scale))
            done.append(self._together(*per_sample, video_rope, audio_rope, video_clock, audio_clock, *scales, heard))
        audio = torch.cat([a for _, a in done])
        # A long picture was changed in place, slice by slice.
        return video if lean.wanted(video) else torch.cat([v for v, _ in done]), audio

    def _together(
        self,
        video: torch.Tensor,
        audio: torch.Tensor,
        video_mod: torch.Tensor,
        audio_mod: torch.Tensor,
        video_text: torch.Tensor,
        audio_text: torch.Tensor,
        video_rope: Table,
        audio_rope: Table,
        video_clock: Table,
        audio_clock: Table,
        a2v_scale: Scale,
        v2a_scale: Scale,
        heard: list[torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.audio is None:
            return self.video(video, video_mod, video_text, video_rope), audio
        to_video, to_audio = None, None
        if not _is_off(a2v_scale):
            to_video = self.a2v(video, audio, video_clock, audio_clock)
        if not _is_off(v2a_scale):
            to_audio = self.v2a(audio, video, audio_clock, video_clock)
        if to_video is not None and lean.wanted(video):
            torch.add(video, to_video.mul_(a2v_scale), out=video)
        elif to_video is not None:
            video = video + a2v_scale * to_video
        del to_video
        if to_audio is not None:
            to_audio = v2a_scale * to_audio
            audio = audio + to_audio
            if heard is not None:
                heard.append(to_audio)
        video = self.video(video, video_mod, video_text, video_rope)
        return video, self.audio(audio, audio_mod, audio_text, audio_rope)


def _is_off(scale: Scale) -> bool:
    return not isinstance(scale, torch.Tensor) and scale == 0

"""The guided velocity: the branches that guidance needs, evaluated in one batch and put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from engine.guidance import branches, combine
from engine.models import DualTower


class Split(Protocol):
    """Guidance branches shared with others; see `engine.distributed.guidance`."""

    def mine(self, branches: int) -> list[int]: ...
    def gather(self, mine: list[torch.Tensor], branches: int) -> list[torch.Tensor]: ...


@dataclass(frozen=True)
class Guidance:
    """Scales of one run; a2v and v2a are the bridge's strengths where it is on."""

    text: float = 5.0
    bridge: float = 1.0
    a2v: float = 1.0
    v2a: float = 1.0


def compute_dtype(network: DualTower) -> torch.dtype:
    """In which the network computes; its blocks may be stored otherwise."""
    weight = network.video_ends.patch_embedding.weight
    assert isinstance(weight, torch.Tensor)
    return weight.dtype


def velocity(
    network: DualTower,
    video: torch.Tensor,
    audio: torch.Tensor,
    condition: torch.Tensor,
    text: torch.Tensor,
    video_timestep: torch.Tensor,
    audio_timestep: torch.Tensor,
    latent_fps: float,
    a2v_scale: float | torch.Tensor,
    v2a_scale: float | torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One evaluation in the network's dtype; latents come and go in float32. Shapes as in `DualTower.forward`."""
    dtype = compute_dtype(network)
    video_v, audio_v = network(
        torch.cat((video, condition.to(video)), 1).to(dtype),
        audio.to(dtype),
        video_timestep,
        audio_timestep,
        text.to(dtype),
        latent_fps,
        a2v_scale,
        v2a_scale,
    )
    return video_v.float(), audio_v.float()


class GuidedVelocity:
    """What a run's guidance asks of the network at every step: its branches, one behind the other in the batch.

    Args:
        condition: (B, stride + C, F, H, W).
        positive, negative: text embeddings (B, S, text_dim); `negative` may be None where guidance is 1.
        split: says which branches are computed here, and gets those of the others.
    """

    def __init__(
        self,
        condition: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor | None,
        guidance: Guidance,
        latent_fps: float,
        split: Split | None = None,
    ) -> None:
        wanted = branches(guidance.text, guidance.bridge)
        missing = negative is None and any(not b.positive for b in wanted)
        assert not missing, "guidance needs the negative prompt's embedding"
        here = wanted if split is None else [wanted[i] for i in split.mine(len(wanted))]
        self.guidance, self.latent_fps, self.split = guidance, latent_fps, split
        self.branches, self.here, self.batch = len(wanted), len(here), len(positive)
        self.text = torch.cat([positive if b.positive or negative is None else negative for b in here])
        self.condition = condition.repeat(self.here, 1, 1, 1, 1)
        bridged = torch.tensor([float(b.bridged) for b in here], device=condition.device)
        bridged = bridged.repeat_interleave(self.batch).view(-1, 1, 1)
        all_on = all(b.bridged for b in wanted)
        self.scales = [s if all_on or s == 0 else s * bridged for s in (guidance.a2v, guidance.v2a)]

    def of_branches(
        self, network: DualTower, video: torch.Tensor, audio: torch.Tensor, video_timestep: float, audio_timestep: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of B clips -> velocities of picture and sound in every branch that is computed here."""
        dtype = compute_dtype(network)
        return velocity(
            network,
            video.repeat(self.here, 1, 1, 1, 1),
            audio.repeat(self.here, 1, 1),
            self.condition,
            self.text,
            self._times(video_timestep),
            self._times(audio_timestep),
            self.latent_fps,
            *(s.to(dtype) if isinstance(s, torch.Tensor) else s for s in self.scales),
        )

    def together(self, velocities: torch.Tensor) -> torch.Tensor:
        """One side's velocities in every branch here -> its guided velocity, (B, ...)."""
        parts = list(velocities.chunk(self.here))
        parts = parts if self.split is None else self.split.gather(parts, self.branches)
        return combine(parts, self.guidance.text, self.guidance.bridge)

    def of_sound_alone(self, network: DualTower, audio: torch.Tensor, timestep: float) -> torch.Tensor:
        """The sound's guided velocity by the audio tower and what a `hearing` network kept of the bridge."""
        dtype = compute_dtype(network)
        heard = network.sound(audio.repeat(self.here, 1, 1).to(dtype), self._times(timestep), self.text.to(dtype))
        return self.together(heard.float())

    def _times(self, timestep: float) -> torch.Tensor:
        """(branches here * B,), float64."""
        return torch.full((self.here * self.batch,), timestep, device=self.condition.device, dtype=torch.float64)

"""The velocity loop: from noise to the latents of picture and sound, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.decode import require_finite
from engine.errors import Cancelled
from engine.guidance import branches, combine
from engine.models import DualTower
from engine.schedule import Step
from engine.step_cache import StepCache


@dataclass(frozen=True)
class StepState:
    """What a step's callback gets.

    Attributes:
        step: steps done so far, from 1.
        steps: steps in all.
        video_timestep, audio_timestep: the noise level that the step started from, 0..1000.
        video_latents, audio_latents: the latents after the step, float32; to be read, not changed.
    """

    step: int
    steps: int
    video_timestep: float
    audio_timestep: float
    video_latents: torch.Tensor
    audio_latents: torch.Tensor

    @property
    def timesteps(self) -> tuple[float, float]:
        return self.video_timestep, self.audio_timestep

    @property
    def latents(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.video_latents, self.audio_latents


StepCallback = Callable[[StepState], bool | None]
Announce = Callable[[DualTower, DualTower | None], None]


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


@dataclass(frozen=True)
class Known:
    """Which sides are given: held clean at timestep 0 and not changed."""

    video: bool = False
    audio: bool = False


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


@contextmanager
def hearing(*networks: DualTower) -> Iterator[None]:
    """Within the block these networks keep what the bridge adds to the sound, which `sound_steps` above 1 need."""
    for network in networks:
        network.heard = []
    try:
        yield
    finally:
        for network in networks:
            network.heard = None


@torch.inference_mode()
def denoise(
    expert_at: Callable[[float], DualTower],
    video: torch.Tensor,
    audio: torch.Tensor,
    condition: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor | None,
    steps: list[Step],
    guidance: Guidance,
    latent_fps: float,
    known: Known | None = None,
    callback: StepCallback | None = None,
    announce: Announce | None = None,
    cache: StepCache | None = None,
    split: Split | None = None,
    sound_steps: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Integrates the velocity by Euler's method, all guidance branches in one batch.

    Args:
        expert_at: the network for a video timestep.
        video, audio: starting latents, (B, C, F, H, W) and (B, C', N), float32.
        condition: (B, stride + C, F, H, W).
        positive, negative: text embeddings (B, S, text_dim); `negative` may be None where guidance is 1.
        callback: called after every step; returning False ends the run with `Cancelled`.
        split: says which branches are computed here, and gets those of the others.
        cache: told before every step where it is in the run; see `engine.step_cache`.
        announce: told before every step which network computes, and which one in the step after it.
        sound_steps: parts in which the sound takes each step. After the first one only the audio tower computes, with
            what the bridge added in that first one: for few steps, in which speech suffers before the picture does.
            Above 1 the networks have to be `hearing`.

    Returns:
        Final latents of picture and sound. A known side is returned as it came.

    Raises:
        NumericsError: latents became NaN or infinite.
        Cancelled: the callback returned False.
    """
    known = known or Known()
    batch, device = video.shape[0], video.device
    todo = branches(guidance.text, guidance.bridge)
    missing = negative is None and any(not b.positive for b in todo)
    assert not missing, "guidance needs the negative prompt's embedding"
    mine = [*range(len(todo))] if split is None else split.mine(len(todo))
    here = [todo[i] for i in mine]
    text = torch.cat([positive if b.positive or negative is None else negative for b in here])
    bridged = torch.tensor([float(b.bridged) for b in here], device=device).repeat_interleave(batch)
    all_on = all(b.bridged for b in todo)
    a2v, v2a = (s if all_on or s == 0 else s * bridged.view(-1, 1, 1) for s in (guidance.a2v, guidance.v2a))
    many = len(here)

    def guided(velocities: torch.Tensor) -> torch.Tensor:
        parts = list(velocities.chunk(many))
        return combine(parts if split is None else split.gather(parts, len(todo)), guidance.text, guidance.bridge)

    def sound_alone(network: DualTower, audio: torch.Tensor, timestep: float) -> torch.Tensor:
        dtype, times = compute_dtype(network), torch.full((many * batch,), timestep, device=device, dtype=torch.float64)
        return guided(network.sound(audio.repeat(many, 1, 1).to(dtype), times, text.to(dtype)).float())

    levels = [0.0 if known.video else step.video_timestep for step in steps]
    networks = [*map(expert_at, levels), None]
    parts = 1 if known.audio else sound_steps
    for n, (step, t_video) in enumerate(zip(steps, levels, strict=True)):
        t_audio = 0.0 if known.audio else step.audio_timestep
        network = networks[n]
        assert network is not None
        if announce is not None:
            announce(network, networks[n + 1])
        if cache is not None:
            cache.step(step.index, step.index + len(steps) - n)
        scales = [s.to(compute_dtype(network)) if isinstance(s, torch.Tensor) else s for s in (a2v, v2a)]
        video_v, audio_v = velocity(
            network,
            video.repeat(many, 1, 1, 1, 1),
            audio.repeat(many, 1, 1),
            condition.repeat(many, 1, 1, 1, 1),
            text,
            torch.full((many * batch,), t_video, device=device, dtype=torch.float64),
            torch.full((many * batch,), t_audio, device=device, dtype=torch.float64),
            latent_fps,
            *scales,
        )
        if not known.video:
            video = video + step.video_delta * guided(video_v)
            video = require_finite(video, f"the picture's latents (step {step.index + 1})")
        if not known.audio:
            audio = audio + step.audio_delta / parts * guided(audio_v)
            t_next = steps[n + 1].audio_timestep if n + 1 < len(steps) else 0.0
            for part in range(1, parts):
                within = t_audio + (t_next - t_audio) * part / parts
                audio = audio + step.audio_delta / parts * sound_alone(network, audio, within)
            audio = require_finite(audio, f"the sound's latents (step {step.index + 1})")
        if callback is not None:
            state = StepState(step.index + 1, step.index + len(steps) - n, t_video, t_audio, video, audio)
            if callback(state) is False:
                raise Cancelled(f"stopped after step {step.index + 1} of {state.steps}")
    return video, audio

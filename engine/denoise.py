"""The velocity loop: from noise to the latents of picture and sound, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from engine.decode import require_finite
from engine.errors import Cancelled
from engine.guided import GuidedVelocity
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


@dataclass(frozen=True)
class Known:
    """Which sides are given: held clean at timestep 0 and not changed."""

    video: bool = False
    audio: bool = False


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
    guided: GuidedVelocity,
    steps: list[Step],
    known: Known = Known(),
    callback: StepCallback | None = None,
    announce: Announce | None = None,
    cache: StepCache | None = None,
    sound_steps: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Integrates the velocity by Euler's method.

    Args:
        expert_at: the network for a video timestep.
        video, audio: starting latents, (B, C, F, H, W) and (B, C', N), float32.
        guided: text, condition and guidance of the run.
        callback: called after every step; returning False ends the run with `Cancelled`.
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
        video_v, audio_v = guided.of_branches(network, video, audio, t_video, t_audio)
        if not known.video:
            video = video + step.video_delta * guided.together(video_v)
            video = require_finite(video, f"the picture's latents (step {step.index + 1})")
        if not known.audio:
            audio = audio + step.audio_delta / parts * guided.together(audio_v)
            t_next = steps[n + 1].audio_timestep if n + 1 < len(steps) else 0.0
            for part in range(1, parts):
                within = t_audio + (t_next - t_audio) * part / parts
                audio = audio + step.audio_delta / parts * guided.of_sound_alone(network, audio, within)
            audio = require_finite(audio, f"the sound's latents (step {step.index + 1})")
        if callback is not None:
            state = StepState(step.index + 1, step.index + len(steps) - n, t_video, t_audio, video, audio)
            if callback(state) is False:
                raise Cancelled(f"stopped after step {step.index + 1} of {state.steps}")
    return video, audio

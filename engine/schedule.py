"""The path of noise levels. Sources: rectified flow (arXiv 2209.03003); sigma shift (arXiv 2403.03206, section 5.3.2).

sigma runs from 1 (noise) to 0 (sample); a network sees timestep = 1000 sigma. Picture and sound may take the same
number of steps on different paths, each with its own sigma shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from engine.errors import CheckpointError


@dataclass(frozen=True)
class ScheduleConfig:
    """What `scheduler/scheduler_config.json` says.

    Attributes:
        shift: default sigma shift of picture and sound.
        train_timesteps: timestep of sigma 1.
        sigma_max, sigma_min: first and last sigma before the shift.
    """

    shift: float = 5.0
    train_timesteps: int = 1000
    sigma_max: float = 1.0
    sigma_min: float = 0.003 / 1.002

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ScheduleConfig:
        """Reads a released scheduler config; options that are not built are refused when on."""
        for name in (
            "extra_one_step",
            "exponential_shift",
            "exponential_shift_mu",
            "inverse_timesteps",
            "reverse_sigmas",
            "shift_terminal",
        ):
            if config.get(name):
                raise CheckpointError(f"scheduler: option {name}={config[name]!r} is not built")
        try:
            return cls(
                float(config["shift"]),
                int(config["num_train_timesteps"]),
                float(config["sigma_max"]),
                float(config["sigma_min"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"scheduler: scheduler_config.json has no usable value for {error}") from error


def sigmas(steps: int, shift: float, config: ScheduleConfig) -> torch.Tensor:
    """Shifted noise levels of `steps` steps, then the final 0: (steps + 1,) float64."""
    line = torch.linspace(config.sigma_max, config.sigma_min, steps, dtype=torch.float64)
    return torch.cat((shift_sigma(line, shift), torch.zeros(1, dtype=torch.float64)))


def shift_sigma(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """Moves noise levels in [0, 1] towards 1 (shift > 1): shift sigma / (1 + (shift - 1) sigma)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


@dataclass(frozen=True)
class Step:
    """One Euler step of both sides: from `sigma` to `sigma_next`, the network asked at `timestep`."""

    index: int
    video_timestep: float
    audio_timestep: float
    video_delta: float  # sigma_next - sigma, negative
    audio_delta: float


def paired_steps(steps: int, video_shift: float, audio_shift: float, config: ScheduleConfig) -> list[Step]:
    """The steps of a run; picture and sound start at noise and end at the sample together."""
    video, audio = sigmas(steps, video_shift, config), sigmas(steps, audio_shift, config)
    return [
        Step(
            i,
            float(video[i]) * config.train_timesteps,
            float(audio[i]) * config.train_timesteps,
            float(video[i + 1] - video[i]),
            float(audio[i + 1] - audio[i]),
        )
        for i in range(steps)
    ]

"""A look and a listen while the steps run: what the latents would become if the run ended now. Worker only.

After each step the model's present belief of the finished clip is x0 = x - sigma v. Its middle picture is decoded at
reduced size, its sound to an envelope. This takes at most a twentieth of the time that the steps take.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from app.spec import JobSpec
from engine.media import thumbnail
from engine.schedule import paired_steps

if TYPE_CHECKING:
    from engine.pipeline import MovaPipeline

log = logging.getLogger(__name__)

SHARE = 0.05  # of the run's time
LATENT_AREA = 900  # latent pixels decoded at most: 30 x 30
SIDE = 256  # pixels of the picture that is shown
BINS = 96  # of the envelope


class Previewer:
    """Gives previews of one run to `show(step, webp, envelope)`."""

    def __init__(self, pipe: MovaPipeline, spec: JobSpec, show: Callable[[int, bytes, Sequence[float]], None]) -> None:
        shift = pipe.schedule.shift
        self._steps = paired_steps(
            spec.steps or 1,
            shift if spec.video_shift is None else spec.video_shift,
            shift if spec.audio_shift is None else spec.audio_shift,
            pipe.schedule,
        )
        self._pipe, self._show = pipe, show
        self._before: tuple[torch.Tensor, torch.Tensor] | None = None
        self._began = time.monotonic()
        self._spent = 0.0
        self._cost = 0.0

    @torch.inference_mode()
    def see(self, state: Any) -> None:
        """Called after every step; shows a preview when there is time for one."""
        before, self._before = self._before, (state.video_latents, state.audio_latents)
        now = time.monotonic()
        affordable = self._spent + self._cost <= SHARE * (now - self._began) or self._cost == 0.0
        if before is None or not affordable:
            return
        step = self._steps[state.step - 1]
        video = self._belief(before[0], state.video_latents, step.video_timestep, step.video_delta)
        audio = self._belief(before[1], state.audio_latents, step.audio_timestep, step.audio_delta)
        try:
            self._show(state.step, self._picture(video), self._envelope(audio))
        except Exception as error:  # a preview is never worth a job; out of memory is the likely cause
            log.warning("no preview: %s", error)
            self._cost = float("inf")
            return
        self._cost = time.monotonic() - now
        self._spent += self._cost

    def _belief(self, before: torch.Tensor, after: torch.Tensor, timestep: float, delta: float) -> torch.Tensor:
        """x0 from the latents on both sides of an Euler step; a side that is held has not moved and is x0."""
        velocity = (after - before) / delta
        left = timestep / self._pipe.schedule.train_timesteps + delta
        return after - left * velocity

    def _picture(self, latents: torch.Tensor) -> bytes:
        """The middle latent frame (1, C, F, H, W) as a WebP."""
        from engine.decode import decode_video

        frame = latents[:, :, latents.shape[2] // 2]
        height, width = frame.shape[2:]
        shrink = min(1.0, (LATENT_AREA / (height * width)) ** 0.5)
        if shrink < 1.0:
            size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
            frame = torch.nn.functional.interpolate(frame, size, mode="area")
        picture = decode_video(self._pipe.video_vae, frame[:, :, None])[0, :, 0]  # (3, h, w) in [-1, 1]
        values = ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        return thumbnail(values, SIDE, kind="WEBP", quality=75)

    def _envelope(self, latents: torch.Tensor) -> list[float]:
        """Loudness over time, 0 to 1: -60 dBFS and less to full scale."""
        from engine.decode import decode_audio

        wave = decode_audio(self._pipe.audio_vae, latents)[0].cpu().numpy().astype(np.float64)
        edges = np.linspace(0, len(wave), BINS + 1).astype(int)
        level = [np.sqrt(np.mean(wave[a : max(b, a + 1)] ** 2)) for a, b in itertools.pairwise(edges)]
        return [float(v) for v in np.clip(1 + 20 * np.log10(np.maximum(level, 1e-6)) / 60, 0.0, 1.0)]

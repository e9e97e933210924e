"""A look and a listen while the steps run: what the latents would become if the run ended now. Worker only.

After each step the model's present belief of the finished clip is x0 = x - sigma v. Its middle picture is decoded at
reduced size, its sound to an envelope. This takes at most a twentieth of the run's time; of a run under a minute,
which nobody minds a few seconds longer, up to a seventh, so that it shows more than its beginning.
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
SHORT_SHARE = 0.15  # of a run that is predicted to take less than SHORT_SECONDS
SHORT_SECONDS = 60.0
LATENT_AREA = 900  # latent pixels decoded at most: 30 x 30
SIDE = 256  # pixels of the picture that is shown
BINS = 96  # of the envelope


class Budget:
    """The time that previews may take of a run.

    What a preview costs is not known before the first one, which is always allowed.
    """

    def __init__(self, steps: int, began: float) -> None:
        """`began`: when the run did, in seconds of a clock that only rises."""
        self._steps, self._began = steps, began
        self._spent = 0.0
        self._cost = 0.0  # of the last one

    def allows(self, step: int, now: float) -> bool:
        """Whether one more fits in, after `step` (from 1) has ended."""
        run = now - self._began
        predicted = (run - self._spent) * self._steps / step
        share = SHORT_SHARE if predicted < SHORT_SECONDS else SHARE
        return self._cost == 0.0 or self._spent + self._cost <= share * run

    def spend(self, seconds: float) -> None:
        """A preview took that long."""
        self._cost = max(seconds, 1e-6)
        self._spent += seconds


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
        self._budget = Budget(len(self._steps), time.monotonic())
        self._able = True

    @torch.inference_mode()
    def see(self, state: Any) -> None:
        """Called after every step; shows a preview when there is time for one."""
        before, self._before = self._before, (state.video_latents, state.audio_latents)
        now = time.monotonic()
        if before is None or not self._able or not self._budget.allows(state.step, now):
            return
        step = self._steps[state.step - 1]
        video = self._belief(before[0], state.video_latents, step.video_timestep, step.video_delta)
        audio = self._belief(before[1], state.audio_latents, step.audio_timestep, step.audio_delta)
        try:
            self._show(state.step, self._picture(video), self._envelope(audio))
        except Exception as error:  # a preview is never worth a job; out of memory is the likely cause
            log.warning("no preview: %s", error)
            self._able = False
            return
        self._budget.spend(time.monotonic() - now)

    def _belief(self, before: torch.Tensor, after: torch.Tensor, timestep: float, delta: float) -> torch.Tensor:
        """x0 from the latents on both sides of an Euler step; a side that is held has not moved and is x0."""
        velocity = (after - before) / delta
        left = timestep / self._pipe.schedule.train_timesteps + delta
        return after - left * velocity

    def _picture(self, latents: torch.Tensor) -> bytes:
        """The middle latent frame (1, C, F, H, W) as a WebP."""
        from engine.colours import colours_of
        from engine.decode import decode_video

        vae = self._pipe.video_vae
        frame = latents[:, :, latents.shape[2] // 2]
        if vae.device.type != self._pipe.device.type:
            # The VAE waits in main memory while the card computes: on the processor it would take seconds.
            return _webp(colours_of(vae, frame)[0])
        height, width = frame.shape[2:]
        shrink = min(1.0, (LATENT_AREA / (height * width)) ** 0.5)
        if shrink < 1.0:
            size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
            frame = torch.nn.functional.interpolate(frame, size, mode="area")
        return _webp(decode_video(vae, frame[:, :, None])[0, :, 0])

    def _envelope(self, latents: torch.Tensor) -> list[float]:
        """Loudness over time, 0 to 1: -60 dBFS and less to full scale."""
        from engine.decode import decode_audio

        wave = decode_audio(self._pipe.audio_vae, latents)[0].cpu().numpy().astype(np.float64)
        edges = np.linspace(0, len(wave), BINS + 1).astype(int)
        level = [np.sqrt(np.mean(wave[a : max(b, a + 1)] ** 2)) for a, b in itertools.pairwise(edges)]
        return [float(v) for v in np.clip(1 + 20 * np.log10(np.maximum(level, 1e-6)) / 60, 0.0, 1.0)]


def _webp(picture: torch.Tensor) -> bytes:
    """(3, h, w) in [-1, 1], at most `SIDE` wide and high."""
    values = ((picture + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    return thumbnail(values, SIDE, kind="WEBP", quality=75)

"""Clips made in the course of training, judged by the referee: what the losses mean for eye and ear."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan

from engine.evaluation.runs import Options, held_out_trials, make_clips
from engine.evaluation.scores import score_clips
from engine.evaluation.sheet import contact_sheet
from engine.models import AudioVAE
from engine.pipeline import MovaPipeline
from engine.profile import ModelProfile
from engine.schedule import ScheduleConfig
from engine.training.data import ClipFormat
from engine.training.flow import JointObjective
from engine.training.loop import Figures
from engine.training.text import make_tokenizer

SHOWN = ("object", "colour", "tempo", "sound", "found", "sync", "shuffled")


class Sampler:
    """Makes and judges a few clips of held-out captions with the networks as they are.

    Args:
        objective: its networks are used as they stand, not copied.
        video_vae, audio_vae: as exported, with the statistics of the latents in them.
        folder: gets ``samples-STEP.png``.
        clips: how many, the families in turn.
    """

    def __init__(
        self,
        objective: JointObjective,
        video_vae: AutoencoderKLWan,
        audio_vae: AudioVAE,
        profile: ModelProfile,
        boundary: float,
        form: ClipFormat,
        folder: Path,
        clips: int,
    ) -> None:
        schedule = ScheduleConfig(shift=profile.video_shift or ScheduleConfig.shift)
        self.pipe = MovaPipeline(
            objective.high,
            objective.low,
            video_vae,
            audio_vae,
            objective.text_encoder,
            make_tokenizer(),
            schedule,
            boundary,
            profile,
        )
        self.options = Options(
            "text", form.height, form.width, form.frames, form.fps, steps=profile.steps, guidance=profile.guidance
        )
        self.folder = folder
        self.trials = held_out_trials(clips, seed=11)

    def __call__(self, step: int) -> Figures:
        """Scores at a step, and a sheet to look at. In float32, as the pipeline runs on its own."""
        with torch.autocast(self.pipe.device.type, enabled=False):
            clips = list(make_clips(self.pipe, self.trials, self.options))
            scores = score_clips(clips)
        shown = range(min(8, len(clips)))
        self.folder.mkdir(parents=True, exist_ok=True)
        sheet = contact_sheet([clips[i] for i in shown], [scores.clips[i] for i in shown])
        sheet.save(self.folder / f"samples-{step:06d}.png", optimize=True)
        return {name: getattr(scores.overall, name) for name in SHOWN}

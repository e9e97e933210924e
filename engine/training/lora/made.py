"""Clips that a training makes itself: samples to look at, and those of what the model shall not forget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from engine.media import write_clip
from engine.models import rope
from engine.output import MovaOutput
from engine.pipeline import MovaPipeline
from engine.profile import ModelProfile
from engine.training.loop import Figures
from engine.training.lora import cache as store
from engine.training.lora.clips import Format

SEEDS_APART = 100_003


@dataclass(frozen=True)
class Sampler:
    """Clips of fixed prompts and seeds, into `folder` as step-000200-1.mp4, made within `apart`.

    In half of the model's steps, see `_half_steps`: what they are for is to see whether the new thing is there.

    Attributes:
        writes: this process decodes and writes them; others only help to compute.
    """

    pipe: MovaPipeline
    form: Format
    prompts: tuple[str, ...]
    folder: Path
    seed: int
    apart: Callable[[], AbstractContextManager[None]] = nullcontext
    writes: bool = True

    def __call__(self, step: int) -> Figures:
        """Makes them with the factors as they stand; returns their file names."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files = []
        with self.apart(), torch.autocast(self.pipe.device.type, enabled=False):
            for n, prompt in enumerate(self.prompts, 1):
                path = self.folder / f"step-{step:06d}-{n}.mp4"
                seed = self.seed * SEEDS_APART + n
                made = _sampled(self.pipe, prompt, self.form, seed, "np" if self.writes else "latent")
                if self.writes:
                    _write(path, made, self.form, prompt, seed)
                files.append(path.name)
        _forget_tables()
        return {"files": files}


def _write(path: Path, made: MovaOutput, form: Format, prompt: str, seed: int) -> None:
    frames, samples = np.rint(made.frames[0] * 255).astype(np.uint8), made.audio[0].astype(np.float32)
    write_clip(path, frames, samples, form.fps, made.sample_rate, {"prompt": prompt, "seed": seed}, sidecar=False)


def _sampled(pipe: MovaPipeline, prompt: str, form: Format, seed: int, output_type: str) -> MovaOutput:
    p = pipe.profile
    return pipe(
        prompt, width=form.width, height=form.height, num_frames=form.frames, fps=form.fps,
        num_inference_steps=_half_steps(p), guidance_scale=p.guidance, video_shift=p.video_shift,
        audio_shift=p.audio_shift, seed=seed, output_type=output_type,
    )  # fmt: skip


def make_kept(
    prompts: tuple[str, ...],
    missing: set[int],
    form: Format,
    encoders: store.Encoders,
    pipe: MovaPipeline,
    cache: store.Cache,
    seed: int,
    progress: store.Progress,
) -> None:
    """One clip of each prompt that is missing, made by the model as it is: what it shall not forget."""
    for n, i in enumerate(sorted(missing), 1):
        made = _sampled(pipe, prompts[i], form, seed * SEEDS_APART + i, "latent")
        key = kept_key(prompts[i], i, form, encoders, pipe.profile, seed)
        cache.put(key, {"video": made.video_latents[0], "audio": made.audio_latents[0]})
        progress("keep", n, len(missing))
    _forget_tables()


def kept_key(prompt: str, index: int, form: Format, encoders: store.Encoders, profile: ModelProfile, seed: int) -> str:
    """Where such a clip lies in the cache: by all that it depends on."""
    how = [_half_steps(profile), profile.guidance, profile.video_shift, profile.audio_shift]
    return store.key_of("old", prompt, index, asdict(form), asdict(encoders.digests), how, seed)


def _half_steps(profile: ModelProfile) -> int:
    """Half of the model's own. What is to be kept are its velocities on such clips, not the clips' finest parts."""
    return max(1, profile.steps // 2)


def _forget_tables() -> None:
    """Position tables made while sampling are inference tensors, which training may not use."""
    for table in (rope.video_table, rope.audio_table, rope.clock_table):
        table.cache_clear()

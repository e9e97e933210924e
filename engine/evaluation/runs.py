"""What a model is tried with, and the clips that it makes of it.

A trial is a caption with a rendered clip that fits it. The model sees the caption alone, or also the first frame, or
the whole picture, or the whole sound; the judges see only what the model made (and what it was given).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.evaluation.scores import Clip
from engine.training.demo_world import (
    FAMILIES,
    Promise,
    caption,
    parse_caption,
    render_audio,
    render_frames,
    sample_spec,
)
from engine.training.demo_world.clip import ClipSpec

MODES = ("text", "image", "sound", "picture")
"""text: the caption alone; image: with the first frame; sound: made for a given picture; picture: for a given sound."""


_pipe: Any = None  # the model of a worker process, see `_open`


@dataclass(frozen=True)
class Trial:
    """One caption and seed. ``spec`` is the rendered clip that fits it; None for captions from elsewhere."""

    prompt: str
    seed: int
    promise: Promise
    spec: ClipSpec | None = None


@dataclass(frozen=True)
class Options:
    """How clips are made. None leaves the model its default."""

    mode: str = "text"
    height: int = 96
    width: int = 96
    frames: int = 49
    fps: float = 24.0
    steps: int | None = None
    guidance: float | None = None
    a2v: float = 1.0
    v2a: float = 1.0
    bridge_guidance: float = 1.0
    sound_steps: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode {self.mode!r} is none of {', '.join(MODES)}")


def held_out_trials(count: int, seed: int, families: Sequence[str] = FAMILIES) -> list[Trial]:
    """Captions of the held-out grammar, the families in turn, each with its own seed."""
    unknown = [name for name in families if name not in FAMILIES]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such family; choose from {', '.join(FAMILIES)}")
    rng = np.random.default_rng(np.random.PCG64([seed, 77]))
    trials = []
    for index in range(count):
        spec = sample_spec(rng, (families[index % len(families)],))
        text = caption(spec, rng, held_out=True)
        trials.append(Trial(text, seed * 100_003 + index, parse_caption(text), spec))
    return trials


def given_trials(prompts: Sequence[str], seeds: int, seed: int) -> list[Trial]:
    """The user's own captions, each with ``seeds`` seeds."""
    return [Trial(text, seed + turn, parse_caption(text)) for text in prompts for turn in range(seeds)]


def make_clips(
    pipe: Any, trials: Sequence[Trial], options: Options, progress: Callable[[int], None] | None = None
) -> Iterator[Clip]:
    """Run the pipeline once per trial."""
    for done, trial in enumerate(trials, 1):
        yield _make(pipe, trial, options)
        if progress is not None:
            progress(done)


def make_clips_side_by_side(
    folder: Path,
    trials: Sequence[Trial],
    options: Options,
    processes: int,
    progress: Callable[[int], None] | None = None,
) -> list[Clip]:
    """`make_clips` on several processes of one thread each: the same clips in the same order, sooner."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_open, initargs=(folder,)) as pool:
        clips = []
        for done, clip in enumerate(pool.map(_make_here, trials, repeat(options)), 1):
            clips.append(clip)
            if progress is not None:
                progress(done)
    return clips


def _open(folder: Path) -> None:
    """In a new process: loads the model once."""
    global _pipe  # a worker process has one model, and its pool no other way to hand it to the tasks
    from engine.pipeline import MovaPipeline

    torch.set_num_threads(1)
    _pipe = MovaPipeline.from_pretrained(folder)


def _make_here(trial: Trial, options: Options) -> Clip:
    clip = _make(_pipe, trial, options)
    return replace(clip, frames=np.rint(clip.frames * 255.0).astype(np.uint8))  # a quarter to send


def _make(pipe: Any, trial: Trial, options: Options) -> Clip:
    asked: dict[str, Any] = {
        "height": options.height,
        "width": options.width,
        "num_frames": options.frames,
        "fps": options.fps,
        "seed": trial.seed,
        "a2v_scale": options.a2v,
        "v2a_scale": options.v2a,
    }
    if options.sound_steps != 1:
        asked["sound_steps"] = options.sound_steps
    if options.bridge_guidance != 1.0:
        asked["bridge_guidance_scale"] = options.bridge_guidance
    if options.steps is not None:
        asked["num_inference_steps"] = options.steps
    if options.guidance is not None:
        asked["guidance_scale"] = options.guidance
    image: np.ndarray | None = None
    promise = trial.promise
    if options.mode != "text":
        if trial.spec is None:
            raise ValueError(f"mode {options.mode} needs captions of the demo world, to render what is given")
        spec = trial.spec
        # what is given promises as much as what is said
        shown = Promise(spec.family, spec.colour, spec.background, spec.size, spec.tempo)
        frames = render_frames(spec, options.width, options.height, options.fps, options.frames)
        if options.mode == "sound":
            asked["given_video_latents"] = pipe.encode_video(torch.from_numpy(frames)[None].float() / 255.0)
            promise = shown
        elif options.mode == "picture":
            rate = 16000
            sound = render_audio(spec, rate, round(options.frames / options.fps * rate))
            asked["given_audio_latents"] = pipe.encode_audio(torch.from_numpy(sound)[None], rate)
            promise = replace(promise, family=spec.family, tempo=spec.tempo)
        else:
            promise = replace(promise, family=spec.family, colour=spec.colour, background=spec.background)
        if options.mode in ("image", "sound"):
            image = frames[0]
            asked["image"] = Image.fromarray(image)
    out = pipe(trial.prompt, **asked)
    return Clip(
        frames=np.asarray(out.frames[0], np.float32),
        audio=np.asarray(out.audio[0], np.float32).reshape(-1),
        fps=options.fps,
        sample_rate=int(out.sample_rate),
        prompt=trial.prompt,
        seed=trial.seed,
        promise=promise,
        image=image,
    )


def rendered_clips(trials: Sequence[Trial], options: Options) -> Iterator[Clip]:
    """The ground truth in place of a model: what the scores look like when everything is right."""
    rate = 16000
    for trial in trials:
        if trial.spec is None:
            raise ValueError("only captions of the demo world can be rendered")
        frames = render_frames(trial.spec, options.width, options.height, options.fps, options.frames)
        sound = render_audio(trial.spec, rate, round(options.frames / options.fps * rate))
        image = frames[0] if options.mode == "image" else None
        yield Clip(frames, sound, options.fps, rate, trial.prompt, trial.seed, trial.promise, image)

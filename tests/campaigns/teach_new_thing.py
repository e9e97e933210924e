"""Teaches a model a thing it does not know, by twelve clips, and measures what it learned and what it forgot.

    python -m tests.campaigns.teach_new_thing --work runs/teach --threads 4 -- --steps 1100

Makes the clips as mp4 files with captions, trains with `python launch.py train lora`'s own command, then makes clips on
held-out seeds and wordings with and without the LoRA: the new thing, and the scenes of the demo world. Prints figures;
exits with 1 where the new thing appears in under 80 %, or the old scenes lose over 5 % of what they had.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.evaluation.runs import Trial, held_out_trials
from engine.evaluation.scores import Clip, score_clips
from engine.folders import find_model
from engine.media import write_clip
from engine.profile import read_profile
from engine.training.demo_world import FAMILIES, caption, sample_spec
from engine.training.log import read_lines
from tests.campaigns.new_thing import WORD, judge, write_clips, zorb
from tests.stolen import stolen_seconds

CLIPS = 12
TRAIN_SEED, TEST_SEED, OLD_SEED = 1, 1001, 1  # the last as in `python launch.py evaluate`: its captions and seeds
SHOWN = ("object", "colour", "background", "sound", "sync")
APPEARS, KEEPS = 0.80, 0.05
RATE = 16000

_pipe: Any = None  # of a worker process


@dataclass(frozen=True)
class Job:
    prompt: str
    seed: int
    guidance: float | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", help="model; the bundled one where not given")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--clips", type=int, default=20, help="of the new thing, with and without")
    parser.add_argument("--old", type=int, default=300, help="clips of the demo world, with and without")
    parser.add_argument("--kept", type=int, default=240, help="lines of what it shall not forget")
    parser.add_argument("--show", type=Path, help="folder for two clips, before and after")
    parser.add_argument("settings", nargs="*", help="more for the train command, after --")
    args = parser.parse_args()
    model = find_model(args.base)
    stolen = stolen_seconds()
    seconds = train(args.work, model, args.threads, args.kept, args.settings)
    stolen = stolen_seconds() - stolen
    figures = compare(model, args.work / "run" / f"{WORD}.safetensors", args.clips, args.old, args.threads, args.show)
    paces = [line["step_seconds"] for line in read_lines(args.work / "run" / "log.jsonl") if "loss" in line]
    figures["training_seconds"] = round(seconds, 1)
    figures["stolen_share"] = round(stolen / seconds / (os.cpu_count() or 1), 3)
    figures["step_seconds"] = statistics.median(paces)
    (args.work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
    faults = verdict(figures)
    print("\n".join(faults) or "learned, and nothing forgotten")
    return 1 if faults else 0


def train(work: Path, model: Path, threads: int, lines: int, more: list[str]) -> float:
    """Clips and training; returns the seconds that the train command took."""
    profile = read_profile(model)
    write_clips(work / "clips", CLIPS, TRAIN_SEED, profile.sizes[0][0], profile.fps, profile.frames, RATE)
    rng = np.random.default_rng(5)
    kept = [caption(sample_spec(rng, (family,)), rng) for family in FAMILIES * (lines // 8)]
    (work / "kept.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "engine.training.cli", "lora", "--data", str(work / "clips"), "--name", WORD]
    command += ["--trigger", WORD, "--base", str(model), "--work", str(work / "run"), "--no-library"]
    command += ["--keep-prompts", str(work / "kept.txt"), "--threads", str(threads), "--device", "cpu", *more]
    began = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - began


def compare(model: Path, lora: Path, clips: int, old: int, processes: int, show: Path | None) -> dict[str, Any]:
    """Figures without and with the LoRA."""
    things = [zorb(i, TEST_SEED, held_out=True) for i in range(clips)]
    jobs = [Job(t.caption, TEST_SEED * 1000 + i) for i, t in enumerate(things)]
    trials = held_out_trials(old, OLD_SEED)
    figures: dict[str, Any] = {}
    for name, file in (("before", None), ("after", lora)):
        with ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=_open, initargs=(model, file)
        ) as pool:
            found = []
            for i, (job, made) in enumerate(zip(jobs, pool.map(_make, jobs), strict=True)):
                frames, samples, fps, rate = made
                found.append(judge(frames, fps, samples, rate))
                if show is not None and i < 2:
                    show.mkdir(parents=True, exist_ok=True)
                    settings = {"prompt": job.prompt, "seed": job.seed}
                    write_clip(show / f"{WORD}-{i + 1}-{name}.mp4", frames, samples, fps, rate, settings, sidecar=False)
            figures[f"new_{name}"] = {
                "appears": float(np.mean([f.seen for f in found])),
                "sounds": float(np.mean([f.heard for f in found])),
                "sync": float(np.mean([f.sync for f in found if f.seen])) if any(f.seen for f in found) else None,
                "clips": [asdict(f) for f in found],
            }
            scored = score_clips(list(_judged(pool, trials)))
            figures[f"old_{name}"] = {n: getattr(scored.overall, n) for n in SHOWN}
    return figures


def _judged(pool: ProcessPoolExecutor, trials: list[Trial]) -> Iterator[Clip]:
    jobs = [Job(t.prompt, t.seed) for t in trials]
    for trial, (frames, samples, fps, rate) in zip(trials, pool.map(_make, jobs), strict=True):
        yield Clip(frames, samples, fps, rate, trial.prompt, trial.seed, trial.promise)


def verdict(figures: dict[str, Any]) -> list[str]:
    """What falls short, a line each."""
    faults = []
    for name in ("appears", "sounds"):
        if figures["new_after"][name] < APPEARS:
            faults.append(f"the new thing {name} in {figures['new_after'][name]:.0%}, under {APPEARS:.0%}")
    for name in SHOWN:
        lost = figures["old_before"][name] - figures["old_after"][name]
        if lost > KEEPS * figures["old_before"][name]:
            faults.append(f"{name} of the old scenes fell by {lost:.3f} from {figures['old_before'][name]:.3f}")
    return faults


def _open(model: Path, lora: Path | None) -> None:
    """In a new process: the model, and the LoRA on it."""
    global _pipe  # a worker process has one model, and its pool no other way to hand it to the tasks
    from engine.lora import stack_of
    from engine.lora.formats import read_lora
    from engine.pipeline import MovaPipeline

    torch.set_num_threads(1)
    _pipe = MovaPipeline.from_pretrained(model)
    if lora is not None:
        stack = stack_of(_pipe)
        assert stack.attach(stack.fit(read_lora(lora))).has_effect


def _make(job: Job) -> tuple[Any, Any, float, int]:
    p = _pipe.profile
    width, height = p.sizes[0]
    out = _pipe(
        job.prompt, width=width, height=height, num_frames=p.frames, fps=p.fps, num_inference_steps=p.steps,
        guidance_scale=job.guidance or p.guidance, video_shift=p.video_shift, audio_shift=p.audio_shift, seed=job.seed,
    )  # fmt: skip
    return np.rint(out.frames[0] * 255).astype(np.uint8), out.audio[0].astype(np.float32), p.fps, out.sample_rate


if __name__ == "__main__":
    sys.exit(main())

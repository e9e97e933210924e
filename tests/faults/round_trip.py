"""Clips to another studio and back, again and again with one seed, and one after another, with any model.

    python tests/faults/round_trip.py --clips 5 --model FOLDER

Each clip's mp4 alone is given to a studio with an empty folder, which must restore its settings and make the same
frames and samples, bit for bit. Then one clip is made `--again` times, and one is extended: at the join neither a
jump in the picture nor a click in the sound may stand out from the clips themselves. Exits with 1 on any fault.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from app.core import Core, open_core
from app.library import Clip
from app.options import Options
from app.spec import JobSpec
from engine.media import read_clip
from tests.app_parts import MODEL, OWNER, digest, wait
from tests.faults.verdict import verdict

PROMPTS = (
    "A red ball bounces twice on a wooden floor.",
    "“Hello”, says a face.",
    "钟声响起",
    "A lamp flickers; a hum.",
)


@dataclass
class Toll:
    """What a campaign came to. jump: change of the picture at the join, against the usual; click: of the sound."""

    clips: int = 0
    again: int = 0
    jump: float = 0.0
    click: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.clips} clips made again from their mp4 on a fresh studio, {self.again} times one seed, all bit for "
            f"bit; at a join the picture changes {self.jump:.2f} and the sound {self.click:.2f} times as much as at "
            f"most elsewhere; {len(self.faults)} faults"
        )


def asked(core: Core, dice: random.Random, frames: int, steps: int) -> JobSpec:
    """A job drawn at random: with a picture or without, cut anywhere."""
    spec = JobSpec(
        dice.choice(PROMPTS),
        frames=frames,
        steps=steps,
        seed=dice.randrange(2**32),
        guidance=dice.choice((1.0, 2.5)),
        negative_prompt=dice.choice((None, "", "blur")),
        a2v_scale=dice.choice((1.0, 0.6)),
    )
    if dice.random() < 0.6:
        colours = np.random.default_rng(dice.randrange(100)).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        picture = Image.fromarray(colours).resize((210, 150), Image.Resampling.BICUBIC)
        upload = core.uploads.add(picture, OWNER.owner, "drawn.png")
        spec = replace(spec, image=upload.id, crop=(dice.random(), dice.random()))
    return spec


def made(core: Core, spec: JobSpec) -> Clip:
    job = wait(core, core.submit(spec, OWNER)[0], 1200)
    assert job.state == "done", job.reason
    return core.library.get(job.result or "")


def campaign(folder: Path, model: Path, clips: int, again: int, frames: int, steps: int, seed: int) -> Toll:
    """Everything, on two studios with a worker each."""
    dice, toll = random.Random(seed), Toll(clips, again)
    with ExitStack() as stack:
        here, there = (_studio(folder / name, model) for name in ("here", "there"))
        for core in (here, there):
            stack.callback(core.close)
            core.start()
        for number in range(clips):
            clip = made(here, asked(here, dice, frames, steps))
            sent = Path(shutil.copy(here.library.path(clip), folder / "sent.mp4"))
            restored = there.spec_from_file(sent, OWNER)
            if (restored.prompt, restored.seed, restored.steps) != (clip.spec.prompt, clip.spec.seed, clip.spec.steps):
                toll.faults.append(f"clip {number}: other settings come back")
            if digest(there.library.path(made(there, restored))) != digest(sent):
                toll.faults.append(f"clip {number} becomes another: {clip.spec}")
        first = digest(here.library.path(clip))
        for number in range(again):
            job = wait(here, here.again(clip.id, OWNER), 1200)
            if digest(here.library.path(here.library.get(job.result or ""))) != first:
                toll.faults.append(f"with the same seed the clip differs the {number + 1}. time")
        longer = wait(here, here.extend(clip.id, OWNER), 1200)
        _judge_join(toll, here, clip, here.library.get(longer.result or ""))
    return toll


def _studio(folder: Path, model: Path) -> Core:
    return open_core(Options(data_dir=folder, model=str(model), browser=False))


def _judge_join(toll: Toll, core: Core, clip: Clip, longer: Clip) -> None:
    """Changes from frame to frame, and from sample to sample, at the join against the largest elsewhere."""
    whole, frames = read_clip(core.library.path(longer)), clip.facts.frames
    if len(whole.frames) != 2 * frames - 1:
        toll.faults.append(f"two clips of {frames} frames make {len(whole.frames)}")
    change = np.abs(np.diff(whole.frames.astype(np.float32), axis=0)).mean((1, 2, 3))
    toll.jump = float(change[frames - 1] / max(np.delete(change, frames - 1).max(), 1e-6))
    wave = whole.samples if whole.samples.ndim == 1 else whole.samples.mean(axis=1)
    steps = np.abs(np.diff(wave))
    at = round((frames - 1) / whole.fps * whole.sample_rate)
    near = slice(at - 64, at + round(whole.sample_rate / whole.fps) + 64)
    elsewhere = np.r_[steps[: near.start], steps[near.stop :]]
    toll.click = float(steps[near].max() / max(elsewhere.max(), 1e-6))
    if toll.click > 1.5:
        toll.faults.append(f"a click at the join: {toll.click:.2f} times the largest step elsewhere")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--clips", type=int, default=5)
    p.add_argument("--again", type=int, default=20)
    p.add_argument("--frames", type=int, default=9)
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--model", type=Path, default=MODEL)
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="mova-trip-") as folder:
        toll = campaign(Path(folder), args.model, args.clips, args.again, args.frames, args.steps, args.seed)
    return verdict(toll, toll.faults)


if __name__ == "__main__":
    sys.exit(main())

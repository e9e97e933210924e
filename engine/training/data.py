"""Rendered clips of the demo world, cached in shards.

Clip ``index`` of a set is a pure function of (seed, index), so a shard can be made again, by any process, and come out
the same. A shard is an ``.npz`` of SHARD clips: ``frames`` (n, frames, height, width, 3) uint8 and ``audio``
(n, samples) int16. Flat pictures compress thirtyfold, so that thousands of clips take a few hundred megabytes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.timing import audio_samples
from engine.training.demo_world import ClipSpec, render_audio, render_frames, sample_spec

log = logging.getLogger(__name__)

Array = np.ndarray
SHARD = 64  # clips in a file: 87 MB of frames at 96x96, what one process holds while it renders
SETS = {"train": 0, "held": 1}  # names of the two sets and the number that tells their random streams apart


@dataclass(frozen=True)
class ClipFormat:
    """Size and length of every clip: pixels, frames a second, frames, audio samples a second."""

    width: int = 96
    height: int = 96
    fps: float = 24.0
    frames: int = 49
    sample_rate: int = 16000

    @property
    def samples(self) -> int:
        return audio_samples(self.frames, self.fps, self.sample_rate)

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


def spec_at(seed: int, name: str, index: int) -> ClipSpec:
    """The clip ``index`` of the set ``name`` ("train" or "held")."""
    return sample_spec(np.random.Generator(np.random.PCG64([seed, SETS[name], index])))


def render_clip(spec: ClipSpec, form: ClipFormat) -> tuple[Array, Array]:
    """Frames (frames, height, width, 3) uint8 and sound (samples,) int16."""
    frames = render_frames(spec, form.width, form.height, form.fps, form.frames)
    sound = render_audio(spec, form.sample_rate, form.samples)
    return frames, np.rint(sound * 32767.0).astype(np.int16)


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npz"


def render_shard(folder: Path, name: str, number: int, seed: int, count: int, form: ClipFormat) -> Path:
    """Renders one shard unless its file is there; the file appears whole or not at all."""
    path = shard_path(folder, number)
    if path.exists():
        return path
    clips = [render_clip(spec_at(seed, name, number * SHARD + i), form) for i in range(count)]
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with partial.open("wb") as file:
        np.savez_compressed(file, frames=np.stack([c[0] for c in clips]), audio=np.stack([c[1] for c in clips]))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def shard_sizes(clips: int) -> list[int]:
    """How many clips each shard of a set holds: all SHARD, the last what is left."""
    return [min(SHARD, clips - start) for start in range(0, clips, SHARD)]


def render_set(folder: Path, name: str, clips: int, seed: int, form: ClipFormat, processes: int = 1) -> None:
    """Renders all missing shards of a set into ``folder``, on several processes."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder, name, number, seed, count, form) for number, count in enumerate(shard_sizes(clips))]
    jobs = [job for job in jobs if not shard_path(folder, job[2]).exists()]
    if not jobs:
        return
    if processes <= 1:
        for job in jobs:
            render_shard(*job)
        return
    with ProcessPoolExecutor(processes) as pool:
        for done, path in enumerate(pool.map(render_shard, *zip(*jobs, strict=True)), 1):
            if done % 16 == 0 or done == len(jobs):
                log.info("%s: %d of %d shards, %s", name, done, len(jobs), path.name)


def read_shards(folder: Path, start: int, clips: int) -> Iterator[tuple[Array, Array]]:
    """Frames and sound, shard by shard, of ``clips`` clips from clip ``start`` (a multiple of SHARD) on."""
    assert start % SHARD == 0, f"start {start} is no multiple of {SHARD}"
    for offset, count in enumerate(shard_sizes(clips)):
        with np.load(shard_path(folder, start // SHARD + offset)) as shard:
            yield shard["frames"][:count], shard["audio"][:count]


def load_frames(folder: Path, clips: int) -> Array:
    """The first ``clips`` clips' frames in memory: (clips, frames, height, width, 3) uint8, 1.35 MB a clip."""
    return np.concatenate([frames for frames, _ in read_shards(folder, 0, clips)])


def load_audio(folder: Path, clips: int) -> Array:
    """The first ``clips`` clips' sound: (clips, samples) int16."""
    return np.concatenate([audio for _, audio in read_shards(folder, 0, clips)])

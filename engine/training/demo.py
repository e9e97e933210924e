"""The demo model from nothing: every stage of its recipe, each picking up where it was left.

    data           rendered clips                          work/data
    video-vae      pictures <-> latents                    work/video-vae
    video-decoder  a wider decoder for the same latents    work/video-decoder
    audio-vae      sound <-> latents                       work/audio-vae
    latents        every clip encoded once                 work/latents
    towers         experts, audio tower, bridge and text   work/towers
    export         all of it in the released layout        assets/models/demo, or where told

A stage that is done is not done again; an unfinished one goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKLWan
from torch import Tensor

from engine.models import AudioVAE
from engine.training import checkpoint
from engine.training.audio_vae import AudioVaeObjective, AudioVaeTask, make_audio_vae, snake_first
from engine.training.data import load_audio, load_frames, render_set, spec_at
from engine.training.export import export_model, with_statistics
from engine.training.flow import JointObjective
from engine.training.latents import (
    LatentStatistics,
    encode_conditions,
    encode_pictures_of,
    encode_sounds_of,
    load_latents,
    measure,
)
from engine.training.loop import keep_memory, make_accelerator, train
from engine.training.recipe import Recipe, Stage
from engine.training.samples import Sampler
from engine.training.towers import JointLatents, TowersTask, make_objective
from engine.training.video_vae import Part, VideoVaeObjective, VideoVaeTask, channels_last, make_video_vae
from engine.training.widen import widen_decoder

log = logging.getLogger(__name__)

STAGES = ("data", "video-vae", "video-decoder", "audio-vae", "latents", "towers", "export")
HELD_VIDEOS, HELD_SOUNDS, HELD_LATENTS = 24, 64, 192  # held-out clips that each stage is measured on
SAMPLES = 16  # clips made and judged at every evaluation of the towers
MEASURED = 1024  # clips over which the latents' statistics are taken
PROBE_SOUNDS = 64  # clips by which a fresh audio VAE is scaled


class DemoRun:
    """One run of a recipe in a working folder.

    Args:
        work: where everything but the finished model goes.
        device: "auto" or "cpu".
        processes: that render and encode at once.
        compiled: compile losses and blocks, about twice as fast where a C++ compiler is there.
    """

    def __init__(
        self, recipe: Recipe, work: Path, device: str = "auto", processes: int = 1, compiled: bool = False
    ) -> None:
        self.compiled = compiled
        self.recipe = recipe
        self.work = work
        self.device = device
        self.processes = processes

    def run(self, stage: str, out: Path, until: int | None = None) -> None:
        """One stage of STAGES; ``until`` ends a training stage early, ``out`` is where export writes."""
        {
            "data": self.render,
            "video-vae": lambda: self.train_video_vae(until),
            "video-decoder": lambda: self.train_video_decoder(until),
            "audio-vae": lambda: self.train_audio_vae(until),
            "latents": self.encode,
            "towers": lambda: self.train_towers(until),
            "export": lambda: self.export(out),
        }[stage]()

    def render(self) -> None:
        r = self.recipe
        for name, clips in (("held", r.held_clips), ("train", r.train_clips)):
            render_set(self.work / "data" / name, name, clips, r.seed, r.clip, self.processes)

    def train_video_vae(self, until: int | None = None) -> None:
        self._train_video("video-vae", self.video_objective(), self.recipe.video, self.recipe.video_parts, until)

    def train_video_decoder(self, until: int | None = None) -> None:
        """Nothing where the recipe wants no wider one."""
        if (wider := self.recipe.video_decoder) is not None:
            objective = self.wider_objective(self.encoding_vae())
            self._train_video("video-decoder", objective, wider.stage, wider.parts, until)

    def _train_video(
        self, name: str, objective: VideoVaeObjective, stage: Stage, parts: tuple[Part, ...], until: int | None
    ) -> None:
        if self.compiled:
            objective.forward = torch.compile(objective.forward, dynamic=False)  # type: ignore[method-assign]
        r = self.recipe
        frames = load_frames(self.work / "data" / "train", stage.clips)
        held = load_frames(self.work / "data" / "held", min(HELD_VIDEOS, r.held_clips))
        task = VideoVaeTask(objective, parts, r.seed, frames, held, name)
        train(
            task, stage.optimization, self.work / name, stage.rhythm, self._accelerator(), until, prepare=channels_last
        )

    def train_audio_vae(self, until: int | None = None) -> None:
        objective, stage = self.audio_objective(), self.recipe.audio
        if self.compiled:
            objective.forward = torch.compile(objective.forward)  # type: ignore[method-assign]
        names = [spec_at(self.recipe.seed, "held", i).family for i in range(min(HELD_SOUNDS, self.recipe.held_clips))]
        task = AudioVaeTask(
            objective,
            self.recipe.audio_windows,
            self.recipe.seed,
            load_audio(self.work / "data" / "train", stage.clips),
            load_audio(self.work / "data" / "held", len(names)),
            names,
        )
        folder = self.work / "audio-vae"
        train(task, stage.optimization, folder, stage.rhythm, self._accelerator(), until, groups=snake_first)

    def encode(self) -> None:
        r, ear = self.recipe, self.audio_vae()
        if self.processes > 1:
            with ProcessPoolExecutor(self.processes, mp_context=get_context("spawn")) as pool:
                shares = [(i, self.processes) for i in range(self.processes)]
                list(pool.map(self.encode_pictures, shares))
        self.encode_pictures()
        for name, clips in (("held", r.held_clips), ("train", r.train_clips)):
            encode_sounds_of(self.work / "data" / name, self._latents("sounds", name), clips, ear)
        vae = self.encoding_vae()
        blank = torch.full((1, r.clip.height, r.clip.width, 3), 255, dtype=torch.uint8)
        checkpoint.write_atomically(
            self.work / "latents" / "blank.pt", {"blank": encode_conditions(vae, blank, r.clip.frames)}
        )
        raw = self._load_latents("train", min(MEASURED, r.train_clips), None)
        (self.work / "latents" / "statistics.json").write_text(json.dumps(asdict(measure(raw))), encoding="utf-8")

    def encode_pictures(self, share: tuple[int, int] = (0, 1)) -> None:
        """The pictures alone; ``share`` as in `encode_pictures_of`."""
        if share[1] > 1:
            keep_memory()
            torch.set_num_threads(1)
        vae = self.encoding_vae()
        channels_last(vae)
        for name, clips in (("held", self.recipe.held_clips), ("train", self.recipe.train_clips)):
            encode_pictures_of(
                self.work / "data" / name, self._latents("pictures", name), clips, self.recipe.clip, vae, share
            )

    def train_towers(self, until: int | None = None) -> None:
        r, stage = self.recipe, self.recipe.towers
        clips = {"train": stage.clips, "held": min(HELD_LATENTS, r.held_clips)}
        train_set, held_set = (self._load_latents(n, count, self._statistics()) for n, count in clips.items())
        objective = self.joint_objective()
        if self.compiled:
            for expert in (objective.high, objective.low):
                expert.compile_repeated_blocks()
        sample = Sampler(
            objective,
            *with_statistics(self.encoding_vae(), self.audio_vae(), self._statistics()),
            r.studio,
            r.towers_steps.boundary,
            r.clip,
            self.work / "towers",
            SAMPLES,
        )
        task = TowersTask(objective, r.towers_steps, r.seed, train_set, held_set, sample)
        train(task, stage.optimization, self.work / "towers", stage.rhythm, self._accelerator(), until)

    def export(self, out: Path) -> None:
        """The averaged weights of all parts, in the released layout."""
        objective = self.joint_objective()
        _load_average(objective, self.work / "towers")
        export_model(out, objective, self.video_vae(), self.audio_vae(), self._statistics(), self.recipe)
        log.info("written to %s", out)

    def encoding_vae(self) -> AutoencoderKLWan:
        """The one whose latents the towers learn, with averaged weights."""
        objective = self.video_objective()
        _load_average(objective, self.work / "video-vae")
        return objective.vae.eval()

    def video_vae(self) -> AutoencoderKLWan:
        """The one that is shipped: the same encoder, with the wider decoder where the recipe wants one."""
        vae = self.encoding_vae()
        if self.recipe.video_decoder is None:
            return vae
        objective = self.wider_objective(vae)
        _load_average(objective, self.work / "video-decoder")
        return objective.vae.eval()

    def audio_vae(self) -> AudioVAE:
        """The trained one, with averaged weights."""
        objective = self.audio_objective(fresh=False)
        _load_average(objective, self.work / "audio-vae")
        return objective.vae.eval()

    def video_objective(self) -> VideoVaeObjective:
        torch.manual_seed(self.recipe.seed)
        return VideoVaeObjective(make_video_vae(self.recipe.video_config), **self.recipe.video_weights)

    def wider_objective(self, vae: AutoencoderKLWan) -> VideoVaeObjective:
        assert self.recipe.video_decoder is not None
        torch.manual_seed(self.recipe.seed)
        wide = widen_decoder(vae, self.recipe.video_decoder.base_dim)
        return VideoVaeObjective(wide, **self.recipe.video_weights)

    def audio_objective(self, fresh: bool = True) -> AudioVaeObjective:
        torch.manual_seed(self.recipe.seed)
        config = self.recipe.audio_config
        if not fresh:
            return AudioVaeObjective(AudioVAE(**config), self.recipe.audio_kl_weight)
        sounds = load_audio(self.work / "data" / "train", min(PROBE_SOUNDS, self.recipe.train_clips))
        probe = torch.from_numpy(sounds[:, : sounds.shape[1] // 320 * 320]).float()[:, None] / 32767.0
        return AudioVaeObjective(make_audio_vae(config, probe), self.recipe.audio_kl_weight)

    def joint_objective(self) -> JointObjective:
        torch.manual_seed(self.recipe.seed)
        configs = self.recipe.tower_configs
        return make_objective(
            configs["video"],
            configs["audio"],
            configs["bridge"],
            self.recipe.text_config,
            self.recipe.shun_padding,
            latent_fps=self.recipe.clip.fps / self.recipe.towers_steps.stride,
            audio_weight=self.recipe.audio_weight,
            first_weight=self.recipe.first_weight,
            naming_weight=self.recipe.naming_weight,
        )

    def _accelerator(self) -> Accelerator:
        return make_accelerator(self.device)

    def _latents(self, side: str, name: str) -> Path:
        return self.work / "latents" / side / name

    def _load_latents(self, name: str, clips: int, statistics: LatentStatistics | None) -> JointLatents:
        pictures, sounds = self._latents("pictures", name), self._latents("sounds", name)
        return load_latents(pictures, sounds, name, clips, self.recipe.seed, self._blank(), statistics)

    def _blank(self) -> Tensor:
        blank: Tensor = checkpoint.read(self.work / "latents" / "blank.pt")["blank"]
        return blank

    def _statistics(self) -> LatentStatistics:
        return LatentStatistics(**json.loads((self.work / "latents" / "statistics.json").read_text(encoding="utf-8")))


@torch.no_grad()
def _load_average(objective: torch.nn.Module, folder: Path) -> None:
    """The averaged weights of a checkpoint, parameter by parameter: shared ones stand in it once."""
    average = checkpoint.read(folder / "checkpoint.pt")["average"]
    parameters = dict(objective.named_parameters())
    assert set(average) == set(parameters), f"{folder} holds the weights of another recipe"
    for name, parameter in parameters.items():
        parameter.copy_(average[name])

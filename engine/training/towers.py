"""The demo model's towers: two video experts, one audio tower and the bridge, trained jointly on cached latents.

At first one expert sees every noise level. Then it is copied, and each goes on with its own side of the boundary, the
audio tower and the bridge with both: what both have to know is learned once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.models import AudioTower, Bridge, DualTower, VideoTower
from engine.training.demo_world import ClipSpec, caption
from engine.training.flow import HIGH, LOW, JointObjective, Networks, NoiseLevels, aim_bridge, open_gates, shun_padding
from engine.training.loop import Average, Figures, generator_at
from engine.training.naming import named_in
from engine.training.text import encode, make_text_encoder, make_tokenizer, tokenize

CAPTION, LEVELS, NOISE, HELD = 1, 2, 3, 4  # purposes of random streams
PROBES = (0.3, 0.6, 0.9)  # sigmas at which held-out losses are taken
GAP_SIGMA = 0.9  # of the sound, the picture clean: where only the bridge can tell when something happens


@dataclass(frozen=True)
class JointLatents:
    """Latents of a set of clips, normalised, float16.

    Attributes:
        video: (clips, C, F, H, W).
        condition: (clips, C, F, H, W), of [first frame, 0, 0, ...].
        audio: (clips, C', N).
        blank: (C, F, H, W), the condition of a white first frame: "no picture".
        specs: what each clip shows.
    """

    video: Tensor
    condition: Tensor
    audio: Tensor
    blank: Tensor
    specs: list[ClipSpec]


@dataclass(frozen=True)
class Later:
    """What changes from a step on, when form and sync stand and the words are still weak.

    Attributes:
        start: that step.
        picture_drop: as in ``TowersRecipe``; without a first frame, only the words say what there is to see.
        thorough: share of captions that name every attribute.
        high_every: as in ``TowersRecipe``; what there is to see is decided at high noise.
        near_noise: share of the high-noise expert's samples that are nearly pure noise.
        favoured: families of which every clip is drawn twice as often, those that learn the most slowly.
    """

    start: int
    picture_drop: float
    thorough: float
    high_every: int
    near_noise: float = 0.0
    favoured: tuple[str, ...] = ()


@dataclass(frozen=True)
class TowersRecipe:
    """How the towers learn.

    Attributes:
        alone: steps before the second expert is made.
        high_every: after that, one step in so many trains the high-noise expert.
        text_drop, picture_drop: share of samples without text, and without a first frame.
        stride: frames per latent frame (channels of the mask).
        later: further parts of the training, in order.
    """

    batch: int
    alone: int
    high_every: int = 4
    boundary: float = 0.9
    text_drop: float = 0.1
    picture_drop: float = 0.4
    stride: int = 4
    levels: NoiseLevels = NoiseLevels()  # noqa: RUF009 - frozen
    later: tuple[Later, ...] = ()

    def at(self, step: int) -> Later:
        """What holds at a step."""
        first = Later(0, self.picture_drop, 0.0, self.high_every)
        return next((part for part in reversed(self.later) if step >= part.start), first)


def make_objective(
    video: dict[str, Any],
    audio: dict[str, Any],
    bridge: dict[str, Any],
    text: dict[str, Any],
    shun: float = 0.0,
    **how: Any,
) -> JointObjective:
    """Fresh networks.

    Args:
        video, audio, bridge, text: configs as in the released folders.
        shun: bias against padding of the text, see ``shun_padding``; 0 leaves it to chance.
        how: goes to ``JointObjective``.
    """
    networks = Networks(VideoTower(**video), VideoTower(**video), AudioTower(**audio), Bridge(**bridge))
    objective = JointObjective(networks, make_text_encoder(text), **how)
    open_gates(objective.low)
    aim_bridge(objective.low)
    if shun:
        shun_padding(objective.low, shun)
    networks.high.load_state_dict(networks.low.state_dict())
    return objective


def own_parameters(network: DualTower) -> dict[str, Tensor]:
    """The parameters of an expert that it does not share: its video tower's, by name."""
    shared = (".audio.", ".a2v.", ".v2a.", "audio_ends.")
    return {n: p for n, p in network.named_parameters() if not any(part in f".{n}" for part in shared)}


class TowersTask:
    """Batches of latents with captions drawn anew each time; held-out losses that tell what has been learned."""

    name = "towers"

    def __init__(
        self,
        objective: JointObjective,
        recipe: TowersRecipe,
        seed: int,
        train: JointLatents,
        held: JointLatents,
        sample: Callable[[int], Figures] | None = None,
    ) -> None:
        """``sample`` makes and judges clips at a step, with the objective's networks as they are."""
        self.module: nn.Module = objective
        self.objective = objective
        self.recipe = recipe
        self.seed = seed
        self.train = train
        self.held = held
        self.sample = sample
        self.tokenizer = make_tokenizer()
        self.pools = {favoured: self._pool(favoured) for favoured in {(), *(part.favoured for part in recipe.later)}}

    def before_step(self, step: int, average: Average) -> None:
        """Makes the second expert of the first when its time has come."""
        if step != self.recipe.alone:
            return
        self._copy_expert()
        for name in own_parameters(self.objective.high):
            average.values[f"high.{name}"].copy_(average.values[f"low.{name}"])

    @torch.no_grad()
    def _copy_expert(self) -> None:
        low = own_parameters(self.objective.low)
        for name, parameter in own_parameters(self.objective.high).items():
            parameter.copy_(low[name])

    def expert_at(self, step: int) -> str | None:
        """Which expert a step trains; None for the one that sees every noise level."""
        if step < self.recipe.alone:
            return None
        return HIGH if step % self.recipe.at(step).high_every == 0 else LOW

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        generator = generator_at(self.seed, step, rank, LEVELS)
        count = max(1, self.recipe.batch // world)
        now = self.recipe.at(step)
        pool = self.pools[now.favoured]
        which = pool[torch.randint(len(pool), (count,), generator=generator)]
        rng = np.random.default_rng([self.seed, step, rank, CAPTION])
        texts = [caption(self.train.specs[i], rng, thorough=now.thorough) for i in which.tolist()]
        silent = torch.rand(count, generator=generator) < self.recipe.text_drop
        texts = ["" if no_text else text for text, no_text in zip(texts, silent.tolist(), strict=True)]
        blind = torch.rand(count, generator=generator) < now.picture_drop
        expert = self.expert_at(step)
        sigmas = self.recipe.levels.draw(count, generator, expert, self.recipe.boundary, now.near_noise)
        noise = generator_at(self.seed, step, rank, NOISE)
        inputs = self._inputs(self.train, which, texts, blind, sigmas, noise)
        return inputs | {"named": named_in(texts), "expert": expert or LOW}

    def _pool(self, favoured: tuple[str, ...]) -> Tensor:
        """The clips to draw from, by number: every one, and those of favoured families a second time."""
        again = [i for i, spec in enumerate(self.train.specs) if spec.family in favoured]
        return torch.tensor([*range(len(self.train.specs)), *again])

    def _inputs(
        self,
        data: JointLatents,
        which: Tensor,
        texts: list[str],
        blind: Tensor,
        sigmas: tuple[Tensor, Tensor],
        generator: torch.Generator,
    ) -> dict[str, Any]:
        video, audio = data.video[which].float(), data.audio[which].float()
        condition = torch.where(blind.view(-1, 1, 1, 1, 1), data.blank.float(), data.condition[which].float())
        mask = torch.zeros(len(which), self.recipe.stride, *video.shape[2:])
        mask[:, :, 0] = 1.0
        ids, attended = tokenize(self.tokenizer, texts)
        return {
            "video": video,
            "audio": audio,
            "condition": torch.cat((mask, condition), 1),
            "ids": ids,
            "mask": attended,
            "video_sigma": sigmas[0],
            "audio_sigma": sigmas[1],
            "video_noise": torch.randn(video.shape, generator=generator),
            "audio_noise": torch.randn(audio.shape, generator=generator),
        }

    @torch.no_grad()
    def evaluate(self, module: nn.Module, step: int) -> Figures:
        """Held-out losses at PROBES; the sound's loss with the clip's own clean picture, with another clip's of the
        same tempo, and with the bridge off; the picture's loss with the right text, none, and another clip's."""
        if step <= self.recipe.alone:
            self._copy_expert()  # the second does not train yet, and is made of the first
        count = len(self.held.video)
        everyone, nobody = torch.arange(count), torch.zeros(count, dtype=torch.bool)
        rng = np.random.default_rng([self.seed, HELD])
        texts = [caption(spec, rng, held_out=True) for spec in self.held.specs]
        figures: Figures = {}

        def losses(sigma: tuple[float, float], words: list[str], blind: Tensor, **change: Any) -> tuple[float, float]:
            sigmas = torch.full((count,), sigma[0]), torch.full((count,), sigma[1])
            inputs = self._inputs(self.held, everyone, words, blind, sigmas, generator_at(self.seed, HELD))
            inputs |= {"expert": HIGH if sigma[0] >= self.recipe.boundary else LOW} | change
            parts = [self._chunk(inputs, slice(i, i + 32)) for i in range(0, count, 32)]
            video, audio = (torch.cat(side).mean() for side in zip(*parts, strict=True))
            return float(video), float(audio)

        for sigma in PROBES:
            figures[f"video_{sigma}"], figures[f"audio_{sigma}"] = losses((sigma, sigma), texts, ~nobody)
        wrong = self._strangers()
        for name, change in (
            ("matched", {}),
            ("strange", {"video": self.held.video[wrong].float()}),
            ("unbridged", {"bridge": 0.0}),
        ):
            figures[f"sound_{name}"] = losses((0.0, GAP_SIGMA), [""] * count, nobody, **change)[1]
        figures["sound_gap"] = figures["sound_strange"] - figures["sound_matched"]
        others = [texts[i] for i in torch.roll(everyone, 7).tolist()]
        for name, words in (("right", texts), ("none", [""] * count), ("wrong", others)):
            figures[f"text_{name}"] = losses((0.8, 0.8), words, ~nobody)[0]
        if self.sample is not None:
            figures["samples"] = self.sample(step)
        return figures

    def _chunk(self, inputs: dict[str, Any], rows: slice) -> tuple[Tensor, Tensor]:
        device = next(self.objective.parameters()).device
        part: dict[str, Any] = {k: v[rows].to(device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
        text = encode(self.objective.text_encoder, part.pop("ids"), part.pop("mask"))
        video, audio = self.objective.errors(text=text, **part)
        return video.mean(1).cpu(), audio.cpu()

    def _strangers(self) -> Tensor:
        """For each held-out clip another one of the same family and tempo, where there is one."""
        groups: dict[tuple[str, str], list[int]] = {}
        for i, spec in enumerate(self.held.specs):
            groups.setdefault((spec.family, spec.tempo), []).append(i)
        after = {i: members[(k + 1) % len(members)] for members in groups.values() for k, i in enumerate(members)}
        return torch.tensor([after[i] for i in range(len(self.held.specs))])

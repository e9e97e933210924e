"""What a step of LoRA training is: the factors as one module, batches as functions of the step, the losses.

The losses are those of full training (engine/training/flow.py): the square error of both velocities. A part of all
samples may be clips that the model made itself before it learned anything; their target is what the model says without
the factors, so that the new thing is learned and the old ones are not forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from engine.attention import use_products
from engine.encode import TEXT_TOKENS
from engine.lora.apply import Grown
from engine.lora.keys import BRIDGE
from engine.models import DualTower
from engine.training.flow import HIGH, LOW
from engine.training.loop import Average, Figures, generator_at
from engine.training.lora.cache import Example
from engine.training.lora.settings import LoraSettings
from engine.training.text import padding_counts

CHOICE, LEVELS, NOISE, PROBE = 11, 12, 13, 14  # purposes of random streams
PROBES = (0.3, 0.6, 0.9)  # noise levels at which the figures of an evaluation are taken
PROBED = 4  # clips of an evaluation
WHOLE = dict.fromkeys(("video", "audio", "kept_video", "kept_audio"), 1.0)  # what a figure is a part of
MIXED = 0.5  # share of kept samples with the words of any line, instead of those that their clip was made of
EIGHT = 8  # texts are as long as a multiple of it: the rounding of odd sizes hangs on where in memory weights stand
WORDLESS = 0.5  # of kept samples at most: the others hold what the model makes of words
ROUND = 4  # steps in which kept samples have their share; in its last ones they stand together


@dataclass(frozen=True)
class Levels:
    """The model's own noise levels: where the experts change, sigma shifts, latent frames a second."""

    boundary: float
    video_shift: float
    audio_shift: float
    latent_fps: float

    @property
    def high_share(self) -> float:
        """Share of u, drawn evenly, whose sigma is the high-noise expert's."""
        return 1.0 - self.boundary / (self.video_shift - (self.video_shift - 1.0) * self.boundary)


class LoraObjective(nn.Module):
    """The factors as the only parameters, around the frozen networks; forward is the loss.

    Args:
        grown: the factors, in place on both experts.
        mean: averages a number over all processes.

    Attributes:
        kept_everywhere: where one process has kept samples, all look at the model without the factors, so that those
            of a shared model make the same calls; what is said of samples that are not kept is thrown away.
    """

    def __init__(
        self,
        high: DualTower,
        low: DualTower,
        grown: Grown,
        settings: LoraSettings,
        latent_fps: float,
        mean: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.latent_fps = latent_fps
        self.grown = grown
        self.mean = mean or (lambda value: value)
        self.kept_everywhere = False
        self.experts = {HIGH: high, LOW: low}  # a plain dict: their weights are no parameters of this module
        for (part, module), (down, up) in grown.pairs.items():
            name = f"{part}/{module}".replace(".", "/")
            self.register_parameter(f"{name}/down", down)
            self.register_parameter(f"{name}/up", up)

    def forward(
        self,
        video: Tensor,
        audio: Tensor,
        condition: Tensor,
        text: Tensor,
        video_sigma: Tensor,
        audio_sigma: Tensor,
        video_noise: Tensor,
        audio_noise: Tensor,
        video_weight: Tensor,
        audio_weight: Tensor,
        kept: Tensor,
        expert: str,
        shares: Mapping[str, float] = WHOLE,
    ) -> tuple[Tensor, Figures]:
        """Loss of one batch.

        Args:
            video (B, C, F, H, W), audio (B, C', N), condition (B, stride + C, F, H, W), text (B, S, text_dim): latents
                and embeddings; noises like the latents; sigmas (B,).
            video_weight, audio_weight: (B,), what each sample's error counts; they add up to 1 over all processes,
                times their number.
            kept: (B,) bool, samples whose target is the model without the factors.
            expert: "high" or "low".
            shares: of the whole step's weights that each figure has; figures without any are left out.
        """
        s, r = video_sigma.view(-1, 1, 1, 1, 1), audio_sigma.view(-1, 1, 1)
        noisy = (1 - s) * video + s * video_noise, (1 - r) * audio + r * audio_noise
        targets = [video_noise - video, audio_noise - audio]
        inputs = (*noisy, condition, text, video_sigma, audio_sigma)
        asked = kept if bool(kept.any()) else torch.arange(len(kept), device=kept.device) == 0
        if bool(kept.any()) or (self.kept_everywhere and "kept_video" in shares):
            with torch.no_grad(), self.grown.off():
                before = self.velocities(expert, *(x[asked] for x in inputs))
            for target, own in zip(targets, before, strict=True):
                target[kept] = own.float()[kept[asked]]
        made = self.velocities(expert, *inputs)
        errors = [(v.float() - t).square().flatten(1).mean(1) for v, t in zip(made, targets, strict=True)]
        new = (~kept).to(errors[0])
        parts = {
            "video": (errors[0] * video_weight * new).sum(), "audio": (errors[1] * audio_weight * new).sum(),
            "kept_video": (errors[0] * video_weight * (1 - new)).sum(),
            "kept_audio": (errors[1] * audio_weight * (1 - new)).sum(),
        }  # fmt: skip
        weight, stay = self.settings.audio_weight, self.settings.keep_weight
        loss = parts["video"] + weight * parts["audio"]
        loss = loss + stay * (parts["kept_video"] + weight * parts["kept_audio"])
        with torch.no_grad():
            figures: Figures = {name: self.mean(parts[name].detach()) / share for name, share in shares.items()}
            figures["loss"] = self.mean(loss.detach())
        return loss, figures

    def velocities(
        self,
        expert: str,
        video: Tensor,
        audio: Tensor,
        condition: Tensor,
        text: Tensor,
        video_sigma: Tensor,
        audio_sigma: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Both velocities of one expert. On a processor the text's padding is counted instead of computed."""
        folded = video.device.type == "cpu"
        counts = padding_counts(text.shape[1], TEXT_TOKENS).to(video.device)
        with use_products(counts) if folded else nullcontext():
            return self.experts[expert](
                torch.cat((video, condition), 1),
                audio,
                1000.0 * video_sigma.double(),
                1000.0 * audio_sigma.double(),
                text,
                self.latent_fps,
            )

    def groups(self) -> list[dict[str, Any]]:
        """Optimizer groups: the bridge learns faster than the towers."""
        bridge = [p for n, p in self.named_parameters() if n.startswith(f"{BRIDGE}/")]
        ours = {id(p) for p in bridge}
        towers = [p for p in self.parameters() if id(p) not in ours]
        groups = [{"params": towers, "scale": 1.0}, {"params": bridge, "scale": self.settings.bridge_scale}]
        return [g for g in groups if g["params"]]


class LoraTask:
    """Batches and evaluations, for the loop.

    Args:
        new: the user's clips. old: clips that the model made itself, or none.
        blank: (stride + C, F, H, W), the condition without a first picture.
        empty: (S, text_dim), the embedding of the empty text.
        sample: makes clips at a step, with the factors as they are; returns figures about them.
        old_texts: embeddings of all that must not be forgotten; those of `old` where none are given.
    """

    name = "lora"

    def __init__(
        self,
        objective: LoraObjective,
        levels: Levels,
        new: Sequence[Example],
        old: Sequence[Example],
        blank: Tensor,
        empty: Tensor,
        sample: Callable[[int], Figures] | None = None,
        old_texts: Sequence[Tensor] = (),
    ) -> None:
        self.module: nn.Module = objective
        self.objective = objective
        self.settings = objective.settings
        self.levels = levels
        self.new, self.old = list(new), list(old)
        self.old_texts = list(old_texts) or [clip.text for clip in old]
        self.blank, self.empty = blank, empty
        self.sample = sample
        self.folded = next(objective.parameters()).device.type == "cpu"

    def before_step(self, step: int, average: Average) -> None:
        """Nothing changes in the course of a run."""

    def expert_at(self, step: int) -> str:
        """Which expert a step trains: as often as it is asked in sampling."""
        draw = torch.rand((), generator=generator_at(self.settings.seed, step, CHOICE))
        return HIGH if float(draw) < self.levels.high_share else LOW

    def kept_at(self, step: int) -> int:
        """How many samples of a step are kept ones.

        They are gathered: the model is asked without the factors in few steps instead of in all, and a batch of one
        sample can have its share, too. Of a round at least one sample is kept, and one new.
        """
        s = self.settings
        if s.keep == 0:
            return 0
        whole, left = divmod(min(max(1, round(ROUND * s.batch * s.keep)), ROUND * s.batch - 1), s.batch)
        behind = ROUND - 1 - step % ROUND  # steps until the round ends
        return s.batch if behind < whole else left if behind == whole else 0

    def text_drop_of(self, kept: bool) -> float:
        """The share of kept or of new samples that have no words; `text_drop` of all samples on the whole.

        Where something is kept, only kept samples lose their words. What the model makes without words is what
        guidance leads away from: were it drawn to the new thing, guidance would lead every other prompt elsewhere.
        """
        s = self.settings
        if not self.old or s.keep == 0:
            return s.text_drop
        return min(s.text_drop / s.keep, WORDLESS) if kept else 0.0

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """The samples of one process: every `world`-th of a batch that depends on seed and step alone."""
        s = self.settings
        expert = self.expert_at(step)
        g = generator_at(s.seed, step, LEVELS)
        count, kept_count = s.batch, self.kept_at(step) if self.old else 0
        chosen = [self.new[i] for i in torch.randint(len(self.new), (count - kept_count,), generator=g).tolist()]
        chosen += self.kept_samples(kept_count, g)
        mute, blind = torch.rand(2, count, generator=g).tolist()
        drawn = s.levels(self.levels.video_shift, self.levels.audio_shift)
        sigmas = drawn.draw(count, g, expert, self.levels.boundary)
        kept = torch.arange(count) >= count - kept_count
        silent = [self.text_drop_of(k) for k in kept.tolist()]
        texts = [self.empty if m < p else e.text for e, m, p in zip(chosen, mute, silent, strict=True)]
        hide = [b < s.picture_drop for b in blind]
        noise = generator_at(s.seed, step, NOISE)
        whole = self.inputs(chosen, texts, hide, sigmas, noise)
        loud = torch.tensor([float(e.sound) for e in chosen])
        whole |= {
            "video_weight": torch.full((count,), world / count),
            "audio_weight": loud * world / loud.sum().clamp_min(1.0),
            "kept": kept,
        }
        sums = {
            f"{kind}{side}": float(whole[f"{side}_weight"][mask].sum()) / world
            for kind, mask in (("", ~kept), ("kept_", kept))
            for side in ("video", "audio")
        }
        shares = {name: share for name, share in sums.items() if share}
        return {name: value[rank::world] for name, value in whole.items()} | {"expert": expert, "shares": shares}

    def kept_samples(self, count: int, generator: torch.Generator) -> list[Example]:
        """Clips that the model made itself, some of them with the words of others.

        What is to be kept is what the model says, and it says something about any clip with any words: so few clips,
        which take long to make, show many words, which cost nothing.
        """
        if not count:
            return []
        found = [self.old[i] for i in torch.randint(len(self.old), (count,), generator=generator).tolist()]
        words = torch.randint(len(self.old_texts), (count,), generator=generator).tolist()
        mixed = (torch.rand(count, generator=generator) < MIXED).tolist()
        return [
            replace(clip, text=self.old_texts[i]) if mix else clip
            for clip, i, mix in zip(found, words, mixed, strict=True)
        ]

    def split(self, batch: dict[str, Any], count: int) -> list[dict[str, Any]]:
        """A batch in `count` parts at most. Weights count each sample in the whole batch, so that losses add up."""
        count = min(count, len(batch["video"]))
        return [{k: v[i::count] if isinstance(v, Tensor) else v for k, v in batch.items()} for i in range(count)]

    def inputs(
        self,
        chosen: Sequence[Example],
        texts: Sequence[Tensor],
        hidden: Sequence[bool],
        sigmas: tuple[Tensor, Tensor],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Stacked tensors of some examples, float32, with fresh noise."""
        video, audio = (torch.stack([getattr(e, side).float() for e in chosen]) for side in ("video", "audio"))
        conditions = [
            (self.blank if hide or e.condition is None else e.condition).float()
            for e, hide in zip(chosen, hidden, strict=True)
        ]
        return {
            "video": video,
            "audio": audio,
            "condition": torch.stack(conditions),
            "text": self.padded(texts, video, audio),
            "video_sigma": sigmas[0],
            "audio_sigma": sigmas[1],
            "video_noise": torch.randn(video.shape, generator=generator),
            "audio_noise": torch.randn(audio.shape, generator=generator),
        }

    def padded(self, texts: Sequence[Tensor], video: Tensor, audio: Tensor) -> Tensor:
        """(B, S, text_dim), zero past each text's end; at least one position of padding, where that is folded.

        A folded text is told by its length, which must then not be that of another sequence.
        """
        if not self.folded:
            length = TEXT_TOKENS
        else:
            x, y, z = self.objective.experts[LOW].patch_size
            tokens = (video.shape[2] // x) * (video.shape[3] // y) * (video.shape[4] // z)
            length = -(-(max(len(t) for t in texts) + 1) // EIGHT) * EIGHT
            while length in (tokens, audio.shape[2]) and length < TEXT_TOKENS:
                length += EIGHT
            length = min(TEXT_TOKENS, length)
        result = torch.zeros(len(texts), length, texts[0].shape[1])
        for row, text in zip(result, texts, strict=True):
            row[: len(text)] = text[:length].float()
        return result

    @torch.no_grad()
    def evaluate(self, module: nn.Module, step: int) -> Figures:
        """Errors on some of the clips at fixed noise, new ones and kept ones; then the samples."""
        device = next(self.objective.parameters()).device
        figures: Figures = {}
        for name, examples in (("new", self.new[:PROBED]), ("old", self.old[:PROBED])):
            for sigma in PROBES if examples else ():
                level = torch.full((len(examples),), sigma)
                inputs = self.inputs(
                    examples, [e.text for e in examples], [True] * len(examples), (level, level),
                    generator_at(self.settings.seed, PROBE),
                )  # fmt: skip
                errors = [self._errors({k: v[[i]].to(device) for k, v in inputs.items()}) for i in range(len(examples))]
                for side, found in zip(("video", "audio"), zip(*errors, strict=True), strict=True):
                    figures[f"{name}_{side}_{sigma}"] = sum(found) / len(found)
        if self.sample is not None:
            figures["samples"] = self.sample(step)
        return figures

    def _errors(self, clip: dict[str, Tensor]) -> tuple[float, float]:
        """Of both velocities, for one clip at a noise level: one at a time, since a step may have room for no more."""
        noises, clean = (clip.pop("video_noise"), clip.pop("audio_noise")), (clip["video"], clip["audio"])
        sigma = float(clip["video_sigma"])
        clip["video"], clip["audio"] = ((1 - sigma) * x + sigma * n for x, n in zip(clean, noises, strict=True))
        made = self.objective.velocities(**clip, expert=HIGH if sigma >= self.levels.boundary else LOW)
        pairs = zip(made, noises, clean, strict=True)
        video, audio = (float((v.float() - (n - x)).square().mean()) for v, n, x in pairs)
        return video, audio

"""Reads a recipe file: every number that a training run of the demo model depends on."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import RequestError
from engine.profile import ModelProfile
from engine.training.audio_vae import AudioVaeRecipe
from engine.training.data import ClipFormat
from engine.training.demo_world.clip import FAMILIES
from engine.training.flow import NoiseLevels
from engine.training.loop import Optimization, Rhythm
from engine.training.towers import Later, TowersRecipe
from engine.training.video_vae import Part

RECIPES = Path(__file__).parent / "recipes"
Config = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """What every trained part has: how many clips it sees, its pace and its logs."""

    clips: int
    optimization: Optimization
    rhythm: Rhythm


@dataclass(frozen=True)
class WiderDecoder:
    """The video VAE's decoder made wider when its encoder stands, and trained alone.

    Attributes:
        base_dim: channels of its finest level.
    """

    stage: Stage
    base_dim: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Recipe:
    """A whole run. Configs are arguments of the networks, as in the released folders."""

    seed: int
    clip: ClipFormat
    train_clips: int
    held_clips: int
    video: Stage
    video_config: Config
    video_parts: tuple[Part, ...]
    video_weights: dict[str, float]
    video_decoder: WiderDecoder | None
    audio: Stage
    audio_config: Config
    audio_windows: AudioVaeRecipe
    audio_kl_weight: float
    text_config: Config
    towers: Stage
    towers_steps: TowersRecipe
    tower_configs: dict[str, Config]
    audio_weight: float
    first_weight: float
    naming_weight: float
    shun_padding: float
    studio: ModelProfile
    text: str = field(repr=False)  # the file itself, which is shipped beside the weights


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        RequestError: it cannot be read, or names something that does not exist.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
        return _recipe(raw, text)
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{path.name} is not a usable recipe: {error}") from error


def _recipe(raw: Config, text: str) -> Recipe:
    video, audio, towers = raw["video_vae"], raw["audio_vae"], raw["towers"]
    return Recipe(
        seed=int(raw["seed"]),
        clip=_take(ClipFormat, raw["clip"]),
        train_clips=int(raw["data"]["train"]),
        held_clips=int(raw["data"]["held"]),
        video=_stage(video),
        video_config=video["config"],
        video_parts=tuple(_take(Part, part) for part in video["parts"]),
        video_weights={name: float(video[name]) for name in ("moving_weight", "kl_weight", "square_weight")},
        video_decoder=_decoder(raw.get("video_decoder")),
        audio=_stage(audio),
        audio_config=audio["config"],
        audio_windows=_take(
            AudioVaeRecipe,
            audio["windows"] | {k: _pairs(audio["windows"].get(k, [])) for k in ("spectral", "levels")},
        ),
        audio_kl_weight=float(audio["kl_weight"]),
        text_config=raw["text"]["config"],
        towers=_stage(towers),
        towers_steps=_towers_recipe(towers),
        tower_configs={name: towers[name] for name in ("video", "audio", "bridge")},
        audio_weight=float(towers["audio_weight"]),
        first_weight=float(towers.get("first_weight", 1.0)),
        naming_weight=float(towers.get("naming_weight", 0.0)),
        shun_padding=float(towers.get("shun_padding", 0.0)),
        studio=ModelProfile.model_validate(raw["studio"]),
        text=text,
    )


def _decoder(raw: Config | None) -> WiderDecoder | None:
    if raw is None:
        return None
    parts = tuple(_take(Part, part) for part in raw["parts"])
    if any(part.encoder for part in parts):
        raise ValueError("the parts of video_decoder need encoder = false: the towers know the latents of the encoder")
    return WiderDecoder(_stage(raw), int(raw["base_dim"]), parts)


def _towers_recipe(towers: Config) -> TowersRecipe:
    later = tuple(
        _take(Later, part | {"favoured": _families(part.get("favoured", []))})
        for part in towers["steps"].get("later", [])
    )
    parts = {"levels": _take(NoiseLevels, towers["levels"]), "later": later}
    return _take(TowersRecipe, towers["steps"] | parts)


def _families(raw: list[str]) -> tuple[str, ...]:
    unknown = sorted(set(raw) - set(FAMILIES))
    if unknown:
        raise ValueError(f"there is no family {', '.join(unknown)}; known are {', '.join(FAMILIES)}")
    return tuple(raw)


def _pairs(raw: list[list[float]]) -> tuple[tuple[int, float], ...]:
    return tuple((int(step), float(weight)) for step, weight in raw)


def _stage(raw: Config) -> Stage:
    pace = raw["optimization"] | {"again": _pairs(raw["optimization"].get("again", []))}
    return Stage(int(raw["clips"]), _take(Optimization, pace), _take(Rhythm, raw["rhythm"]))


def _take(kind: type[T], raw: Config) -> T:
    """An instance of a dataclass; a key that it does not have is an error, so that no setting is without effect."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(raw) - known)
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return kind(**raw)

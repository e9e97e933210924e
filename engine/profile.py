"""What a model prefers: sizes, length and defaults, from `studio.json` beside its `model_index.json`.

A released folder has no such file; it then gets the values of MOVA's paper.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import CheckpointError
from engine.request import SizeRules
from engine.timing import DEFAULT_FPS, DEFAULT_FRAMES

PROFILE_NAME = "studio.json"
NEGATIVE_PROMPT = (  # the released weights' own, which they were tuned with
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"  # noqa: RUF001
    "丑陋的，残缺的，多余的手指"  # noqa: RUF001
)


class ModelProfile(BaseModel):
    """Defaults of one model. Sizes are (width, height) in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = "MOVA"
    note: str = ""
    sizes: tuple[tuple[int, int], ...] = ((640, 352), (352, 640))
    fps: float = Field(default=DEFAULT_FPS, gt=0)
    frames: int = Field(default=DEFAULT_FRAMES, gt=0)
    steps: int = Field(default=50, gt=0)
    guidance: float = 5.0
    bridge_guidance: float = 1.0
    video_shift: float | None = None
    audio_shift: float | None = None
    negative_prompt: str = NEGATIVE_PROMPT


def read_profile(folder: str | Path) -> ModelProfile:
    """The profile of a model folder; the released models' defaults where the file is absent."""
    path = Path(folder) / PROFILE_NAME
    if not path.is_file():
        return ModelProfile()
    try:
        return ModelProfile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise CheckpointError(f"{path.name} is not a valid model profile: {str(error).splitlines()[0]}") from error


def read_rules(folder: str | Path) -> SizeRules:
    """What sizes and lengths the networks in a model folder allow, read from their configs without loading them.

    A folder without configs gets MOVA's own rules: what is missing in it is told when it is loaded.

    Raises:
        CheckpointError: a config cannot be read.
    """
    folder, usual = Path(folder), SizeRules()
    vae, tower = folder / "video_vae" / "config.json", folder / "video_dit" / "config.json"
    sizes = read_profile(folder).sizes
    if not vae.is_file() or not tower.is_file():
        return SizeRules(sizes=sizes)
    try:
        strides = json.loads(vae.read_text(encoding="utf-8"))
        patch = json.loads(tower.read_text(encoding="utf-8")).get("patch_size", [1, 2, 2])
        multiple = int(strides.get("scale_factor_spatial", 8)) * math.lcm(*map(int, patch[1:]))
        return SizeRules(max(1, multiple), int(strides.get("scale_factor_temporal", usual.stride)), sizes)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder.name}: a config of the picture's networks cannot be read: {error}") from error

"""Draft, Standard, Best: what they mean for one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.profile import ModelProfile


@dataclass(frozen=True)
class Preset:
    """A name and the fields of `JobSpec` that it sets."""

    name: str
    values: dict[str, Any]


def built_in(profile: ModelProfile) -> tuple[Preset, ...]:
    """The three presets of a model.

    "draft" takes a third of the steps and one pass a step: to see whether the idea works. "standard" is what the
    model's makers recommend. "best" takes half as many steps again and lets the bridge guide.
    """
    draft = max(4, round(profile.steps / 3))
    best = round(profile.steps * 1.5)
    bridge = max(profile.bridge_guidance, 1.5)
    return (
        Preset("draft", {"steps": min(draft, profile.steps), "guidance": 1.0, "bridge_guidance": 1.0}),
        Preset(
            "standard",
            {"steps": profile.steps, "guidance": profile.guidance, "bridge_guidance": profile.bridge_guidance},
        ),
        Preset("best", {"steps": best, "guidance": profile.guidance, "bridge_guidance": bridge}),
    )

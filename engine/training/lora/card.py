"""What is written about a trained LoRA: metadata within the file, and a card to read."""

from __future__ import annotations

import json
from typing import Any

from engine.training.lora.clips import ClipSet
from engine.training.lora.settings import LoraSettings
from engine.version import __version__

AVERAGED = 10  # steps whose losses are one figure


def metadata_of(
    name: str, base: str, base_digest: str, settings: LoraSettings, clips: ClipSet, steps: int
) -> dict[str, str]:
    """Texts for the header: what others read (`modelspec.*`), and our own (`mova.*`).

    Args:
        steps: that were made; fewer than in `settings` where it was finished early.
    """
    s = settings
    texts = {
        "modelspec.title": name,
        "modelspec.architecture": "mova/lora",
        "modelspec.trigger_phrase": s.trigger,
        "modelspec.description": f"Trained on {len(clips.pieces)} clips, {steps} steps.",
        "mova.base_model": base,
        "mova.base_digest": base_digest,
        "mova.rank": str(s.rank),
        "mova.alpha": f"{s.scale_alpha:g}",
        "mova.steps": str(steps),
        "mova.trigger": s.trigger,
        "mova.data_digest": clips.digest,
        "mova.settings": json.dumps(s.to_dict()),
        "mova.made_by": f"MOVA Studio {__version__}",
    }
    return {k: v for k, v in texts.items() if v}


def card_text(metadata: dict[str, str], clips: ClipSet, samples: list[str], log: list[dict[str, Any]]) -> str:
    """The card, as Markdown."""
    trained = [line["loss"] for line in log if "loss" in line]
    lines = [f"# {metadata['modelspec.title']}", ""]
    if metadata.get("mova.trigger"):
        lines += [f"Say **{metadata['mova.trigger']}** in the prompt.", ""]
    lines += [
        f"- base model: {metadata['mova.base_model']} ({metadata['mova.base_digest'][:12]})",
        f"- rank {metadata['mova.rank']}, alpha {metadata['mova.alpha']}, {metadata['mova.steps']} steps",
        f"- {len(clips.pieces)} clips from {len({p.path for p in clips.pieces})} videos",
    ]
    if trained:
        first, last = (sum(some) / len(some) for some in (trained[:AVERAGED], trained[-AVERAGED:]))
        lines.append(f"- loss {first:.4g} at the beginning, {last:.4g} at the end")
    if clips.left_out:
        lines += ["", "Left out:", "", *(f"- {name}: {why}" for name, why in clips.left_out)]
    if samples:
        lines += ["", "Samples:", "", *(f"- [{name}]({name})" for name in samples)]
    return "\n".join([*lines, ""])

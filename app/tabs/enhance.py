"""The enhancer's place in the Create form: off, on demand, or automatic; and what became of a suggestion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.spec import JobSpec
from app.tabs.form import FormPart
from app.tabs.parts import part

OFF, SUGGEST, AUTOMATIC = "off", "suggest", "automatic"
MAX_IDEA = 20_000


def enhance_part() -> tuple[FormPart, gr.HTML]:
    """The controls under the prompt.

    Their value: {"mode": off|suggest|automatic, "model": name or None, "idea": the words before an accepted
    suggestion, "text": that suggestion, "about": who wrote it}.
    """
    place = part("enhance")
    return FormPart("enhancer", [place], enhancer_fields, enhancer_values, lambda: [{"mode": SUGGEST}]), place


def enhancer_fields(values: Sequence[Any]) -> dict[str, Any]:
    """The fields of `JobSpec`: the worker writes the prompt in automatic mode, an accepted suggestion is told."""
    value = values[0] if isinstance(values[0], dict) else {}
    model = value.get("model") if isinstance(value.get("model"), str) else None
    if value.get("mode") == AUTOMATIC:
        return {"enhancer": {"mode": AUTOMATIC, **({"model": model} if model else {})}}
    idea, about = value.get("idea"), value.get("about")
    if value.get("mode") != SUGGEST or not isinstance(idea, str) or not idea.strip():
        return {}
    told = {name: about[name] for name in ("written_by", "model") if name in about} if isinstance(about, dict) else {}
    return {"idea": idea[:MAX_IDEA], "enhancer": {"mode": SUGGEST, **told}}


def enhancer_values(spec: JobSpec) -> list[Any]:
    """What is shown for a spec: its prompt is a written one that can be undone, or it was never enhanced.

    A clip made in automatic mode comes back as an accepted suggestion, so that the same words make it again.
    """
    if not spec.idea:
        waiting = (spec.enhancer or {}).get("mode") == AUTOMATIC  # a job that has not begun
        return [{"mode": AUTOMATIC, "model": (spec.enhancer or {}).get("model")} if waiting else {"mode": OFF}]
    about = {name: value for name, value in (spec.enhancer or {}).items() if name in ("written_by", "model")}
    return [{"mode": SUGGEST, "idea": spec.idea, "text": spec.prompt, "about": about}]

"""The enhancer's place in the Create form: off, on demand, or automatic; and what became of a suggestion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.spec import JobSpec
from app.tabs.form import FormPart
from app.tabs.parts import part
from app.words import say
from app.writer_setup import Phase
from prompt_enhancer import missing

SUGGEST, AUTOMATIC = "suggest", "automatic"  # the third is "off"
MAX_IDEA = 20_000


def enhance_part() -> tuple[FormPart, gr.HTML]:
    """The controls under the prompt.

    Their value: {"mode": off|suggest|automatic, "model": name, the path of an own file, or None, "file": what is known
    of that file, "look": false where the picture shall not be looked at, "idea": the words before an accepted
    suggestion, "text": that suggestion, "about": who wrote it}.
    """
    place = part("enhance")
    return FormPart("enhancer", [place], enhancer_fields, enhancer_values, lambda: [{"mode": SUGGEST}]), place


# What is told of the model's set-up where no model can run; any other phase: nobody sets it up here.
WITHOUT_MODEL: dict[Phase, str] = {
    "waiting": "rules_until",
    "building": "rules_until",
    "failed": "rules_failed",
    "offline": "rules_offline",
}


def without_model(phase: Phase, language: str) -> str:
    """Why rules write, and what to do about it where there is something to do; "" where a model can run."""
    return say(language, WITHOUT_MODEL.get(phase, "rules_absent")) if missing() else ""


def enhancer_fields(values: Sequence[Any]) -> dict[str, Any]:
    """The fields of `JobSpec`: the worker writes the prompt in automatic mode, an accepted suggestion is told."""
    value = values[0] if isinstance(values[0], dict) else {}
    model = value.get("model") if isinstance(value.get("model"), str) else None
    if value.get("mode") == AUTOMATIC:
        return {"enhancer": switches({**value, "model": model})}
    idea, about = value.get("idea"), value.get("about")
    if value.get("mode") != SUGGEST or not isinstance(idea, str) or not idea.strip():
        return {}
    told = {name: about[name] for name in ("written_by", "model") if name in about} if isinstance(about, dict) else {}
    return {"idea": idea[:MAX_IDEA], "enhancer": {"mode": SUGGEST, **told}}


def switches(value: dict[str, Any]) -> dict[str, Any]:
    """Of the part's value what says how the enhancer works: mode, model, and look where it is off."""
    kept = {name: value[name] for name in ("mode", "model") if isinstance(value.get(name), str)}
    return kept | ({"look": False} if value.get("look") is False else {})


def switched(now: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """The part's value with other switches; words that it keeps stay."""
    old = now if isinstance(now, dict) else {}
    return {**old, "model": wanted.get("model"), "look": wanted.get("look") is not False, "mode": wanted["mode"]}


def beside(value: dict[str, Any], now: Any) -> dict[str, Any]:
    """A value from a clip's settings; what those say nothing of, mode, writer or picture, stays as it is set."""
    old = now if isinstance(now, dict) else {}
    return {name: old[name] for name in ("mode", "model", "look", "file") if name in old} | value


def unwritten(value: dict[str, Any], now: Any) -> dict[str, Any]:
    """The same for a waiting job that is edited: one without the enhancer stays so, whatever the mode was."""
    found = beside(value, now)
    return found | {"mode": SUGGEST} if "mode" not in value and found.get("mode") == AUTOMATIC else found


def enhancer_values(spec: JobSpec) -> list[Any]:
    """What is shown for a spec: its prompt is a written one that can be undone, or it was never enhanced.

    A clip made in automatic mode comes back as an accepted suggestion, so that the same words make it again. One made
    without the enhancer says nothing of a mode.
    """
    if not spec.idea:
        asked = spec.enhancer or {}  # "automatic" still: a job that has not begun
        return [switched({}, asked) if asked.get("mode") == AUTOMATIC else {}]
    about = {name: value for name, value in (spec.enhancer or {}).items() if name in ("written_by", "model")}
    return [{"mode": SUGGEST, "idea": spec.idea, "text": spec.prompt, "about": about}]

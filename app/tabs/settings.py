"""The Settings tab: model and memory, the page itself, sharing, folders, and the doctor's report.

The page that is served to everyone holds no value of these fields; they are filled in when the owner opens it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from app.core import Core
from app.guard import visitor_of
from app.tabs import token
from app.tabs.create import QUIET
from app.tabs.parts import Answer, part
from app.tabs.typed import TypedNumber
from app.words import language_of, say
from engine.errors import MovaError

CARD_SIZES = ("8", "12", "16", "24", "48")
LANGUAGE_NAMES = (("English", "en"), ("简体中文", "zh"))


@dataclass(frozen=True)
class OwnerFields:
    """Fields with names of settings (and "results": the folder), and what the owner's page shows in them."""

    fields: dict[str, Component]
    core: Core

    def values(self) -> list[Any]:
        """For the components, in their order."""
        return [self._value(name) for name in self.fields]

    def _value(self, name: str) -> Any:
        if name == "results":
            return str(self.core.paths.results)
        if name == "model":
            return gr.update(choices=sorted(self.core.models()), value=_model(self.core))
        return getattr(self.core.settings.current, name)


def build(core: Core, words: gr.I18n) -> tuple[gr.Column, gr.Markdown, OwnerFields]:
    """Lays out the tab: what the owner sees, what a guest sees instead, and the fields to fill for the owner."""
    answer = part("answer", elem_id="settings-answer", visible="hidden")
    with gr.Column(elem_id="settings", elem_classes="ownersonly") as inside:
        with gr.Row(elem_classes="sections"):
            fields = _model_section(words, core, answer) | _page_section(words)
            with gr.Column(elem_classes="stacked", min_width=0):
                fields |= _sharing_section(words) | _folder_section(words)
        with gr.Column(elem_classes="section"):
            _heading(words, "doctor")
            part("doctor")
    for name, field in fields.items():
        if name != "results":
            _save_on_change(core, name, field, answer)
    return inside, gr.Markdown(words("owner_only"), visible=False), OwnerFields(fields, core)


def _model_section(words: gr.I18n, core: Core, answer: gr.HTML) -> dict[str, Component]:
    with gr.Column(elem_classes="section", min_width=0):
        _heading(words, "section_model")
        fields: dict[str, Component] = {
            "model": gr.Dropdown([], label=words("model"), info=words("model_info"), elem_id="model"),
            "memory": _memory(words),
            "idle_minutes": _number(words, "idle_minutes", 0, 10_000, info=words("idle_info")),
            "keep_latents": gr.Checkbox(label=words("keep_latents"), info=words("keep_latents_info")),
        }
        gr.Button(words("free_memory"), size="sm").click(_freeing(core), None, answer, **QUIET)
    return fields


def _page_section(words: gr.I18n) -> dict[str, Component]:
    with gr.Column(elem_classes="section", min_width=0):
        _heading(words, "section_page")
        languages: list[Any] = [(words("language_auto"), "auto"), *LANGUAGE_NAMES]
        fields: dict[str, Component] = {
            "language": gr.Dropdown(languages, value="auto", label=words("language"), elem_id="language"),
            "theme": _choice(words, "theme", dark="dark", light="light", auto="theme_auto"),
            "notify": _choice(words, "notify", off="notify_off", sound="notify_sound", message="notify_message"),
        }
        part("firstagain")
    return fields


def _sharing_section(words: gr.I18n) -> dict[str, Component]:
    with gr.Column(elem_classes="section", min_width=0):
        _heading(words, "section_sharing")
        return {
            "guest_jobs": _number(words, "guest_jobs", 1, 100),
            "share_hours": TypedNumber(label=words("share_hours"), minimum=0.1, maximum=168),
            "upload_megabytes": _number(words, "upload_megabytes", 1, 1024),
        }


def _folder_section(words: gr.I18n) -> dict[str, Component]:
    with gr.Column(elem_classes="section", min_width=0):
        _heading(words, "section_folders")
        field = gr.Textbox(label=words("folder"), interactive=False, max_lines=2, elem_id="results-folder")
    with gr.Column(elem_classes="section", min_width=0):
        _heading(words, "section_downloads")
        token.build()
    return {"results": field}


def _heading(words: gr.I18n, key: str) -> None:
    gr.Markdown(words(key), elem_classes="heading")


def _memory(words: gr.I18n) -> gr.Dropdown:
    sizes = [(f"{size} GB", size) for size in CARD_SIZES]
    choices: list[Any] = [(words("memory_auto"), "auto"), *sizes, (words("memory_cpu"), "cpu")]
    field = gr.Dropdown(choices, value="auto", label=words("memory"), info=words("memory_info"), elem_id="memory")
    part("plan")
    return field


def _number(words: gr.I18n, name: str, low: int, high: int, **more: Any) -> TypedNumber:
    return TypedNumber(label=words(name), minimum=low, maximum=high, precision=0, **more)


def _choice(words: gr.I18n, name: str, **texts: str) -> gr.Radio:
    return gr.Radio([(words(key), value) for value, key in texts.items()], label=words(name), elem_id=name)


def _model(core: Core) -> str | None:
    try:
        return core.model_name()
    except MovaError:
        return None  # the one that was chosen is gone; the list shows those that are there


def _save_on_change(core: Core, name: str, field: Any, answer: gr.HTML) -> None:
    def save(value: Any, request: gr.Request) -> Answer:
        try:
            visitor_of(request).require_owner()
            if value is None:  # a number field that is being typed into
                return {}
            core.settings.change(**{name: value})
        except MovaError as error:
            return {"error": str(error)}
        # Language and look are also this browser's own choice; the page starts again with them.
        chosen = {name: value} if name in ("language", "theme") else {"reload": True} if name == "model" else None
        return {"say": say(language_of(request), "saved"), **({"chosen": chosen} if chosen else {})}

    saved = field.input(save, field, answer, trigger_mode="always_last", **QUIET)
    if name == "memory":
        saved.then(None, js="() => { document.dispatchEvent(new Event('studio:memory')); }", **QUIET)


def _freeing(core: Core) -> Callable[[gr.Request], Answer]:
    def free(request: gr.Request) -> Answer:
        try:
            visitor_of(request).require_owner()
        except MovaError as error:
            return {"error": str(error)}
        core.supervisor.free()
        return {"say": say(language_of(request), "memory_freed")}

    return free

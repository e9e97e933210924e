"""The Settings tab: model and memory, the page itself, sharing, folders, and the doctor's report."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.core import Core
from app.guard import visitor_of
from app.tabs.create import QUIET
from app.tabs.parts import Answer, part
from app.words import language_of, say
from engine.errors import MovaError

LANGUAGE_NAMES = (("English", "en"), ("简体中文", "zh"))


def build(core: Core, words: gr.I18n) -> tuple[gr.Column, gr.Markdown]:
    """Lays out the tab: what the owner sees, and what a guest sees instead."""
    now = core.settings.current
    answer = part("answer", elem_id="settings-answer", visible="hidden")
    with gr.Column(elem_id="settings", elem_classes="ownersonly") as inside:
        with gr.Row(elem_classes="sections"):
            with gr.Column(elem_classes="section", min_width=0):
                _heading(words, "section_model")
                model = gr.Dropdown(
                    _models(core), value=_model(core), label=words("model"), info=words("model_info"), elem_id="model"
                )
                idle = gr.Number(
                    now.idle_minutes,
                    label=words("idle_minutes"),
                    info=words("idle_info"),
                    minimum=0,
                    maximum=10_000,
                    precision=0,
                )
                latents = gr.Checkbox(now.keep_latents, label=words("keep_latents"), info=words("keep_latents_info"))
                free = gr.Button(words("free_memory"), size="sm")
            with gr.Column(elem_classes="section", min_width=0):
                _heading(words, "section_page")
                language = gr.Dropdown(
                    [(words("language_auto"), "auto"), *LANGUAGE_NAMES],
                    value=now.language,
                    label=words("language"),
                    elem_id="language",
                )
                theme = gr.Radio(
                    _choices(words, dark="dark", light="light", auto="theme_auto"),
                    value=now.theme,
                    label=words("theme"),
                    elem_id="theme",
                )
                notify = gr.Radio(
                    _choices(words, off="notify_off", sound="notify_sound", message="notify_message"),
                    value=now.notify,
                    label=words("notify"),
                )
            with gr.Column(elem_classes="section", min_width=0):
                _heading(words, "section_sharing")
                jobs = gr.Number(now.guest_jobs, label=words("guest_jobs"), minimum=1, maximum=100, precision=0)
                hours = gr.Number(now.share_hours, label=words("share_hours"), minimum=0.1, maximum=168)
                size = gr.Number(
                    now.upload_megabytes, label=words("upload_megabytes"), minimum=1, maximum=1024, precision=0
                )
            with gr.Column(elem_classes="section", min_width=0):
                _heading(words, "section_folders")
                gr.Textbox(
                    str(core.paths.results),
                    label=words("folder"),
                    interactive=False,
                    buttons=["copy"],
                    elem_id="results-folder",
                )
        with gr.Column(elem_classes="section"):
            _heading(words, "doctor")
            part("doctor")
    for name, field in (
        ("model", model),
        ("idle_minutes", idle),
        ("keep_latents", latents),
        ("language", language),
        ("theme", theme),
        ("notify", notify),
        ("guest_jobs", jobs),
        ("share_hours", hours),
        ("upload_megabytes", size),
    ):
        _save_on_change(core, name, field, answer)
    free.click(_freeing(core), None, answer, **QUIET)
    return inside, gr.Markdown(words("owner_only"), visible=False)


def _heading(words: gr.I18n, key: str) -> None:
    gr.Markdown(words(key), elem_classes="heading")


def _choices(words: gr.I18n, **texts: str) -> list[tuple[Any, str]]:
    return [(words(key), value) for value, key in texts.items()]


def _models(core: Core) -> list[str]:
    return sorted(core.models())


def _model(core: Core) -> str | None:
    try:
        return core.model_name()
    except MovaError:
        return None


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

    field.input(save, field, answer, trigger_mode="always_last", **QUIET)


def _freeing(core: Core) -> Any:
    def free(request: gr.Request) -> Answer:
        try:
            visitor_of(request).require_owner()
        except MovaError as error:
            return {"error": str(error)}
        core.supervisor.free()
        return {"say": say(language_of(request), "memory_freed")}

    return free

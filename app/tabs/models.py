"""The Models tab: what there is, what it takes, what is coming, drawn by the page's own script."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import gradio as gr

from app.core import Core
from app.guard import Visitor
from app.shelf import ModelRoom, Row
from app.tabs.parts import Answer, part
from app.words import WORDS, say
from engine.downloads.files import existing
from engine.errors import RequestError

HUB_PAGE = "https://huggingface.co/"


def build(words: gr.I18n) -> tuple[gr.Column, gr.Markdown]:
    """Lays out the tab: what the owner sees, and what a guest sees instead."""
    with gr.Column(elem_classes="ownersonly") as inside:
        part("models")
    return inside, gr.Markdown(words("owner_only"), visible=False)


class ModelList:
    """What the page's script asks for."""

    def __init__(self, core: Core) -> None:
        self._room = ModelRoom(core)

    def answer(self, data: dict[str, Any], visitor: Visitor, language: str) -> Answer:
        """Does what a button asks for, if it does, and returns how all models stand.

        Args:
            data: may have "do", an action of `app.shelf.Row.may` or "folder"; "name" of the model; "text" of a path.

        Raises:
            NotAllowed: a guest. MovaError: it cannot be done.
        """
        visitor.require_owner()
        done = self._do(str(data.get("do") or ""), str(data.get("name") or ""), str(data.get("text") or ""), language)
        return self._view(language) | ({"say": done} if done else {})

    def _do(self, what: str, name: str, text: str, language: str) -> str:
        """Returns what to tell the user, "" where the list itself shows it."""
        room = self._room
        match what:
            case "":
                return ""
            case "get" | "repair":
                room.get(name)
            case "pause":
                room.pause()
            case "cancel":
                return say(language, "models_cancelled", name=room.cancel(name))
            case "verify":
                room.verify(name)
            case "stop":
                room.stop_check()
            case "remove":
                what_went, size = room.remove(name)
                return say(language, "models_removed", what=what_went, size=size_text(size))
            case "use":
                room.use(name)
                return say(language, "models_used", name=name)
            case "folder":
                room.choose_folder(text)
                return say(language, "saved")
            case _:
                raise RequestError(f"the studio does not know {what!r}; reload the page")
        return ""

    def _view(self, language: str) -> Answer:
        room = self._room
        busy = room.busy  # before the rows: what ends in between is seen at the next look
        return {
            "models": [self._row(row, language) for row in room.rows()],
            "folder": str(room.shelf.folder),
            "free": _free(room.shelf.folder),
            "busy": busy,
            "fetching": room.fetching,
        }

    def _row(self, row: Row, language: str) -> Answer:
        progress = row.progress
        return {
            "name": row.name,
            "kind": row.kind,
            "about": about(row, language),
            "licence": row.licence,
            "page": HUB_PAGE + row.entry.repository if row.entry and row.entry.repository else "",
            "condition": row.condition,
            "size": row.size,
            "place": str(row.place),
            "free": _free(row.place),
            "ours": row.ours,
            "used": row.used,
            "may": list(row.may),
            "message": row.message,
            "good": self._room.checked_good(row.name),
            "done": row.done if progress is None or row.condition != "checking" else progress.done,
            "total": progress.total if progress else row.size,
            "stage": progress.stage if progress else "",
            "rate": progress.rate if progress else 0.0,
            "left": progress.seconds_left if progress else None,
        }


def about(row: Row, language: str) -> str:
    """What a model is for and what it needs, in the visitor's language where we have written it."""
    key = "about_" + re.sub(r"\W", "_", row.name.lower())
    if key in WORDS:
        return say(language, key)
    if row.entry is not None:
        return f"{row.entry.title}. {row.entry.note}".strip()
    return say(language, "about_other_writer" if row.kind == "enhancer" else "about_other")


def size_text(size: float) -> str:
    """Bytes for people; decimal units, as drives are sold."""
    unit, factor = next(((u, f) for u, f in (("GB", 1e9), ("MB", 1e6)) if size >= f), ("kB", 1e3))
    return f"{size / factor:.1f} {unit}"


def _free(folder: Path) -> int:
    return shutil.disk_usage(existing(folder)).free

"""The first-run panel: what this machine can do, which model fits, where things lie, and a button for the first clip.

It stands above the form until it is dismissed or a clip exists, stops nobody, and never returns by itself; Settings
shows it again.
"""

from __future__ import annotations

import shutil
import threading
from typing import Any

import gradio as gr

from app.core import Core
from app.first_run import Fit, Host, clip_models, fit, look
from app.guard import Visitor
from app.tabs.create import wanted
from app.tabs.models import size_text
from app.tabs.parts import Answer, answered, part
from app.words import say
from app.writer_setup import WriterSetup
from engine.downloads import Shelf
from engine.downloads.files import existing
from engine.downloads.shelf import catalogue_of
from engine.errors import RequestError
from engine.memory.machine import GIB

FIRST_EXAMPLE = "ball"
GOOD = ("here", "fits", "short")


def build(core: Core, writer: WriterSetup) -> gr.HTML:
    """The panel's place, above the form."""
    panel = Panel(core, writer)
    return part("firstrun", server_functions=[answered(panel.answer, "first")])


class Panel:
    """What the panel's script asks for."""

    def __init__(self, core: Core, writer: WriterSetup, shelf: Shelf | None = None) -> None:
        self._core, self._writer, self._shelf = core, writer, shelf or Shelf()
        self._host: Host | None = None
        self._looking = threading.Lock()

    def answer(self, data: dict[str, Any], visitor: Visitor, language: str) -> Answer:
        """Whether the panel is to be shown, and with what; does what a button of it asks for.

        Args:
            data: may have "do": "open" shows it whatever was dismissed, "dismiss" ends it for good, "make" makes the
                first clip, "language" keeps `data["language"]`, "writer" tells of the enhancer alone.
        """
        if visitor.guest:
            return {"show": False}
        match data.get("do"):
            case None:
                return self._view(language) if self._is_first() else {"show": False} | self._writing(language)
            case "open":
                return self._view(language)
            case "writer":
                return self._writing(language)
            case "dismiss":
                self._core.settings.change(welcomed=True)
                return {"show": False, "say": say(language, "first_back")}
            case "make":
                spec = wanted(self._core, {"from": "example", "name": FIRST_EXAMPLE}, visitor)
                jobs = self._core.submit(spec, visitor)
                self._core.settings.change(welcomed=True)
                return {"show": False, "submitted": jobs[0].id, "example": FIRST_EXAMPLE}
            case "language":
                self._core.settings.change(language=data.get("language"))
                return {"show": True}
        raise RequestError(f"the first steps do not know {data.get('do')!r}; reload the page")

    def _is_first(self) -> bool:
        return not self._core.settings.current.welcomed and not self._core.library.find(limit=1)

    def _view(self, language: str) -> Answer:
        with self._looking:
            host = self._host = self._host or look()
        paths, shelf = self._core.paths, self._shelf
        return {
            "show": True,
            "machine": machine_words(host, shutil.disk_usage(paths.root).free, language),
            "advice": host.advice,
            "models": [self._model(one, language) for one in self._fits(host)],
            "results": str(paths.results),
            "folder": str(shelf.folder),
            "language": self._core.settings.current.language,
            **self._writing(language),
        }

    def _fits(self, host: Host) -> list[Fit]:
        known = {entry.name: (here, begun) for entry, here, begun in catalogue_of(self._shelf)}
        found = []
        for entry in clip_models():
            here, begun = known.get(entry.name, (None, None))
            place = begun.folder if begun else self._shelf.folder
            free = shutil.disk_usage(existing(place)).free
            found.append(fit(entry, host, free, here is not None, begun.done if begun else 0))
        return found

    @staticmethod
    def _model(one: Fit, language: str) -> Answer:
        sizes = {"size": size_text(one.size), "free": size_text(one.free), "seconds": one.seconds}
        return {
            "name": one.name,
            "verdict": one.verdict,
            "good": one.verdict in GOOD,
            "text": say(language, f"first_{one.verdict}", **sizes),
        }

    def _writing(self, language: str) -> Answer:
        """How the enhancer's set-up stands: words for the user, "" where there is nothing to tell."""
        state = self._writer.state()
        words = say(language, f"writer_{state.phase}", seconds=round(state.seconds)) if state.told else ""
        return {"writer": words, "phase": state.phase, "moving": state.moving}


def machine_words(host: Host, free: int, language: str) -> list[str]:
    """Card, memory and disk, a line each."""
    if host.card and host.card_memory and not host.apple:
        card = say(language, "first_card", name=host.card, size=f"{host.card_memory / GIB:.0f} GB")
    else:
        card = host.card or say(language, "first_cardless")
    memory = say(language, "first_memory", size=f"{host.memory / GIB:.0f} GB", cores=host.cores)
    return [card, memory, say(language, "first_disk", free=size_text(free))]

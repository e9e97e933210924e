"""The hidden component through which the page's scripts ask Python: look at the state, do something, show a list."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gradio as gr

from app.core import Core
from app.guard import Visitor
from app.planned import plan_in_words
from app.sessions import Sessions
from app.suggest import writers as what_writes
from app.tabs.enhance import without_model
from app.tabs.loras import LoraList
from app.tabs.models import ModelList
from app.tabs.parts import Answer, answered
from app.view import clips_view, job_view, studio_view
from app.words import say
from app.writer_setup import WriterSetup
from engine.errors import RequestError
from engine.folders import find_model

MAX_WINDOW = 400
DOCTOR_SECONDS = 120.0


def build(core: Core, sessions: Sessions, writer: WriterSetup) -> gr.HTML:
    """The channel. Its "fill" event carries what the Create form should be filled from; the form listens to it.

    Args:
        writer: sets the enhancer's language model up.
    """

    def look(data: Any, visitor: Visitor, language: str) -> Answer:
        return studio_view(core, sessions.sharing, visitor, data.get("revision"), language)

    def act(data: Any, visitor: Visitor, language: str) -> Answer:
        return perform(core, visitor, language, data)

    def clips(data: Any, visitor: Visitor, language: str) -> Answer:
        offset, limit = _count(data.get("offset"), 0), _count(data.get("limit"), 48)
        search = str(data.get("search") or "")[:200]
        return clips_view(core, visitor, search, bool(data.get("favourites")), offset, min(max(limit, 1), MAX_WINDOW))

    def log(data: Any, visitor: Visitor, language: str) -> Answer:
        visitor.require_owner()
        return {"text": core.log_tail()}

    def doctor(data: Any, visitor: Visitor, language: str) -> Answer:
        visitor.require_owner()
        return {"text": doctor_report()}

    def plan(data: Any, visitor: Visitor, language: str) -> Answer:
        visitor.require_owner()
        now = core.settings.current
        return plan_in_words(find_model(core.model_name()), now.memory, now.device, now.precision)

    def writers(data: Any, visitor: Visitor, language: str) -> Answer:
        return what_writes(data, visitor, without_model(writer.state().phase, language))

    listed = LoraList(core)

    def loras(data: Any, visitor: Visitor, language: str) -> Answer:
        return listed.view(visitor)

    on_disk = ModelList(core)

    def shelf(data: Any, visitor: Visitor, language: str) -> Answer:
        return on_disk.answer(data, visitor, language)

    asked = (look, act, clips, log, doctor, plan, writers, loras, shelf)
    functions = [answered(run, run.__name__) for run in asked]
    return gr.HTML(
        html_template="<div></div>",
        js_on_load="studio.connect(element, server, trigger); /* sends 'fill', 'price' */",
        server_functions=functions,
        elem_id="channel",
        visible="hidden",
    )


def perform(core: Core, visitor: Visitor, language: str, data: dict[str, Any]) -> Answer:
    """Does what a button asks for.

    Args:
        data: {"do": name, ...}; ids are checked by queue and library.

    Raises:
        MovaError: it cannot be done, or not by this visitor.
    """
    job, clip, scope = str(data.get("job", "")), str(data.get("clip", "")), visitor.scope
    queue, library = core.queue, core.library
    match data.get("do"):
        case "cancel":
            return {"job": job_view(core, queue.cancel(job, scope))}
        case "pause":
            return {"job": job_view(core, queue.pause(job, scope))}
        case "go_on":
            return {"job": job_view(core, queue.go_on(job, scope))}
        case "forget":
            queue.forget(job, scope)
            return {}
        case "duplicate":
            queue.duplicate(job, scope, quota=core.quota(visitor))
            return {"say": say(language, "queued_one")}
        case "retry":
            queue.retry(job, scope, core.quota(visitor))
            return {"say": say(language, "queued_one")}
        case "cancel_waiting":
            queue.cancel_waiting(scope)
            return {}
        case "move":
            visitor.require_owner()  # places among everyone's jobs
            for _ in range(min(max(_count(data.get("times"), 1), 1), MAX_WINDOW)):
                queue.move(job, "up" if data.get("where") == "up" else "down", None)
            return {}
        case "hold":
            visitor.require_owner()
            queue.hold(bool(data.get("on")))
            return {}
        case "again":
            kept = data.get("keep")
            core.again(clip, visitor, new_seed=bool(data.get("new_seed")), keep=kept if kept else None)
            return {"say": say(language, "queued_one")}
        case "extend":
            words = str(data.get("prompt") or "").strip()
            core.extend(clip, visitor, {"prompt": words} if words else None)
            return {"say": say(language, "queued_one")}
        case "favourite":
            library.favourite(clip, scope, bool(data.get("on")))
            return {"done": True}
        case "delete":
            library.delete(clip, scope)
            return {"done": True}
        case "undo_delete":
            library.undo_delete(clip, scope)
            return {"say": say(language, "back")}
        case "open_folder":
            visitor.require_owner()
            open_folder(core.loras().folder if data.get("which") == "loras" else core.paths.results)
            return {}
    raise RequestError(f"the studio does not know {data.get('do')!r}; reload the page")


def _count(value: Any, default: int) -> int:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9
    return value if good else default


def open_folder(folder: Path) -> None:
    """Shows a folder in the system's file manager.

    Raises:
        RequestError: this system has none that we know to start; the message names the folder.
    """
    command = {"win32": "explorer", "darwin": "open"}.get(sys.platform, "xdg-open")
    try:
        # Not waited for: explorer says 1 when all is well, and xdg-open may live as long as its window.
        subprocess.Popen([command, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        raise RequestError(f"no file manager could be started; the folder is {folder}") from None


def doctor_report() -> str:
    """What `python launch.py doctor` says. A process of its own: it loads torch, which this one never does."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "engine.doctor"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=DOCTOR_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"The doctor was not ready within {DOCTOR_SECONDS:.0f} s; try: python launch.py doctor"
    return (done.stdout + done.stderr).strip()

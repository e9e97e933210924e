"""The LoRAs in the Create form: chosen ones with their strengths, and the library to choose from."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.core import Core
from app.guard import Visitor
from app.spec import JobSpec
from app.tabs.form import FormPart
from app.tabs.parts import Answer, part
from engine.errors import LoraError, RequestError
from engine.folders import find_model
from engine.lora import FITS, PARTLY, Choice, Entry, Verdict, judge

REPORT_LINES = 200
TEXT = 600  # characters of a maker's description


def loras_part() -> tuple[FormPart, gr.HTML]:
    """The picker and its place. Its value: {"chosen": [`Choice.to_dict`, ...]}."""
    place = part("loras")
    return FormPart("loras", [place], lora_fields, lora_values, lambda: [{"chosen": []}]), place


def lora_fields(values: Sequence[Any]) -> dict[str, Any]:
    """The chosen LoRAs as the field of `JobSpec`.

    Raises:
        RequestError: one of them cannot be read.
    """
    value = values[0] if isinstance(values[0], dict) else {}
    chosen = value.get("chosen")
    try:
        return {"loras": tuple(Choice.from_dict(one) for one in chosen)} if isinstance(chosen, list) else {}
    except (LoraError, AttributeError, TypeError) as error:
        raise RequestError(str(error)) from None


def lora_values(spec: JobSpec) -> list[Any]:
    """What the picker shows for a spec."""
    return [{"chosen": [choice.to_dict() for choice in spec.loras]}]


class LoraList:
    """The library as the page shows it, each entry judged against the model in use. Judgements are kept."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._verdicts: dict[tuple[str, str | None, Path], Verdict] = {}

    def view(self, visitor: Visitor) -> Answer:
        """Every LoRA; guests see those that can be used, and no reasons, which may name files of this machine."""
        library = self._core.loras()
        model = find_model(self._core.model_name())
        shown = []
        for entry in library.entries():
            verdict = self._verdict(entry, model)
            if not visitor.guest or verdict.status in (FITS, PARTLY):
                shown.append(_view(entry, verdict, visitor.guest))
        return {"loras": shown, "may_add": not visitor.guest, "folder": "" if visitor.guest else str(library.folder)}

    def _verdict(self, entry: Entry, model: Path) -> Verdict:
        key = (entry.sha256, entry.tower, model)
        with self._lock:
            if key not in self._verdicts:
                self._verdicts[key] = judge(entry, model)
            return self._verdicts[key]


def _view(entry: Entry, verdict: Verdict, guest: bool) -> Answer:
    about = entry.about
    plain = {
        "sha256": entry.sha256,
        "name": entry.name,
        "triggers": list(about.triggers),
        "base_model": about.base_model,
        "status": verdict.status,
    }
    if guest:
        return plain
    return plain | {
        "author": about.author,
        "licence": about.licence,
        "description": about.description[:TEXT],
        "text": verdict.text,
        "warnings": list(verdict.warnings),
        "report": [f"{line.status}: {line.key} {line.text}".strip() for line in verdict.report[:REPORT_LINES]],
        "keys": len(verdict.report),
    }


def add_lora(core: Core, path: Path, name: str, visitor: Visitor) -> Answer:
    """Copies a file that was dropped on the page into the library, under the name it had.

    Raises:
        NotAllowed: a guest. LoraError: it cannot be used.
    """
    visitor.require_owner()
    named = path.with_name(Path(name).stem[:80] + ".safetensors" if Path(name).stem else "lora.safetensors")
    path.rename(named)
    entry = core.loras().add(named)
    return {"sha256": entry.sha256, "name": entry.name}

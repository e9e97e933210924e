"""Suggestions of the prompt enhancer for the page: written in a thread, sent word by word, stopped when nobody listens.

One line of JSON each: {"so_far": text} while the model writes, then {"done": {...}} or {"error": text}.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

from app.core import Core
from app.guard import Visitor, shown
from engine.errors import LoraError, MovaError, RequestError
from engine.lora import Choice, triggers
from prompt_enhancer import EnhancedPrompt, EnhanceRequest, EnhancerError, ModelError, enhance, missing
from prompt_enhancer.catalogue import BUNDLED_NAME, RECOMMENDED, installed, own_file
from prompt_enhancer.request import OFF, RULES

log = logging.getLogger(__name__)

MAX_SEED = 2**31
NO_MODEL = "no language model can run here yet"


def writers(data: Mapping[str, Any], visitor: Visitor, without: str = "") -> dict[str, Any]:
    """What can write: installed models and rules; for the owner also those that could be had, with their sizes.

    "eyes" is the first of those installed that can see a picture, "" for none; "eyes_get" one that could be had.

    Args:
        data: may have "file", the path of an own model: then the answer is about that file alone.
        without: why no model can run here, in the visitor's language; "" where one can.

    Raises:
        NotAllowed: a guest names a file. RequestError: that file holds no language model.
    """
    if data.get("file"):
        visitor.require_owner()
        try:
            own = own_file(str(data["file"]))
        except ModelError as error:
            raise RequestError(str(error)) from None
        return {"file": {"path": str(own.path), "title": own.name, "sees": own.projector is not None}}
    there, guest = installed(), visitor.guest
    offered: list[dict[str, Any]] = [
        {"name": name, "title": name, "there": True, "sees": one.projector is not None} for name, one in there.items()
    ]
    eyes = next((name for name, one in there.items() if one.projector), "")
    if not guest:
        offered += [
            {"name": one.name, "title": one.name, "there": False, "size": one.size, "licence": one.licence}
            for one in RECOMMENDED
            if one.name not in there
        ]
    seeing = next(one for one in RECOMMENDED if one.projector)
    return {
        "models": offered,
        "bundled": BUNDLED_NAME,
        "rules": RULES,
        "missing": "" if guest else without,
        "eyes": eyes,
        "eyes_get": None if guest else {"name": seeing.name, "size": seeing.size},
        "may_add": not guest,
    }


def request_of(core: Core, asked: Mapping[str, Any], visitor: Visitor) -> EnhanceRequest:
    """What the page asks for, checked against what this visitor may use.

    Args:
        asked: "idea"; may have "image" (an upload's id), "loras" (as in settings of a clip), "model" (a name, or the
            owner's own file), "look" (false: the picture is only measured), "seed".

    Raises:
        RequestError: the model is not one that can be chosen here, or there is nothing to write about.
        ModelError: the owner's file is not there any more. NotFound: the picture is not the visitor's.
    """
    model = asked.get("model") or None
    if model is not None and model != RULES and model not in installed():
        if visitor.guest or not str(model).lower().endswith(".gguf"):
            raise RequestError(f"there is no writer {str(model)[:60]!r} here; choose {BUNDLED_NAME} or {RULES}")
        model = str(own_file(str(model)).path)
    if not str(asked.get("idea") or "").strip() and not asked.get("image"):
        raise RequestError("there is no idea yet; a few words or a picture will do")
    image = None
    if asked.get("image"):
        image = core.uploads.path(core.uploads.get(str(asked["image"]), visitor.scope))
    seed = asked.get("seed")
    return EnhanceRequest(
        idea=str(asked.get("idea") or ""),
        image=image,
        trigger_words=trigger_words(core, asked.get("loras")),
        model=model,
        vision=OFF if asked.get("look") is False else None,
        seed=seed if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < MAX_SEED else 0,
    )


def trigger_words(core: Core, loras: Any) -> tuple[str, ...]:
    """Of the chosen LoRAs that are on and there; those that are not are told when the job is submitted."""
    choices = []
    for entry in loras if isinstance(loras, list) else []:
        try:
            choices.append(Choice.from_dict(entry))
        except (LoraError, AttributeError) as error:
            log.info("no trigger words of a LoRA: %s", error)
    return triggers(choices, core.loras()) if choices else ()


class Suggestions:
    """One suggestion at a time for each visitor; asking anew stops the one before."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._running: dict[str, threading.Event] = {}

    async def lines(self, asked: Mapping[str, Any], visitor: Visitor) -> AsyncIterator[bytes]:
        """The lines of one suggestion; whoever stops reading stops the writing."""
        stop = threading.Event()
        with self._lock:
            before, self._running[visitor.owner] = self._running.get(visitor.owner), stop
        if before is not None:
            before.set()
        loop, waiting = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()

        def tell(line: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(waiting.put_nowait, line)

        work = threading.Thread(target=self._write, args=(asked, visitor, stop, tell), daemon=True)
        work.start()
        try:
            while True:
                line = await waiting.get()
                yield (json.dumps(line, ensure_ascii=False) + "\n").encode()
                if "so_far" not in line:
                    return
        finally:
            stop.set()
            with self._lock:
                if self._running.get(visitor.owner) is stop:
                    del self._running[visitor.owner]

    def _write(self, asked: Mapping[str, Any], visitor: Visitor, stop: threading.Event, tell: Any) -> None:
        try:
            request = request_of(self._core, asked, visitor)
            found = enhance(request, on_text=lambda text: tell({"so_far": text}), cancelled=stop.is_set)
            tell({"done": view(found, visitor)})
        except (EnhancerError, MovaError) as error:
            tell({"error": shown(str(error), visitor)})
        except Exception:
            log.exception("a suggestion failed")
            tell({"error": "something went wrong inside the studio; the log tells what"})


def view(found: EnhancedPrompt, visitor: Visitor) -> dict[str, Any]:
    """What the page shows of a suggestion. How to get a model stands under the enhancer's switch, not here again."""
    advice = missing()

    def told(text: str) -> str:
        return shown(text.replace(advice, NO_MODEL) if advice else text, visitor)

    return {
        "text": found.text,
        "speech": list(found.speech),
        "refused": [told(one) for one in found.refused],
        "written_by": found.written_by,
        "why_rules": told(found.why_rules),
        "seconds": round(found.seconds, 2),
        "tokens": found.tokens,
    }

"""Lets a vision model describe a first frame, once a picture; what it said is kept under the picture's hash."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from prompt_enhancer.asking import Writes
from prompt_enhancer.catalogue import Chosen, cache_folder
from prompt_enhancer.chat import DESCRIPTION, LANGUAGE_NAMES, LOOK
from prompt_enhancer.draft import Draft, described_words
from prompt_enhancer.guarantees import describes, facts_of, without_stillness
from prompt_enhancer.request import ModelError, clean
from prompt_enhancer.writer import Cancelled, Writer, missing

log = logging.getLogger(__name__)


def seen(draft: Draft, eyes: Chosen, writer: Writes, deadline: float, cancelled: Cancelled | None = None) -> Draft:
    """The draft with a description of its picture, or with the reason why there is none.

    Raises:
        EnhancerCancelled: `cancelled` said so.
    """
    assert draft.picture is not None
    assert draft.request.image is not None
    note = _note(draft.picture.sha256, eyes, draft.language)
    text = _remembered(note)
    if not text:
        if isinstance(writer, Writer) and (reason := missing()):
            return _without(draft, reason)
        assert eyes.projector is not None
        task = LOOK.format(language=LANGUAGE_NAMES[draft.language])
        image = Path(draft.request.image)
        try:
            with writer.turn(deadline, cancelled):
                reply = writer.look(eyes.path, eyes.projector, image, task, DESCRIPTION, deadline, cancelled)
        except ModelError as error:
            return _without(draft, str(error))
        text = " ".join(clean(reply.text).split())
        if reply.reason != "end" or not describes(text, draft.language):
            return _without(draft, f"{eyes.name} said nothing that can be used")
        _remember(note, text)
    text, dropped = without_stillness(described_words(text))
    request = replace(draft.request, image_description=text)
    refused = tuple(f"{word!r} in the picture's description: implies stillness" for word in dropped)
    return replace(draft, request=request, facts=facts_of(draft.idea, request), refused=draft.refused + refused)


def _without(draft: Draft, why: str) -> Draft:
    log.info("the picture is not described: %s", why)
    return replace(draft, refused=(*draft.refused, f"the picture was not described: {why}"))


def _note(sha256: str, eyes: Chosen, language: str) -> Path:
    """Where a description lies: it belongs to the picture's bytes, the model's file and the language."""
    status = eyes.path.stat()
    key = f"{sha256} {eyes.path.resolve()} {status.st_size} {status.st_mtime_ns} {language}"
    return cache_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _remembered(note: Path) -> str:
    """The description; empty if there is none that can be read."""
    try:
        text = json.loads(note.read_text(encoding="utf-8"))["description"]
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    return clean(text) if isinstance(text, str) else ""


def _remember(note: Path, text: str) -> None:
    """Written whole or not at all; a full disk only means that the picture is looked at again."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=note.parent, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"description": text}, file, ensure_ascii=False)
        os.replace(temporary, note)
    except OSError as error:
        log.warning("the picture's description could not be kept: %s", error)

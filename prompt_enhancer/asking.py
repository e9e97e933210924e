"""Asks a model for the lines around an idea, looks at what it says, and asks once more where that was wrong."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from prompt_enhancer.catalogue import Chosen
from prompt_enhancer.chat import CHATS, GRAMMAR, Part, question
from prompt_enhancer.draft import Draft
from prompt_enhancer.guarantees import one_spelling, problems
from prompt_enhancer.request import ModelError, clean, count_words, is_written_in_latin
from prompt_enhancer.rules import Lines
from prompt_enhancer.speech import SLOT
from prompt_enhancer.writer import Cancelled, Loaded, Reply, Writer, missing

log = logging.getLogger(__name__)

TRIES = 2
MOST_TOKENS = {True: 120, False: 300}  # of an answer, by whether the model is a narrow one
NARROW_IDEA_CHARACTERS = 400
MOST_REFUSALS = 4  # that are worth telling


class Writes(Protocol):
    """What the enhancer needs of a model process; `Writer` is the real one."""

    def turn(self, deadline: float, cancelled: Cancelled | None = None) -> AbstractContextManager[None]: ...

    def load(self, path: Path, exact: bool, deadline: float, cancelled: Cancelled | None = None) -> Loaded: ...

    def look(
        self,
        path: Path,
        projector: Path,
        image: Path,
        task: str,
        grammar: str,
        deadline: float,
        cancelled: Cancelled | None = None,
    ) -> Reply: ...

    def write(
        self,
        parts: list[Part],
        grammar: str,
        most: int,
        deadline: float,
        temperature: float = 0.0,
        seed: int = 0,
        cancelled: Cancelled | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply: ...


@dataclass(frozen=True)
class Answer:
    """What came of asking: lines that are right, or None and why; tokens written; what was not believed."""

    lines: Lines | None
    why: str = ""
    tokens: int = 0
    refused: tuple[str, ...] = ()


def ask(
    draft: Draft,
    chosen: Chosen,
    writer: Writes,
    deadline: float,
    on_text: Callable[[str], None] | None = None,
    cancelled: Cancelled | None = None,
) -> Answer:
    """Lets the model write, at most twice.

    Raises:
        EnhancerCancelled: `cancelled` said so.
    """
    if isinstance(writer, Writer) and (reason := missing()):
        return Answer(None, reason)
    outside = re.sub(SLOT, " ", draft.idea.masked)
    if chosen.narrow and (draft.language != "en" or not is_written_in_latin(outside)):
        return Answer(None, "the bundled model writes English only")
    refused: list[str] = []
    tokens, why = 0, f"two suggestions of {chosen.name} were not true to the idea"
    if chosen.narrow:
        why += "; the bundled model knows a small world only"
    try:
        with writer.turn(deadline, cancelled):
            loaded = writer.load(chosen.path, chosen.narrow, deadline, cancelled)
            parts = _question(draft, chosen.narrow, loaded.chat)
            for attempt in range(TRIES):
                heat = 0.0 if chosen.narrow and draft.request.seed == 0 and attempt == 0 else 0.6
                seed = draft.request.seed * TRIES + attempt
                most = MOST_TOKENS[chosen.narrow]
                reply = writer.write(parts, GRAMMAR, most, deadline, heat, seed, cancelled, on_text)
                tokens += reply.tokens
                lines = read_lines(reply.text)
                wrong = _wrong(lines, draft, chosen.narrow)
                if lines and list(wrong) == ["detail"]:  # it may as well be left out
                    lines, wrong = replace(lines, detail=""), {}
                if lines and not wrong:
                    return Answer(lines, "", tokens, tuple(refused))
                refused += [one for found in wrong.values() for one in found]
    except ModelError as error:
        log.info("rules write: %s", error)
        why = str(error)
    return Answer(None, why, tokens, tuple(dict.fromkeys(refused))[:MOST_REFUSALS])


def _question(draft: Draft, narrow: bool, chat_name: str) -> list[Part]:
    chat = next((one for one in CHATS if one.name == chat_name), CHATS[-1])
    idea = draft.idea.numbered(draft.idea.masked)
    idea = " ".join((one_spelling(idea)[:NARROW_IDEA_CHARACTERS] if narrow else idea).split())
    room = draft.request.length - count_words(draft.idea.restored(draft.idea.masked)) - 10
    return question(chat, idea, draft.request.image_description, draft.request.style, draft.language, max(room, 30))


def read_lines(text: str) -> Lines | None:
    """A model's answer as lines; None where it has not three."""
    rows = [row.strip() for row in clean(text[:8000]).split("\n") if row.strip()]
    if len(rows) != 3:
        return None
    return Lines(rows[0], "" if rows[1] == "-" else rows[1], rows[2])


def _wrong(lines: Lines | None, draft: Draft, narrow: bool) -> dict[str, list[str]]:
    """What is wrong with each line; only of lines where something is."""
    if lines is None:
        return {"form": ["an answer without the three lines"]}
    return {kind: found for kind, found in problems(lines, draft.facts, draft.language, narrow).items() if found}

"""The token's field in Settings: kept or forgotten, never shown. The page learns only whether and where it is kept."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.guard import Visitor
from app.tabs.parts import Answer, answered, part
from app.words import say
from engine.downloads.token import keep_token, where
from engine.errors import RequestError
from engine.folders import data_folder


def build() -> gr.HTML:
    """The field's place. It is no component with a value: what is typed there goes to `answer` and nowhere else."""
    return part("token", server_functions=[answered(answer, "token")])


def answer(data: dict[str, Any], visitor: Visitor, language: str) -> Answer:
    """Keeps or forgets the token, if asked to; tells where it is.

    Args:
        data: may have "do", "keep" with "text", or "forget".

    Raises:
        NotAllowed: a guest. DownloadError: it is no token, or the keyring does not let go of it.
    """
    visitor.require_owner()
    folder, told = data_folder(), ""
    match data.get("do"):
        case None:
            pass
        case "keep":
            told = say(language, "saved") if keep_token(folder, str(data.get("text") or "")) else ""
        case "forget":
            keep_token(folder, "")
            told = say(language, "token_gone")
        case other:
            raise RequestError(f"the token's field does not know {other!r}; reload the page")
    place = where(folder)
    return {"where": place, "text": say(language, f"token_{place or 'none'}")} | ({"say": told} if told else {})

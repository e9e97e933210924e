"""Who may do what. One ASGI layer in front of every route, Gradio's own included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from app.errors import NotAllowed
from app.library import LOCAL


@dataclass(frozen=True)
class Visitor:
    """Who asks.

    Attributes:
        owner: whose jobs and clips these are; never a secret.
        role: "owner" of the studio, or "guest" behind a share link.
    """

    owner: str = LOCAL
    role: Literal["owner", "guest"] = "owner"

    @property
    def guest(self) -> bool:
        return self.role == "guest"

    @property
    def scope(self) -> str | None:
        """What to pass as `owner` to queue and library: None, everything, for the owner; their own id for guests."""
        return self.owner if self.guest else None

    def require_owner(self) -> None:
        """Raises:
        NotAllowed: a guest asked for settings, folders, models or logs.
        """
        if self.guest:
            raise NotAllowed("only the owner of this studio can do that")


def shown(text: str, visitor: Visitor) -> str:
    """A message as this visitor may read it: guests see the last part of every path, not where it lies."""
    return _FOLDERS.sub("", text) if visitor.guest else text


_FOLDERS = re.compile(r"(?<![\w/\\])(?:[A-Za-z]:|~)?[/\\]{1,2}(?:[^/\\\s:;,'\"]+[/\\])+")


def visitor_of(request: Any) -> Visitor:
    """The visitor behind a `gradio.Request`, a Starlette request or an ASGI scope, as the guard found them.

    Every Gradio handler takes a `gr.Request` and calls this; without the guard's mark it raises `NotAllowed`.
    """
    inner = getattr(request, "request", request)
    scope = inner if isinstance(inner, dict) else getattr(inner, "scope", None)
    found = (scope or {}).get("state", {}).get("visitor")
    if not isinstance(found, Visitor):
        raise NotAllowed("this request did not come through the studio's door")
    return found

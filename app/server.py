"""The HTTP side: one FastAPI app with guard, login, media, /v1 and, by flag, MCP; the page is mounted on it.

Routes (all behind the guard; ids of others look like none):

    GET  /healthz                           "ok", without login
    GET  /media/clips/{id}/video            the mp4, with Range; ?download=1 names the file
    GET  /media/clips/{id}/thumb            a WebP
    GET  /media/clips/{id}/peaks            JSON: see `app.derived.Peaks`
    GET  /media/clips/{id}/export/{kind}    kind: mp4, webm, gif, wav, png; ?start=&end= seconds (png: ?at=)
    GET  /media/uploads/{id}                the picture as PNG
    GET  /media/jobs/{id}/preview           the running job's latest picture, WebP; 404 before the first step
    *    /v1/videos...                      app.api
    *    /mcp                               app.mcp, with --mcp
    GET  /login, POST /login, POST /logout  where a password is needed
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.core import Core


def make_server(core: Core) -> FastAPI:
    """The app, without the page: mount that with `gradio.mount_gradio_app(app, blocks, path="/", ...)`."""
    raise NotImplementedError


def serve(core: Core, app: FastAPI, ready: Callable[[str], None] | None = None) -> None:
    """Serves until Ctrl-C or SIGTERM: this machine, and as options say the network or a share link.

    Args:
        ready: called with the local address once the page answers; opens the browser, say.

    Raises:
        StudioError: the port that was asked for is taken.
    """
    raise NotImplementedError

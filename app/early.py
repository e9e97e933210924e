"""Writes our head into the page that Gradio serves, before Gradio's own scripts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOREIGN = re.compile(r"<meta[^>]*https?://[^>]*>|<meta[^>]*@[Gg]radio[^>]*>", re.DOTALL)


class EarlyHead:
    """ASGI layer: text/html answers to "/" get `head()` right after their <head>.

    Gradio adds its own `head` text only when the page runs: too late for the choice of language and for the colours
    of the first paint. The foreign addresses in its meta tags are left out.
    """

    def __init__(self, app: ASGIApp, head: Callable[[], str]) -> None:
        self.app = app
        self.head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] | None = None
        body = bytearray()

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if _is_page(message):
                    start = dict(message)
                    return
            elif message["type"] == "http.response.body" and start is not None:
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                page = self._with_head(bytes(body))
                headers = MutableHeaders(raw=list(start["headers"]))
                headers["content-length"] = str(len(page))
                headers["cache-control"] = "no-store"
                start["headers"] = headers.raw
                await send(start)
                await send({"type": "http.response.body", "body": page})
                return
            await send(message)

        await self.app(scope, receive, collect)

    def _with_head(self, page: bytes) -> bytes:
        text = page.decode("utf-8")
        top, tag, rest = text.partition("<head>")
        if not tag:
            return page
        inside, end, body = rest.partition("</head>")
        scripts = inside.find("<script")
        metas = FOREIGN.sub("", inside[:scripts]) + inside[scripts:] if scripts >= 0 else FOREIGN.sub("", inside)
        return f"{top}{tag}{self.head()}{metas}{end}{body}".encode()


def _is_page(message: Message) -> bool:
    headers = dict(message["headers"])
    html = headers.get(b"content-type", b"").startswith(b"text/html")
    return message["status"] == 200 and html and b"content-encoding" not in headers

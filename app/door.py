"""The one ASGI layer that every request passes, Gradio's own routes included: host, origin, login, size, headers."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.guard import Visitor
from app.library import LOCAL
from app.sessions import Sessions
from engine.lora.header import MAX_FILE

log = logging.getLogger(__name__)

SESSION_COOKIE = "mova_session"
GUEST_COOKIE = "mova_guest"
OPEN = frozenset({"/login", "/healthz"})  # what can be reached without login
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SMALL_BODY = 8 << 20  # events of the page: prompts and settings
BIG_BODY_PATHS = ("/v1/videos", "/studio/upload", "/studio/settings")
LORA_PATH = "/studio/upload/lora"
LORA_BODY = MAX_FILE + (1 << 20)  # the form around the largest LoRA that is taken
GRADIO = "/gradio_api/"
# What Gradio offers and the studio does not use: files by path, proxies, calls past the queue, its own monitoring.
CLOSED = re.compile(
    r"/(?:gradio_api/(?:upload|file|proxy|stream|deep_link|process_recording|vibe|undo-vibe|runs\b|run-history"
    r"|run/(?!predict$)"  # the page's own events come as run/predict and ask the guard
    r"|api/|call|profiling|dev/|custom_component|token|openapi)|monitoring|login/)"
)
SILENCE_SECONDS = 30.0  # an upload that says nothing for that long is over
UPLOAD_SECONDS = 900.0  # and one that takes that long, too,
SLOWEST = 1 << 20  # or, where more than that may be sent, one that brings fewer bytes a second
TOLD = 500  # bytes of a failed event's answer that the log keeps
HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
)


class Door:
    """Wraps the whole app. What passes has a `Visitor` in `scope["state"]["visitor"]`.

    Attributes:
        hosts: names that the Host header may carry; a public link's name is added to this set when it is known.
        any_address: whether any numeric address may be named, too: so it is where the network is let in. A page
            that rebinds its own name to this machine never has a numeric name.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions, hosts: set[str], any_address: bool, big_body: int) -> None:
        self.app, self.sessions = app, sessions
        self.hosts = hosts
        self.any_address, self.big_body = any_address, big_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no part of the studio speaks WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(send)
        refusal = self._refused(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        body = _Body(receive, self._limit(scope["path"], scope["state"]["visitor"]))
        tracked = _Started(send, hold_defects=scope["path"].startswith(GRADIO))
        try:
            await self.app(scope, body.receive, tracked.send)
            await tracked.finish(scope)
        except _TooLarge:
            if not tracked.started:
                await answer(scope, 413, "too_large", "that is more than may be sent; the limit is in the settings")(
                    scope, receive, send
                )
        except _TooSlow:
            if not tracked.started:
                await answer(scope, 408, "too_slow", "the upload took too long; try again")(scope, receive, send)
        except Exception:
            # Errors of the page's events travel in their streams. What fails before is a request that Gradio cannot
            # read, or that names a component or a function which is not there: not a defect of the server.
            if tracked.started or not scope["path"].startswith(GRADIO):
                raise
            log.warning("the page cannot answer %s %s", scope["method"], scope["path"], exc_info=True)
            await answer(scope, 400, "invalid_request", "the page cannot answer that; reload it")(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        """The answer to a request that may not pass; marks the visitor of one that may."""
        headers = Headers(scope=scope)
        host = host_name(headers.get("host", ""))
        if host is None or not self._knows(host):
            return answer(scope, 400, "bad_host", "this studio does not answer to that name")
        if not self._same_site(scope, headers):
            return answer(scope, 403, "foreign_origin", "that request comes from another site")
        visitor = self._visitor(headers)
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._limit(scope["path"], visitor):
            return answer(scope, 413, "too_large", "that is more than may be sent; the limit is in the settings")
        if visitor is None and scope["path"] not in OPEN:
            return self._please_log_in(scope, headers)
        if CLOSED.match(scope["path"]):
            return answer(scope, 404, "not_found", "there is nothing here")
        scope.setdefault("state", {})["visitor"] = visitor
        return None

    def _knows(self, host: str) -> bool:
        return host in LOOPBACK or host in self.hosts or (self.any_address and _is_address(host))

    def _same_site(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request comes from our own page, from no page at all, or only opens ours."""
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            return False
        site = headers.get("sec-fetch-site", "none")
        opens = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        frames = headers.get("sec-fetch-dest") in ("iframe", "frame", "embed", "object")
        return site in ("none", "same-origin") or (opens and not frames)

    def _visitor(self, headers: Headers) -> Visitor | None:
        if not self.sessions.needed:
            return Visitor(LOCAL, "owner")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            # The token has 256 bits: nobody guesses it, and it needs no throttle.
            return self.sessions.by_token(token.strip())
        return self.sessions.visitor(cookie(headers, SESSION_COOKIE))

    def _please_log_in(self, scope: Scope, headers: Headers) -> Response:
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        response = answer(scope, 401, "invalid_api_key", "log in, or send the token of this studio as a bearer token")
        response.headers["www-authenticate"] = "Bearer"
        return response

    def _limit(self, path: str, visitor: Visitor | None) -> int:
        if path == LORA_PATH and visitor is not None and not visitor.guest:
            return max(LORA_BODY, self.big_body)
        return self.big_body if path.startswith(BIG_BODY_PATHS) else SMALL_BODY


def host_name(header: str) -> str | None:
    """The name in a Host header, in lower case and without port; None where it is none."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?", header)
    return (match[1] or match[2]).lower() if match else None


def cookie(headers: Headers, name: str) -> str:
    """The value of a cookie, "" where there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def answer(scope: Scope, status: int, code: str, message: str, param: str | None = None) -> Response:
    """An error in the shape that clients of the OpenAI API know."""
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(status)
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS:
                headers.setdefault(name, value)
        await send(message)

    return wrapped


class _TooLarge(Exception):
    """The body has more bytes than allowed."""


class _TooSlow(Exception):
    """The body does not come to its end."""


class _Body:
    """Counts and times what comes in; waits without limit once the body is complete (streams wait for the end)."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._left = receive, limit
        self._seconds = max(UPLOAD_SECONDS, limit / SLOWEST)
        self._complete = False
        self._deadline: float | None = None

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._deadline is None:
            self._deadline = loop.time() + self._seconds
        try:
            patience = min(SILENCE_SECONDS, self._deadline - loop.time())
            message = await asyncio.wait_for(self._receive(), max(0.0, patience))
        except TimeoutError:
            raise _TooSlow from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._left < 0:
                raise _TooLarge
        else:
            self._complete = True
        return message


class _Started:
    """Remembers whether an answer has begun; with `hold_defects` a 500 is held back until it is clear what it is.

    Gradio has two kinds: one for an exception that follows, and one that tells the page why an event failed.
    """

    def __init__(self, send: Send, hold_defects: bool) -> None:
        self._send, self._hold = send, hold_defects
        self._held: list[Message] = []
        self.started = False

    async def send(self, message: Message) -> None:
        if self._held or (self._hold and message["type"] == "http.response.start" and message["status"] == 500):
            self._held.append(message)
            return
        self.started = self.started or message["type"] == "http.response.start"
        await self._send(message)

    async def finish(self, scope: Scope) -> None:
        """No exception followed: what was held back is the answer, and the log keeps it."""
        if self._held:
            told = b"".join(message.get("body", b"") for message in self._held)
            log.error("an event of the page failed: %s %s", scope["path"], told[:TOLD].decode("utf-8", "replace"))
        for message in self._held:
            self.started = True
            await self._send(message)

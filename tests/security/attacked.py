"""The studio under attack: shared, its page mounted, with secrets and other people's things planted in it."""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image

from app.core import Core, open_core
from app.drafts import Drafts
from app.guard import Visitor
from app.library import LOCAL
from app.order import Order
from app.publishing import publish
from app.server import make_server
from app.sessions import Sessions, read_token
from app.spec import JobSpec
from app.studio import mount_page
from engine.media import Clip as MediaClip
from tests.app_parts import options, small

SECRET = "canary-7f1d93a2"  # noqa: S105 - planted, to be found in answers
HOST = "192.168.1.5"


@dataclass
class Answer:
    status: int
    body: bytes
    headers: http.client.HTTPMessage | None = None


@dataclass
class Toll:
    """What a campaign came to: requests by kind, statuses, faults."""

    tried: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def __str__(self) -> str:
        tried = ", ".join(f"{count} {kind}" for kind, count in self.tried.items())
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return f"{sum(self.tried.values())} attacks ({tried}): {len(self.faults)} faults; answers: {statuses}"


@dataclass
class Target:
    """A running shared studio and what was planted in it.

    Attributes:
        guests: cookie headers of two guests; what is planted belongs to the first. ids: by kind.
        secrets: bytes that no answer may hold.
    """

    core: Core
    sessions: Sessions
    port: int
    owner: dict[str, str]
    guests: tuple[dict[str, str], dict[str, str]]
    visitors: tuple[Visitor, Visitor]
    ids: dict[str, str]
    secrets: tuple[bytes, ...]
    routes: tuple[tuple[str, str], ...]
    toll: Toll

    def ask(
        self,
        kind: str,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        host: str = HOST,
    ) -> Answer:
        """One request, its path sent as it is; judged for leaks and server errors."""
        answer = raw(self.port, method, path, {"host": host, **(headers or {})}, body)
        self.toll.tried[kind] += 1
        self.toll.statuses[answer.status] += 1
        where = f"{kind}: {method} {path[:120]!r}"
        if answer.status >= 500 or answer.status < 100:
            self.toll.fault(f"{where} -> {answer.status} {answer.body[:120]!r}")
        text = answer.body + str(answer.headers or "").encode()
        places = () if headers is self.owner else (str(self.core.paths.root).encode(), b"mova-tiny")
        for secret in (*self.secrets, *places):
            if secret in text:
                self.toll.fault(f"{where} -> {answer.status}, and holds {secret[:24]!r}")
        return answer


def raw(port: int, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """A request without any tidying of its path; status 0 where the connection was closed without an answer."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if "transfer-encoding" not in headers and "content-length" not in headers:
        lines.append(f"content-length: {len(body)}")
    text = "\r\n".join([*lines, "connection: close", "", ""]).encode("utf-8", "surrogateescape")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(text + body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent; the answer may be there
        response = http.client.HTTPResponse(connection, method=method)
        try:
            response.begin()
            if "event-stream" in response.headers.get("content-type", ""):  # would go on for ever
                connection.settimeout(0.2)
                return Answer(response.status, _begun(response), response.headers)
            return Answer(response.status, response.read(4 << 20), response.headers)
        except (http.client.HTTPException, ConnectionResetError, ValueError):
            return Answer(0 if method != "GET" else 400, b"")  # uvicorn closes on what is no HTTP at all
        finally:
            response.close()


def _begun(response: http.client.HTTPResponse) -> bytes:
    """What a stream says at first."""
    try:
        return response.read1(1 << 16)
    except TimeoutError:
        return b""


@contextmanager
def target(folder: Path) -> Iterator[Target]:
    """A studio shared with the network, with a page, two guests, and things to steal."""
    data = folder / "data"
    (folder / "secret.txt").write_text(SECRET)
    core = open_core(options(data, listen="127.0.0.1"))
    try:
        app = make_server(core)
        _mount_page(app, core)
        sessions: Sessions = app.state.sessions
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            guests = (_log_in(port, sessions.made), _log_in(port, sessions.made))
            found = [sessions.visitor(g["cookie"].partition("=")[2].partition(";")[0]) for g in guests]
            one, two = found
            assert one is not None
            assert two is not None
            assert one.owner != two.owner
            token = read_token(core.paths.token)
            ids = _planted(core, folder, one)
            secrets = (SECRET.encode(), token.encode(), b"SQLite format 3", b"root:x:0:0", sessions.owner_key.encode())
            routes = tuple(sorted(set(_routes(app.routes))))
            owner = {"authorization": f"Bearer {token}"}
            yield Target(core, sessions, port, owner, guests, (one, two), ids, secrets, routes, Toll())
        finally:
            server.should_exit = True
            thread.join(20)
    finally:
        core.close()
        gc.collect()  # what Gradio's threads have left open is told now, not during another test


def _mount_page(app: FastAPI, core: Core) -> None:
    """Inside an event loop: outside of one, Gradio makes several for the thread and closes none of them."""

    async def mount() -> None:
        mount_page(app, core, Drafts(core.settings))

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(mount())


def _log_in(port: int, password: str) -> dict[str, str]:
    body = urlencode({"user": "", "password": password}).encode()
    answer = raw(port, "POST", "/login", {"host": HOST, "content-type": "application/x-www-form-urlencoded"}, body)
    assert answer.status == 303, answer
    assert answer.headers is not None
    cookies = [value.partition(";")[0] for value in answer.headers.get_all("set-cookie")]
    return {"cookie": next(c for c in cookies if c.startswith("mova_session"))}


def _planted(core: Core, folder: Path, guest: Visitor) -> dict[str, str]:
    """Secrets where they must not be fetched, and a clip, a picture and jobs of a guest's and of the owner's."""
    (core.paths.results / ".hidden").write_text(SECRET)
    (core.paths.uploads / ("f" * 32 + ".txt")).write_text(SECRET)
    for place in (core.paths.results, core.paths.uploads):
        if hasattr(os, "symlink"):
            os.symlink(folder / "secret.txt", place / "link-to-secret")
    ids = {}
    for number, (name, owner) in enumerate((("clip", guest.owner), ("own_clip", LOCAL)), 1):
        job = f"{number:08x}" * 4
        spec = JobSpec(SECRET, width=32, height=32, frames=5, fps=24.0, seed=1, steps=1, model="m")
        frames = np.full((5, 32, 32, 3), 90, np.uint8)
        media = MediaClip(frames, np.zeros(10_000, np.float32), 24.0, 48_000, spec.to_dict())
        publish(Order(job, owner, spec, core.paths.root, folder, "cpu", "float32", False), media, None, lambda: None)
        core.library.add_published(job)
        ids[name] = job
    picture = Image.new("RGB", (32, 32), (9, 8, 7))
    ids["upload"] = core.uploads.add(picture, guest.owner, SECRET).id
    ids["own_upload"] = core.uploads.add(picture, LOCAL, SECRET).id
    ids["job"] = core.submit(small(SECRET), guest)[0].id
    ids["own_job"] = core.submit(small(SECRET), Visitor())[0].id
    return ids


def _routes(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every (method, path) of an app, those of mounted apps and included routers too."""
    for route in routes:
        path = prefix + (getattr(route, "path", "") or "")
        for method in getattr(route, "methods", None) or ():
            yield method, path
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if inner:
            yield from _routes(inner, path)


def filled(route: str, ids: Mapping[str, str], owner: str = "") -> str:
    """A route's path with somebody's ids in it."""
    names = {"clip_id": "clip", "upload_id": "upload", "job_id": "job", "video_id": "job"}
    path = route
    for parameter, kind in names.items():
        path = path.replace(f"{{{parameter}}}", ids[owner + kind])
    path = path.replace("{part}", "thumb").replace("{kind}", "wav")
    return re.sub(r"\{[^}]*\}", "x", path)

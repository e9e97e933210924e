"""Attacks a shared studio over real sockets, its page mounted: paths, hosts, origins, others' ids, logins, uploads.

    python tests/security/attack_studio.py --paths 2000

Planted around the studio are files with a secret, and a clip, a job and a picture of another guest's. A fault is an
answer that holds any of them, a status of 500 or more, or a request that did what it must not. Exits with 1 on any.
"""

from __future__ import annotations

import argparse
import base64
import gc
import http.client
import io
import json
import logging
import os
import random
import re
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import uvicorn
from PIL import Image

from app.core import Core, open_core
from app.drafts import Drafts
from app.errors import MovaError
from app.guard import Visitor
from app.library import LOCAL
from app.order import Order
from app.publishing import publish
from app.server import make_server
from app.sessions import Sessions, read_token
from app.spec import JobSpec
from app.studio import mount_page
from app.tabs.channel import perform
from engine.media import Clip as MediaClip
from tests.app_parts import options, small
from tests.security.page_events import page_works

log = logging.getLogger(__name__)

SECRET = "canary-7f1d93a2"  # noqa: S105 - planted, to be found in answers
HOST = "192.168.1.5"
TARGETS = (
    "secret.txt", "studio.sqlite3", "api-token", "settings.json", "studio.log", "results/.hidden", "etc/passwd",
    "proc/self/environ", "link-to-secret", ".git/config", "windows/win.ini", "uploads/", "..",
)  # fmt: skip
UPS = (
    "../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%252f", "....//", "..\\", "..%5c", "%2e%2e%5c", "..;/", ".%2e/",
    "%c0%ae%c0%ae/", "..%c0%af", "%u002e%u002e/", "..%00/", "//", "/./", "..%ef%bc%8f", "\u2025/", "%0a../",
)  # fmt: skip
FRONTS = (
    "/", "/media/", "/media/clips/", "/media/uploads/", "/media/jobs/", "/v1/", "/v1/videos/", "/studio/",
    "/studio/examples/", "/static/", "/assets/", "/svelte/", "/pwa_icon/", "/monitoring/", "/gradio_api/file=",
    "/gradio_api/file/", "/gradio_api/proxy=", "/gradio_api/custom_component/x/client/component/", "/mcp/", "/login/",
    "/gradio_api/stream/", "/gradio_api/run-history/records/x/y/assets/", "/gradio_api/heartbeat/", "/config/",
    "/gradio_api/upload_progress?upload_id=", "/gradio_api/deep_link?session_hash=", "/theme.css/", "/favicon.ico/",
)  # fmt: skip
WHOLE = ("file:///etc/passwd", "http://169.254.169.254/latest", "C:\\Windows\\win.ini", "~root/.ssh/id_rsa", "\\\\x\\y")
METHODS = ("GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


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
        mount_page(app, core, Drafts(core.settings))
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


# ---- the attacks


def traversal(at: Target, count: int, dice: random.Random) -> None:
    """Paths that try to leave: through every route's parameters and behind every prefix, as anyone and as a guest."""
    fronts = [*FRONTS, *(re.sub(r"\{[^}]*\}", "{}", path) for _, path in at.routes if "{" in path)]
    for number in range(count):
        up, depth = dice.choice(UPS), dice.randint(1, 12)
        goal = dice.choice(TARGETS)
        if dice.random() < 0.3:
            goal = goal.replace("/", dice.choice(("%2f", "\\", "//", "%252f")))
        attempt = dice.choice((up * depth + goal, up * depth + goal, f"/{goal}", quote(f"/{goal}", safe=""), goal))
        if dice.random() < 0.1:
            attempt = dice.choice(WHOLE)
        if dice.random() < 0.15:
            attempt += dice.choice(("%00", "%00.png", "?x=1", "#x", "%20", ".", "/", "a" * 5000, "\x7f", "%ff"))
        front = fronts[number % len(fronts)]
        path = front.replace("{}", attempt) if "{}" in front else front + attempt
        who = dice.choice(({}, at.guests[1], at.guests[1], at.owner))
        path = path.replace(" ", "%20").replace("\n", "%0a")
        answer = at.ask("paths", dice.choice(METHODS), path, who)
        if answer.status == 200 and not _harmless(path, answer):
            at.toll.fault(f"paths: {path[:120]!r} -> 200 {answer.body[:80]!r}")


def _harmless(path: str, answer: Answer) -> bool:
    """Whether a 200 to a twisted path is one that anyone may have."""
    body = answer.body
    page = b"<!doctype html" in body[:200].lower()
    empty = not body
    plain = path.split("?")[0].split("#")[0].rstrip("/")
    known = {"/v1/videos", "/v1/models", "/v1/openapi.json", "/config", "/gradio_api/heartbeat", "/healthz", "/login"}
    return page or empty or plain in known or b"ALIVE" in body or body == b"ok"


def hosts_and_origins(at: Target) -> None:
    """Other names for this machine, and requests that come from other sites."""
    hosts = ("evil.example", "localhost.evil.example", "", "a b", "[::1", "127.0.0.1:80@evil", "\u0131.example", "*")
    for path in ("/", "/v1/videos", "/login", "/healthz", "/config", "/gradio_api/info"):
        for host in hosts:
            answer = at.ask("hosts", "GET", path, at.owner, host=host)
            if answer.status not in (400, 421):
                at.toll.fault(f"hosts: {path} as {host!r} -> {answer.status}")
    origins = ("http://evil.example", "null", "file://", f"http://{HOST}:1", f"https://x.{HOST}", "http://127.0.0.1")
    for method, route in at.routes:
        if method in ("GET", "HEAD", "OPTIONS"):
            continue
        path = _filled(route, at.ids)
        for origin in origins:
            answer = at.ask("origins", method, path, at.guests[0] | {"origin": origin}, b"{}")
            if answer.status != 403:
                at.toll.fault(f"origins: {method} {path} from {origin} -> {answer.status}")
        answer = at.ask("origins", method, path, at.guests[0] | {"sec-fetch-site": "cross-site"}, b"{}")
        if answer.status != 403:
            at.toll.fault(f"origins: {method} {path} cross-site -> {answer.status}")


def _filled(route: str, ids: Mapping[str, str], owner: str = "") -> str:
    """A route's path with somebody's ids in it."""
    names = {"clip_id": "clip", "upload_id": "upload", "job_id": "job", "video_id": "job"}
    path = route
    for parameter, kind in names.items():
        path = path.replace(f"{{{parameter}}}", ids[owner + kind])
    path = path.replace("{part}", "thumb").replace("{kind}", "wav")
    return re.sub(r"\{[^}]*\}", "x", path)


def others_ids(at: Target) -> None:
    """The second guest, and nobody at all, with ids of the first guest's and of the owner's, on every route."""
    before = _state(at.core)
    for method, route in at.routes:
        if route == "/logout":  # would end the guest's own session, as it should
            continue
        for owner in ("", "own_"):
            path = _filled(route, at.ids, owner)
            named = any(at.ids[owner + kind] in path for kind in ("clip", "upload", "job"))
            answer = at.ask("ids", method, path, at.guests[1])
            if named and answer.status not in (404, 405):
                at.toll.fault(f"ids: {method} {path} as another guest -> {answer.status}")
            answer = at.ask("ids", method, path)
            open_to_all = path in ("/login", "/healthz")
            if not open_to_all and answer.status not in (303, 401):
                at.toll.fault(f"ids: {method} {path} without login -> {answer.status}")
        if route == "/v1/videos/{video_id}":
            job_as_clip = route.replace("{video_id}", at.ids["clip"])
            at.ask("ids", method, job_as_clip, at.guests[1])
    for kind in ("image", "last_image", "extend_of", "given"):
        for owner in ("", "own_"):
            stolen = at.ids[owner + ("upload" if "image" in kind else "clip")]
            value: Any = {"kind": "sound", "clip": stolen} if kind == "given" else stolen
            try:
                at.core.submit(JobSpec.from_dict({**small().to_dict(), kind: value}), at.visitors[1])
                at.toll.fault(f"ids: a guest could use another's {kind}")
            except MovaError:
                at.toll.tried["ids"] += 1
    deeds = ("cancel", "pause", "go_on", "forget", "duplicate", "retry", "move", "hold", "again", "extend",
             "favourite", "delete", "undo_delete", "open_folder", "nonsense")  # fmt: skip
    for deed in deeds:
        for owner in ("", "own_"):
            asked = {"do": deed, "job": at.ids[owner + "job"], "clip": at.ids[owner + "clip"], "on": True}
            try:
                perform(at.core, at.visitors[1], "en", asked)
                at.toll.fault(f"ids: a guest could {deed} what is another's")
            except MovaError:
                at.toll.tried["ids"] += 1
    if _state(at.core) != before:
        at.toll.fault("ids: another's jobs, clips or pictures were changed")


def _state(core: Core) -> str:
    """All jobs, clips and uploads, for comparison."""
    tables = {name: core.store.rows(f"SELECT * FROM {name} ORDER BY id") for name in ("jobs", "clips", "uploads")}  # noqa: S608
    files = sorted(str(p) for p in core.paths.root.rglob("*") if p.suffix in (".mp4", ".json", ".png"))
    return repr([[tuple(row) for row in rows] for rows in tables.values()]) + repr(files)


def logging_out(at: Target) -> None:
    """Ends one's own session and no other."""
    at.ask("logins", "POST", "/logout", at.guests[1])
    if at.ask("logins", "GET", "/v1/videos", at.guests[1]).status != 401:
        at.toll.fault("logins: a session goes on after its end")
    if at.ask("logins", "GET", "/healthz", at.guests[0]).status != 200:
        at.toll.fault("logins: another's session ended")


def page_functions(at: Target) -> None:
    """The page's own channel over HTTP: functions that are the owner's, components and functions that are not there."""
    config = json.loads(at.ask("channel", "GET", "/config", at.guests[1]).body)
    channel = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "channel")
    headers = at.guests[1] | {"content-type": "application/json"}
    for component in (channel, channel + 100_000, -1, "x", None, 0):
        for name in ("log", "doctor", "look", "act", "__class__", "launch", "", "build", None):
            if component == channel and name == "doctor":
                continue  # tried below, where its answer is read
            for data in ({}, None, "x", [1], {"do": "hold", "on": True}, {"do": "open_folder"}):
                body = {"session_hash": "s", "component_id": component, "fn_name": name, "data": data}
                at.ask("channel", "POST", "/gradio_api/component_server", headers, json.dumps(body).encode())
    for name in ("log", "doctor"):
        body = {"session_hash": "s", "component_id": channel, "fn_name": name, "data": {}}
        answer = at.ask("channel", "POST", "/gradio_api/component_server", headers, json.dumps(body).encode())
        if b'"text"' in answer.body:
            at.toll.fault(f"channel: a guest could read the {name}")
    for junk in (b"", b"{", b"[]", b'"x"', b"null", b"\xff", b"[" * 50_000, b'{"data": ' + b"1" * 5000 + b"}"):
        for path in ("component_server", "queue/join", "cancel", "reset"):
            at.ask("channel", "POST", f"/gradio_api/{path}", headers, junk)
    for number in range(-1, len(config["dependencies"]) + 2):
        body = {"data": [None], "fn_index": number, "session_hash": "s", "event_data": None, "trigger_id": None}
        at.ask("channel", "POST", "/gradio_api/queue/join", headers, json.dumps(body).encode())
    if at.core.queue.held:
        at.toll.fault("channel: a guest could hold the queue")


def logins(at: Target, count: int, dice: random.Random) -> None:
    """Guesses, with names and without; the right password among them once waiting is due."""
    right = at.sessions.made
    for number in range(count):
        guess = dice.choice((right[:-1], right.upper(), right + " ", "", "' OR 1=1", "a" * 3000, "\x00", str(number)))
        body = urlencode({"user": dice.choice(("", "admin", "root")), "password": guess}).encode()
        kind = {"content-type": "application/x-www-form-urlencoded"}
        answer = at.ask("logins", "POST", "/login", kind, body)
        if answer.status not in (401, 429):
            at.toll.fault(f"logins: {guess[:20]!r} -> {answer.status}")
    answer = at.ask("logins", "POST", "/login", kind, urlencode({"user": "", "password": right}).encode())
    if answer.status != 429:
        at.toll.fault(f"logins: no wait after {count} wrong passwords ({answer.status})")
    for cookie in ("mova_session=", "mova_session=x", "mova_session=" + "a" * 3000, 'mova_session="; x', "\x01=\x02"):
        if at.ask("logins", "GET", "/v1/videos", {"cookie": cookie}).status not in (400, 401):
            at.toll.fault(f"logins: cookie {cookie[:20]!r} was let in")
    for token in ("", "x", "a" * 5000, "null"):
        if at.ask("logins", "GET", "/v1/videos", {"authorization": f"Bearer {token}"}).status != 401:
            at.toll.fault(f"logins: token {token[:20]!r} was let in")


def posing_pictures() -> dict[str, bytes]:
    """Files that claim to be pictures, by name; none may be taken, but for those whose name begins with "good"."""
    html = b"<html><script>alert('%s')</script></html>" % SECRET.encode()
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script/></svg>'
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 10, 10)).save(out, "PNG")
    png = out.getvalue()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = b"\x89PNG\r\n\x1a\n"
    bomb = head + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    gif = io.BytesIO()
    Image.new("P", (8, 8)).save(gif, "GIF")
    return {
        "page.png": html,
        "page.html": html,
        "drawing.svg": svg,
        "drawing.png": svg,
        "half.png": png[: len(png) // 2],
        "header.png": head + html,
        "bomb.png": bomb,
        "animated.png": gif.getvalue(),
        "empty.png": b"",
        "zip.jpg": b"PK\x03\x04" + bytes(200),
        "code.webp": b"RIFF\x10\x00\x00\x00WEBP" + html,
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(50),
        "good.png": png,
        "good, with html behind.png": png + html,
        'good "><script>.png': png,
        "good ../../etc/passwd": png,
    }


def uploads(at: Target) -> None:
    """Files that are no pictures, pictures that hide something, and bodies past the limit with and without a length."""
    guest = at.guests[1]
    for name, data in posing_pictures().items():
        taken = []
        for path, part in (("/studio/upload", "file"), ("/v1/videos", "input_reference"), ("/studio/settings", "file")):
            body, kind = _multipart(part, name, data)
            answer = at.ask("uploads", "POST", path, guest | {"content-type": kind}, body)
            taken.append(answer.status == 200)
            if answer.status == 200 and path == "/studio/upload":
                _served_again(at, json.loads(answer.body)["url"], guest)
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        body = json.dumps({"prompt": "x", "input_reference": url}).encode()
        taken.append(at.ask("uploads", "POST", "/v1/videos", guest, body).status in (200, 429))
        good = name.startswith("good")
        if any(taken) and not good:
            at.toll.fault(f"uploads: {name} was taken")
        if good and not taken[0]:
            at.toll.fault(f"uploads: {name} was not taken")
        body, kind = _multipart("files", name, data)
        answer = at.ask("uploads", "POST", "/gradio_api/upload", guest | {"content-type": kind}, body)
        if answer.status == 200:
            at.toll.fault(f"uploads: {name} went past our own upload")
        for job in at.core.queue.find(at.visitors[1].owner):
            at.core.queue.cancel(job.id, None)
    limit = (at.core.settings.current.upload_megabytes << 20) + (2 << 20)
    for path in ("/studio/upload", "/studio/settings", "/v1/videos", "/login", "/gradio_api/queue/join", "/mcp/"):
        for headers in ({"content-length": str(limit)}, {"content-length": "9" * 30}, {"content-length": "-1"}):
            answer = at.ask("uploads", "POST", path, guest | headers)
            if answer.status not in (400, 413):
                at.toll.fault(f"uploads: {path} with {headers} -> {answer.status}")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        body = piece * (limit // 65536 + 1) + b"0\r\n\r\n"
        answer = at.ask("uploads", "POST", path, guest | {"transfer-encoding": "chunked"}, body)
        if answer.status not in (0, 400, 404, 413):
            at.toll.fault(f"uploads: {path} in pieces -> {answer.status}")


def _multipart(part: str, name: str, data: bytes) -> tuple[bytes, str]:
    line = "edge-of-a-part"
    shown = name.replace('"', "%22")
    head = f'--{line}\r\ncontent-disposition: form-data; name="{part}"; filename="{shown}"\r\n'
    prompt = f'--{line}\r\ncontent-disposition: form-data; name="prompt"\r\n\r\nx\r\n'
    head += "content-type: image/png\r\n\r\n"
    return (prompt + head).encode() + data + f"\r\n--{line}--\r\n".encode(), f"multipart/form-data; boundary={line}"


def _served_again(at: Target, url: str, guest: Mapping[str, str]) -> None:
    """What comes back must be a PNG of ours, without anything that was hidden in the one that came."""
    answer = at.ask("uploads", "GET", url, guest)
    assert answer.headers is not None
    with Image.open(io.BytesIO(answer.body)) as picture:
        if picture.format != "PNG" or answer.headers["content-type"] != "image/png":
            at.toll.fault(f"uploads: {url} comes back as {answer.headers['content-type']}")
    if b"<script>" in answer.body or answer.headers["x-content-type-options"] != "nosniff":
        at.toll.fault(f"uploads: {url} still carries what was hidden in it")


def campaign(folder: Path, paths: int, guesses: int, seed: int) -> Toll:
    """All attacks on one studio."""
    dice = random.Random(seed)
    with target(folder) as at:
        for attack in (
            lambda: traversal(at, paths, dice),
            lambda: hosts_and_origins(at),
            lambda: page_works(at),
            lambda: page_functions(at),
            lambda: others_ids(at),
            lambda: uploads(at),
            lambda: logging_out(at),
            lambda: logins(at, guesses, dice),
        ):
            attack()
            log.info("%s", at.toll)
        alive = raw(at.port, "GET", "/v1/videos", {"host": HOST, **at.owner}, b"")
        if alive.status != 200 or SECRET.encode() not in alive.body:
            at.toll.fault(f"after all this the owner gets {alive.status}")
    return at.toll


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--paths", type=int, default=2000)
    p.add_argument("--guesses", type=int, default=300)
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="mova-attacks-") as folder:
        toll = campaign(Path(folder), args.paths, args.guesses, args.seed)
    print(toll)
    for fault, times in Counter(toll.faults).most_common(60):
        print("FAULT", fault, f"({times} times)" if times > 1 else "")
    return 1 if toll.faults else 0


if __name__ == "__main__":
    sys.exit(main())

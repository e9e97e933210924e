"""Ids of others, functions that are the owner's, and logins."""

from __future__ import annotations

import json
import random
from typing import Any
from urllib.parse import urlencode

from app.core import Core
from app.errors import MovaError
from app.spec import JobSpec
from app.tabs.channel import perform
from tests.app_parts import small
from tests.security.attacked import Target, filled


def others_ids(at: Target) -> None:
    """The second guest, and nobody at all, with ids of the first guest's and of the owner's, on every route."""
    before = _state(at.core)
    for method, route in at.routes:
        if route == "/logout":  # would end the guest's own session, as it should
            continue
        for owner in ("", "own_"):
            path = filled(route, at.ids, owner)
            named = any(at.ids[owner + kind] in path for kind in ("clip", "upload", "job"))
            answer = at.ask("ids", method, path, at.guests[1])
            if named and answer.status not in (404, 405) and not _closed(at, method, route, answer.status):
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


def _closed(at: Target, method: str, route: str, status: int) -> bool:
    """Whether guests are refused whatever they name: an id that nobody has is answered in the same way."""
    nobodys = filled(route, dict.fromkeys(at.ids, "0" * 32))
    return status == 403 and at.ask("ids", method, nobodys, at.guests[1]).status == 403


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

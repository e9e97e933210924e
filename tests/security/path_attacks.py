"""Paths that try to leave the studio, names for it that are not its own, and requests from other sites."""

from __future__ import annotations

import random
import re
from urllib.parse import quote

from tests.security.attacked import HOST, Answer, Target, filled

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
        path = filled(route, at.ids)
        for origin in origins:
            answer = at.ask("origins", method, path, at.guests[0] | {"origin": origin}, b"{}")
            if answer.status != 403:
                at.toll.fault(f"origins: {method} {path} from {origin} -> {answer.status}")
        answer = at.ask("origins", method, path, at.guests[0] | {"sec-fetch-site": "cross-site"}, b"{}")
        if answer.status != 403:
            at.toll.fault(f"origins: {method} {path} cross-site -> {answer.status}")

"""A hub on this machine for tests: listings in pages, redirects to another host, ranges, and faults on demand.

It speaks what engine/downloads/hub.py documents. Large files are listed with their sha256 and served, after a
redirect, under another host name ("localhost" instead of "127.0.0.1"); small ones are listed with git's blob hash and
served directly, as the hub does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REPOSITORY = "someone/model"
COMMIT = "c0ffee00" * 5
LARGE = 2**16  # from here on a file is listed with its sha256
PIECE = 2**16
PAGE = 3  # files in one page of a listing


@dataclass(frozen=True)
class Fault:
    """What happens to one request for bytes.

    Attributes:
        kind: "cut" after `at` bytes; "silent" after `at` bytes; "slow", with `wait` s before each piece;
            "wrong" byte at `at`;
            "status" `status`;
            "etag" another version tag; "circle" of redirects; "whole" file although a part was asked for; "other"
            part than the one asked for.
    """

    kind: str
    at: int = 0
    status: int = 0
    retry_after: str = ""
    wait: float = 0.02


@dataclass
class Content:
    """A file of the repository: bytes, or a file on disk (which may be sparse)."""

    source: bytes | Path
    size: int
    sha256: str
    blob: str

    @classmethod
    def of(cls, source: bytes | Path, sha256: str = "") -> Content:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        sha = hashlib.sha256()
        if isinstance(source, bytes):
            git.update(source)
            sha.update(source)
        elif not sha256:
            with source.open("rb") as file:
                while block := file.read(2**22):
                    sha.update(block)
        return cls(source, size, sha256 or sha.hexdigest(), git.hexdigest())

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        if isinstance(self.source, bytes):
            for at in range(start, end, PIECE):
                yield self.source[at : min(at + PIECE, end)]
            return
        with self.source.open("rb", buffering=0) as file:
            file.seek(start)
            while start < end:
                piece = file.read(min(2**20, end - start))
                start += len(piece)
                yield piece


@dataclass
class LocalHub:
    """What the server serves, what it should do wrong, and what it saw.

    Attributes:
        files: path -> content.
        fault: asked for every request for bytes, with (path, from, to, number of the request for this path).
        seen: (path of the URL, host name asked for, Authorization) of every request.
        sent: bytes of files that left.
    """

    files: dict[str, Content]
    fault: Callable[[str, int, int, int], Fault | None] = lambda path, start, end, number: None
    api_fault: Callable[[int], Fault | None] = lambda number: None
    token: str = ""
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    sent: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    api_asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def size(self) -> int:
        return sum(content.size for content in self.files.values())

    def set(self, path: str, source: bytes | Path) -> None:
        self.files[path] = Content.of(source)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def log_message(self, *_: Any) -> None: ...

    def setup(self) -> None:
        # Little waits in the system's buffers, so that what the server counts is what the client can have got.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        super().setup()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        hub, url = self.hub, urlsplit(self.path)
        authorization = self.headers.get("Authorization", "")
        host = self.headers.get("Host", "").split(":")[0]
        with hub.lock:
            hub.seen.append((self.path, host, authorization))
        path = unquote(url.path)
        if path.startswith("/cdn/"):
            self._bytes(path.removeprefix("/cdn/"))
        elif hub.token and authorization != f"Bearer {hub.token}":
            self._status(401)
        elif path == f"/api/models/{REPOSITORY}/revision/main":
            if not self._api_fault():
                self._send_json({"sha": COMMIT})
        elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            if not self._api_fault():
                self._tree(int(parse_qs(url.query).get("cursor", ["0"])[0]))
        elif match := re.fullmatch(rf"/{REPOSITORY}/resolve/{COMMIT}/(.+)", path):
            self._resolve(match[1])
        else:
            self._status(404)

    def _api_fault(self) -> bool:
        with self.hub.lock:
            number = self.hub.api_asked
            self.hub.api_asked += 1
        fault = self.hub.api_fault(number)
        if fault and fault.kind == "status":
            self._status(fault.status, fault.retry_after)
        elif fault:
            self._hang_up()
        return fault is not None

    def _tree(self, cursor: int) -> None:
        items: list[dict[str, Any]] = [{"type": "directory", "path": "folder", "oid": "0" * 40, "size": 0}]
        names = sorted(self.hub.files)
        for path in names[cursor : cursor + PAGE]:
            content = self.hub.files[path]
            item: dict[str, Any] = {"type": "file", "path": path, "size": content.size, "oid": content.blob}
            if content.size >= LARGE:
                item["lfs"] = {"oid": content.sha256, "size": content.size, "pointerSize": 135}
            items.append(item)
        link = ""
        if cursor + PAGE < len(names):
            here = f"{self.hub.url}/api/models/{REPOSITORY}/tree/{COMMIT}"
            link = f'<{here}?recursive=true&cursor={cursor + PAGE}>; rel="next"'
        self._send_json(items, link)

    def _resolve(self, path: str) -> None:
        content = self.hub.files.get(path)
        if content is None:
            self._status(404)
        elif content.size >= LARGE:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.hub.port}/cdn/{path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._bytes(path)

    def _bytes(self, path: str) -> None:
        content = self.hub.files[path]
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(match[1]), int(match[2]) + 1) if match else (0, content.size)
        with self.hub.lock:
            number = self.hub.asked.get(path, 0)
            self.hub.asked[path] = number + 1
        fault = self.hub.fault(path, start, end, number)
        kind = fault.kind if fault else ""
        if fault and kind == "status":
            return self._status(fault.status, fault.retry_after)
        if kind == "circle":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.hub.port}/cdn/{path}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if start >= content.size and content.size:
            return self._status(416)
        end = min(end, content.size)
        if kind == "whole":
            start, end = 0, content.size
        self.send_response(200 if kind == "whole" or not content.size else 206)
        if kind != "whole" and content.size:
            first = start + 1 if kind == "other" else start
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{content.size}")
        self.send_header("ETag", f'"{random.random()}"' if kind == "etag" else f'"{content.sha256[:16]}"')
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self._body(content, start, end, fault)

    def _body(self, content: Content, start: int, end: int, fault: Fault | None) -> None:
        kind, at = (fault.kind, fault.at) if fault else ("", 0)
        position = start
        for piece in content.pieces(start, end):
            if kind in ("cut", "silent") and position - start + len(piece) > at:
                self._write(piece[: at - (position - start)])
                if kind == "silent":
                    time.sleep(1.0)
                return self._hang_up()
            if kind == "wrong" and position <= start + at < position + len(piece):
                spot = start + at - position
                piece = piece[:spot] + bytes([piece[spot] ^ 1]) + piece[spot + 1 :]
            if fault and kind == "slow":
                time.sleep(fault.wait)
            self._write(piece)
            position += len(piece)
        if kind in ("cut", "silent"):
            self._hang_up()

    def _write(self, data: bytes) -> None:
        with self.hub.lock:  # before they leave: who reads the last of them may look at the count at once
            self.hub.sent += len(data)
        self.wfile.write(data)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _status(self, status: int, retry_after: str = "") -> None:
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, value: Any, link: str = "") -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if link:
            self.send_header("Link", link)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


@contextlib.contextmanager
def serving(files: dict[str, bytes | Path] | None = None) -> Iterator[LocalHub]:
    """A hub that runs until the end of the block."""
    hub = LocalHub({path: Content.of(source) for path, source in (files or model_files()).items()})
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def model_files(seed: int = 1, size: int = 3 * 2**19) -> dict[str, bytes | Path]:
    """A small model of the released layout: two large files, some small ones, an empty one."""
    dice = random.Random(seed)
    index = {"_class_name": "MOVA", "video_dit": ["engine", "Towers"], "tokenizer": ["transformers", "T5Tokenizer"]}
    return {
        "model_index.json": json.dumps(index).encode(),
        "video_dit/config.json": b'{"dim": 8}',
        "video_dit/diffusion_pytorch_model-00001-of-00002.safetensors": safetensors(dice.randbytes(size)),
        "video_dit/diffusion_pytorch_model-00002-of-00002.safetensors": safetensors(dice.randbytes(size // 2 + 17)),
        "video_dit/diffusion_pytorch_model.safetensors.index.json": json.dumps(
            {"weight_map": {f"w{i}": f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)}}
        ).encode(),
        "tokenizer/größe 語.json": b"{}",
        "tokenizer/empty.json": b"",
        "README.md": b"# not wanted",
    }


def safetensors(data: bytes) -> bytes:
    """A file of that format with one tensor of bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


def stray(folder: Path) -> list[str]:
    """What lies below a models folder and belongs to no whole model: parts, logs, half-taken files, begun downloads."""
    half = re.compile(r"\.(part|log|log~|taken|new)$")
    places = [path for path in folder.rglob("*") if path.name != "lock"]
    found = [path for path in places if path.parent.name == ".incoming" or half.search(path.name)]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def wrong_files(folder: Path, hub: LocalHub) -> list[str]:
    """Files under their final names whose content is not the hub's."""
    there = [(path, content) for path, content in hub.files.items() if (folder / path).is_file()]
    return [path for path, content in there if (folder / path).read_bytes() != content.source]

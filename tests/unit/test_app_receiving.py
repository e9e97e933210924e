"""What comes in over HTTP: limits of bodies, LoRAs of the owner's and of guests, uploads that fall silent."""

from __future__ import annotations

import asyncio
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.numpy import save_file
from starlette.requests import Request

from app.core import Core
from app.page import add_routes
from app.receiving import received
from app.server import make_server
from app.sessions import Sessions, read_token
from engine.lora.fit import folder_shapes
from tests import lora_files as makers
from tests.app_parts import MODEL, png, shared, studio


def page_of(core: Core) -> FastAPI:
    """The server with the routes that only the page uses."""
    app = make_server(core)
    add_routes(app, core)
    return app


def form_with(name: str, data: bytes, pieces: int) -> tuple[Iterator[bytes], dict[str, str]]:
    """A form with a field and a file of `pieces` times `data`, sent without a length."""
    edge = "edge-of-a-part"
    head = f'--{edge}\r\ncontent-disposition: form-data; name="note"\r\n\r\nx\r\n--{edge}\r\n'
    head += f'content-disposition: form-data; name="file"; filename="{name}"\r\n'
    head += "content-type: application/octet-stream\r\n\r\n"

    def body() -> Iterator[bytes]:
        yield head.encode()
        for _ in range(pieces):
            yield data
        yield f"\r\n--{edge}--\r\n".encode()

    return body(), {"content-type": f"multipart/form-data; boundary={edge}"}


def test_bodies_past_the_limit_are_refused(core: Core) -> None:
    core.settings.change(upload_megabytes=1)
    with TestClient(make_server(core), base_url="http://127.0.0.1") as client:
        assert client.post("/v1/videos", content=b"x" * (3 << 20)).status_code == 413

        def pieces() -> Iterator[bytes]:  # without a Content-Length
            for _ in range(40):
                yield b"x" * (1 << 16)

        assert client.post("/v1/videos", content=pieces()).status_code == 413
        assert client.post("/login", content=b"x" * (9 << 20)).status_code == 413


def test_the_owner_may_bring_loras_past_the_limit(tmp_path: Path) -> None:
    with studio(tmp_path / "data") as core:
        core.settings.change(upload_megabytes=1, lora_folder=str(tmp_path / "loras"))
        good, bad = tmp_path / "noir.safetensors", tmp_path / "Größe {x}.safetensors"
        makers.mova(makers.draw(folder_shapes(MODEL), 1, "high"), good)
        save_file({"a.lora_A.weight": np.ones((16, 40_000), np.float32)}, bad)
        assert bad.stat().st_size > 2 << 20
        with TestClient(page_of(core), base_url="http://127.0.0.1") as client:

            def bring(path: Path) -> Any:
                with path.open("rb") as sent:
                    return client.post("/studio/upload/lora", files={"file": (path.name, sent)})

            answer = bring(bad)  # read to its end, and judged for what it is
            assert (answer.status_code, bad.name in answer.text) == (400, True), answer.text
            answer = bring(good)
            assert answer.json()["name"] == "noir"
            assert core.loras().find(answer.json()["sha256"]).path.read_bytes() == good.read_bytes()
            body, kind = form_with("noir.safetensors", good.read_bytes(), 1)
            assert client.post("/studio/upload/lora", content=body, headers=kind).json()["name"] == "noir"
            picture = {"file": ("big.png", png((1200, 900)) * 2)}
            assert client.post("/studio/upload", files=picture).status_code == 413  # pictures keep the limit
            for wrong in (b"", b"x", b"--edge-of-a-part\r\n", b"--edge-of-a-part--\r\n", b"\xff" * 9000):
                assert client.post("/studio/upload/lora", content=wrong, headers=kind).status_code == 400, wrong[:20]
            long = b'--edge-of-a-part\r\ncontent-disposition: form-data; name="' + b"x" * (1 << 20)
            assert client.post("/studio/upload/lora", content=long, headers=kind).status_code == 400
            assert client.post("/studio/upload/lora", json={"file": "x"}).status_code == 400
            assert client.post("/studio/upload/lora", headers={"content-length": str(5 << 30)}).status_code == 413
            assert list(core.paths.work.iterdir()) == []
    (core.paths.work / "brought-in-x").mkdir()  # of a studio that was killed meanwhile
    (core.paths.work / "brought-in-x" / "a.safetensors").write_bytes(b"x")
    with studio(tmp_path / "data"):
        assert list(core.paths.work.iterdir()) == []


def test_a_large_file_goes_to_the_disk_and_never_into_memory(tmp_path: Path) -> None:
    body, kind = form_with("a.bin", bytes(1 << 16), 1 << 10)  # 64 MB, as they come over a socket

    async def receive() -> dict:
        piece = next(body, b"")
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    async def bring() -> tuple[str, int, int]:
        scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in kind.items()]}
        async with received(Request(scope, receive), tmp_path) as (path, name):
            return name, path.stat().st_size, tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        name, size, peak = asyncio.run(bring())
    finally:
        tracemalloc.stop()
    assert (name, size) == ("a.bin", 64 << 20)
    assert peak < 16 << 20
    assert list(tmp_path.iterdir()) == []


def test_a_lora_that_the_disk_cannot_hold_is_refused_at_once(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(core.paths.work)
    monkeypatch.setattr("app.receiving.shutil.disk_usage", lambda _: usage._replace(free=1000))
    with TestClient(page_of(core), base_url="http://127.0.0.1") as client:
        answer = client.post("/studio/upload/lora", files={"file": ("a.safetensors", bytes(5000))})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "cannot_write")
        assert "make room" in answer.json()["error"]["message"]


def test_guests_bring_no_loras(tmp_path: Path) -> None:
    with shared(tmp_path) as core:
        core.settings.change(upload_megabytes=1)
        app = page_of(core)
        sessions: Sessions = app.state.sessions
        with TestClient(app, base_url="http://192.168.1.5", follow_redirects=False) as guest:
            big = {"content-length": str(100 << 20)}
            assert guest.post("/studio/upload/lora", headers=big).status_code == 413  # before logging in, too
            guest.post("/login", data={"user": "", "password": sessions.made})
            assert guest.post("/studio/upload/lora", headers=big).status_code == 413
            assert guest.post("/studio/upload/lora", files={"file": ("a.safetensors", b"x")}).status_code == 403
            body, kind = form_with("a.safetensors", bytes(1 << 18), 16)
            assert guest.post("/studio/upload/lora", content=body, headers=kind).status_code in (403, 413)
            token = {"authorization": f"Bearer {read_token(core.paths.token)}"}
            body, kind = form_with("a.safetensors", bytes(1 << 18), 16)
            answer = guest.post("/studio/upload/lora", content=body, headers=kind | token)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "error")  # read to its end
        assert list(core.paths.work.iterdir()) == []


def test_an_upload_that_falls_silent_is_ended(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.door.SILENCE_SECONDS", 0.1)
    app, sent = make_server(core), []

    async def silent() -> dict:
        await asyncio.sleep(30)
        return {"type": "http.request", "body": b"", "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/videos", "raw_path": b"/v1/videos"}
    scope |= {"query_string": b"", "root_path": "", "scheme": "http", "headers": headers, "client": ("127.0.0.1", 1)}
    scope["server"] = ("127.0.0.1", 80)
    asyncio.run(asyncio.wait_for(app(scope, silent, send), 10))
    assert sent[0]["status"] == 408

"""The HTTP side, without a worker: door, login, /v1, media, MCP, as real requests to the real app."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.numpy import save_file
from starlette.requests import Request

from app.core import Core
from app.door import SESSION_COOKIE, host_name
from app.errors import NotAllowed, NotFound, StudioError
from app.guard import Visitor, shown
from app.page import add_routes
from app.receiving import received
from app.server import listening, make_server, open_tunnel
from app.sessions import Sessions, Throttle, new_password, read_token
from app.tabs.parts import answered
from engine.errors import RequestError
from engine.lora.fit import folder_shapes
from tests import lora_files as makers
from tests.app_parts import GUEST, MODEL, OWNER, environment, options, small, studio


def png(size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with studio(tmp_path / "data") as core:
        yield core


@pytest.fixture
def client(core: Core) -> Iterator[TestClient]:
    with TestClient(make_server(core), base_url="http://127.0.0.1:7860") as client:
        yield client


def test_hosts_and_origins(client: TestClient) -> None:
    assert client.get("/healthz").text == "ok"
    for host in ("localhost:7860", "LOCALHOST", "[::1]:7860", "127.0.0.1"):
        assert client.get("/healthz", headers={"host": host}).status_code == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "a b", "localhost:7860@evil", "[::1"):
        assert client.get("/healthz", headers={"host": host}).status_code == 400, host
    good = {"origin": "http://127.0.0.1:7860"}
    assert client.post("/v1/videos", json={}, headers=good).json()["error"]["param"] == "prompt"
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:7860", "file://"):
        assert client.post("/v1/videos", json={}, headers={"origin": origin}).status_code == 403, origin
    for site in ("cross-site", "same-site"):
        assert client.get("/v1/videos", headers={"sec-fetch-site": site}).status_code == 403
        opened = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert client.get("/healthz", headers=opened).status_code == 200
        assert client.get("/healthz", headers=opened | {"sec-fetch-dest": "iframe"}).status_code == 403
        assert client.post("/v1/videos", headers=opened, json={}).status_code == 403
    assert host_name("[FE80::1]:80") == "fe80::1"
    answer = client.get("/healthz")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"


def test_bodies_past_the_limit_are_refused(core: Core) -> None:
    core.settings.change(upload_megabytes=1)
    with TestClient(make_server(core), base_url="http://127.0.0.1") as client:
        assert client.post("/v1/videos", content=b"x" * (3 << 20)).status_code == 413

        def pieces() -> Iterator[bytes]:  # without a Content-Length
            for _ in range(40):
                yield b"x" * (1 << 16)

        assert client.post("/v1/videos", content=pieces()).status_code == 413
        assert client.post("/login", content=b"x" * (9 << 20)).status_code == 413


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
    core = shared(tmp_path)
    try:
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
    finally:
        core.close()


def test_create_list_retrieve_cancel_delete(client: TestClient, core: Core) -> None:
    asked = {
        "prompt": "a bell",
        "size": "96x64",
        "seconds": "0.4",
        "fps": 24,
        "seed": 7,
        "num_inference_steps": 3,
        "guidance_scale": 4.5,
        "negative_prompt": "blur",
        "model": "sora-2",
    }
    made = client.post("/v1/videos", json=asked).json()
    assert (made["object"], made["status"], made["progress"], made["size"]) == ("video", "queued", 0, "96x64")
    assert (made["seed"], made["num_frames"], made["queue_position"]) == (7, 9, 1)
    spec = core.queue.get(made["id"]).spec
    assert (spec.guidance, spec.steps, spec.negative_prompt) == (4.5, 3, "blur")
    again = client.post("/v1/videos", json={"prompt": "b", "extra_body": {"num_frames": 13}}).json()
    assert again["num_frames"] == 13
    listed = client.get("/v1/videos", params={"limit": 1}).json()
    assert listed["data"][0]["id"] == again["id"]
    assert listed["has_more"] is True
    rest = client.get("/v1/videos", params={"after": listed["last_id"]}).json()
    assert [v["id"] for v in rest["data"]] == [made["id"]]
    assert client.get(f"/v1/videos/{made['id']}").json() == made
    content = client.get(f"/v1/videos/{made['id']}/content")
    assert content.status_code == 404
    assert "queued" in content.json()["error"]["message"]
    cancelled = client.post(f"/v1/videos/{made['id']}/cancel").json()
    assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "cancelled")
    gone = client.delete(f"/v1/videos/{made['id']}").json()
    assert gone == {"id": made["id"], "object": "video.deleted", "deleted": True, "status": "deleted"}
    assert client.get(f"/v1/videos/{made['id']}").status_code == 404


def test_pictures_by_file_and_data_url(client: TestClient, core: Core) -> None:
    picture = png()
    form = client.post(
        "/v1/videos", data={"prompt": "x", "seconds": "1"}, files={"input_reference": ("a.png", picture, "image/png")}
    ).json()
    upload = core.queue.get(form["id"]).spec.image
    assert upload is not None
    served = client.get(f"/media/uploads/{upload}")
    assert served.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(served.content)) as back, Image.open(io.BytesIO(picture)) as sent:
        assert np.array_equal(np.asarray(back), np.asarray(sent))
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    for reference in (url, {"image_url": url}, upload):
        made = client.post("/v1/videos", json={"prompt": "x", "input_reference": reference})
        assert made.status_code == 200, made.text
        assert core.queue.get(made.json()["id"]).spec.image is not None


def test_requests_that_the_page_cannot_read_are_no_server_errors(core: Core) -> None:
    app = make_server(core)

    @app.get("/gradio_api/component_server")
    def fails() -> None:
        raise KeyError("no such component")

    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.get("/gradio_api/component_server")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
        for path in ("upload", "file=/etc/passwd", "file/x", "proxy=http://x", "run/x", "call/v2/x", "stream/a/b"):
            assert client.get(f"/gradio_api/{path}").status_code == 404, path
        assert client.get("/monitoring").status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "x", "n": 4}, "n"),
        ({"prompt": "x", "input_reference": "/etc/passwd"}, "input_reference"),
        ({"prompt": "x", "input_reference": "http://169.254.169.254/latest"}, "input_reference"),
        ({"prompt": "x", "input_reference": "data:image/png;base64,!!!"}, "input_reference"),
        ({"prompt": "x", "input_reference": "data:image/svg+xml;base64,PHN2Zy8+"}, None),
        ({"prompt": "x", "size": "100x100"}, None),
        ({"prompt": "x", "size": "../../x"}, None),
        ({"prompt": "x", "seconds": 1e308}, None),
        ({"prompt": "x", "num_frames": 50}, None),
        ({"prompt": "x", "seed": -1}, None),
        ({"prompt": "x", "width": 64}, None),
    ],
)
def test_wrong_requests_get_an_error_object(client: TestClient, core: Core, body: dict, param: str | None) -> None:
    answer = client.post("/v1/videos", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert core.queue.counts()["queued"] == 0


def test_broken_bodies(client: TestClient) -> None:
    for body in (b"", b"{", b"[1]", b'"x"', b"[" * 100_000, b"\xff\xfe"):
        assert client.post("/v1/videos", content=body).status_code == 400, body[:5]
    nan = client.post("/v1/videos", content=b'{"prompt": "x", "guidance_scale": NaN}')
    assert nan.status_code == 400
    assert client.get("/v1/videos?limit=0").status_code == 400
    assert client.get("/v1/videos?after=nobody").status_code == 404


def test_openapi_document(client: TestClient) -> None:
    document = client.get("/v1/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/videos",
        "/v1/videos/{video_id}",
        "/v1/videos/{video_id}/content",
        "/v1/videos/{video_id}/cancel",
        "/v1/models",
    }
    content = document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    assert {"input_reference", "num_inference_steps"} <= set(content["multipart/form-data"]["schema"]["properties"])
    assert client.get("/v1/models").json()["data"][0]["id"] == "checkpoint"


def shared(tmp_path: Path, **changes: object) -> Core:
    from app.core import open_core

    return open_core(options(tmp_path / "shared", listen="0.0.0.0", **changes))  # noqa: S104 - no socket is opened


def test_a_shared_studio_is_never_open(tmp_path: Path) -> None:
    core = shared(tmp_path)
    try:
        app = make_server(core)
        sessions: Sessions = app.state.sessions
        assert sessions.needed
        assert len(sessions.made) >= 16  # a password was made
        with TestClient(app, base_url="http://192.168.1.5:7860", follow_redirects=False) as client:
            for path in ("/", "/v1/videos", "/media/uploads/x", "/gradio_api/info", "/v1/openapi.json", "/nothing"):
                assert client.get(path).status_code == 401, path
            page = client.get("/", headers={"accept": "text/html"})
            assert (page.status_code, page.headers["location"]) == (303, "/login")
            assert client.get("/healthz").status_code == 200
            assert client.get("/login").status_code == 200
            assert client.get("/login", headers={"host": "rebound.example:7860"}).status_code == 400
            wrong = client.get("/v1/videos", headers={"authorization": "Bearer wrong"})
            assert wrong.status_code == 401
            token = read_token(core.paths.token)
            assert core.paths.token.stat().st_mode & 0o077 == 0
            assert client.get("/v1/videos", headers={"authorization": f"Bearer {token}"}).status_code == 200
    finally:
        core.close()


def test_a_share_link_needs_a_password_and_its_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise OSError("no network here")

    monkeypatch.setattr("gradio.networking.setup_tunnel", fails)
    with studio(tmp_path, share=True) as core:
        app = make_server(core)
        sessions: Sessions = app.state.sessions
        assert sessions.needed
        assert len(sessions.made) >= 16
        open_tunnel(app, 7860)
        assert sessions.sharing is not None
        assert "no network here" in sessions.sharing.problem
        with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
            assert client.get("/v1/videos").status_code == 401  # the page is there, and closed
            assert client.get("/login").status_code == 200
        monkeypatch.setattr("gradio.networking.setup_tunnel", lambda *_: "https://abc.gradio.example")
        open_tunnel(app, 7860)
        assert sessions.sharing.url == "https://abc.gradio.example"
        with TestClient(app, base_url="https://abc.gradio.example", follow_redirects=False) as client:
            assert client.get("/v1/videos").status_code == 401
            entered = client.post("/login", data={"user": "", "password": sessions.made})
            assert "secure" in entered.headers["set-cookie"].lower()
            assert client.get("/v1/videos").status_code == 200
        monkeypatch.setattr("app.sessions.time.time", lambda: sessions.sharing.until + 1)  # type: ignore[union-attr]
        with TestClient(app, base_url="https://abc.gradio.example", follow_redirects=False) as client:
            late = client.post("/login", data={"user": "", "password": sessions.made})
            client.cookies.update(late.cookies)
            assert client.get("/v1/videos").status_code == 401  # shut to guests from then on


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


def test_guests_log_in_and_have_only_their_own(tmp_path: Path) -> None:
    core = shared(tmp_path)
    try:
        app = make_server(core)
        sessions: Sessions = app.state.sessions

        def guest() -> TestClient:
            client = TestClient(app, base_url="http://192.168.1.5", follow_redirects=False)
            entered = client.post("/login", data={"user": "", "password": sessions.made})
            assert entered.status_code == 303
            cookie = entered.headers["set-cookie"]
            assert SESSION_COOKIE in cookie
            assert "HttpOnly" in cookie
            return client

        one, two = guest(), guest()
        mine = [one.post("/v1/videos", json={"prompt": str(i)}).json()["id"] for i in range(3)]
        over = one.post("/v1/videos", json={"prompt": "one too many"})
        assert (over.status_code, over.json()["error"]["code"]) == (429, "quota_reached")
        assert len(one.get("/v1/videos").json()["data"]) == 3
        assert two.get("/v1/videos").json()["data"] == []
        for act in (
            lambda i: two.get(f"/v1/videos/{i}"),
            lambda i: two.get(f"/v1/videos/{i}/content"),
            lambda i: two.post(f"/v1/videos/{i}/cancel"),
            lambda i: two.delete(f"/v1/videos/{i}"),
            lambda i: two.get("/v1/videos", params={"after": i}),
            lambda i: two.get(f"/media/jobs/{i}/preview"),
            lambda i: two.get(f"/media/clips/{i}/video"),
        ):
            assert act(mine[0]).status_code == 404
        owner = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
        assert owner.get("/login", params={"key": "wrong"}).status_code == 401
        assert owner.get("/login", params={"key": sessions.owner_key}).status_code == 303
        assert len(owner.get("/v1/videos").json()["data"]) == 3  # the owner sees everything
        sessions.stop_sharing()
        assert one.get("/v1/videos").status_code == 401
        assert owner.get("/v1/videos").status_code == 200
        for client in (one, two, owner):
            client.close()
    finally:
        core.close()


def test_a_password_on_this_machine_makes_an_owner(tmp_path: Path) -> None:
    with studio(tmp_path, auth=(("ann", "secret"),)) as core:
        app = make_server(core)
        with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
            assert client.get("/v1/videos").status_code == 401
            assert client.post("/login", data={"user": "bob", "password": "secret"}).status_code == 401
            assert client.post("/login", data={"user": "ann", "password": "secret"}).status_code == 303
            assert client.get("/v1/videos").status_code == 200
            client.post("/logout")
            assert client.get("/v1/videos").status_code == 401


def test_guessing_is_throttled(tmp_path: Path) -> None:
    with studio(tmp_path, auth=(("ann", "secret"),)) as core:
        app = make_server(core)
        with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
            codes = [client.post("/login", data={"user": "ann", "password": str(i)}).status_code for i in range(40)]
            assert codes[:5] == [401] * 5
            assert codes.count(429) >= 33
            right = client.post("/login", data={"user": "ann", "password": "secret"})
            assert right.status_code == 429  # even the right one has to wait
            assert int(right.headers["retry-after"]) >= 1


def test_the_throttle_doubles_the_wait_and_forgets() -> None:
    throttle = Throttle()
    tries, now = 0, 0.0
    while now < 3600:
        now += throttle.wait("a", now)
        throttle.wrong("a", now)
        tries += 1
    assert tries < 80  # an hour of guessing
    assert throttle.wait("a", now + 3600) == 0
    for number in range(40):
        throttle.wrong(f"address {number}", now)
    assert throttle.wait("yet another", now) > 0  # many addresses do not help
    assert len({new_password() for _ in range(50)}) == 50


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    (first,) = listening(None, 0, fixed=True)
    port = first.getsockname()[1]
    with pytest.raises(StudioError, match=f"port {port}"):
        listening(None, port, fixed=True)
    (second,) = listening(None, port, fixed=False)
    assert second.getsockname()[1] != port
    first.close()
    second.close()


def test_mcp_tools_do_what_v1_does(tmp_path: Path) -> None:
    with studio(tmp_path, mcp=True) as core, TestClient(make_server(core), base_url="http://127.0.0.1") as client:

        def call(method: str, **params: object) -> dict:
            headers = {"accept": "application/json, text/event-stream"}
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            answer = client.post("/mcp/", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
            return answer.json()["result"]

        tools = call("tools/list")["tools"]
        assert {tool["name"] for tool in tools} == {"submit", "status", "cancel", "result"}
        made = call("tools/call", name="submit", arguments={"prompt": "a bell", "size": "96x64", "seed": 3})
        video = json.loads(made["content"][0]["text"])
        assert core.queue.get(video["id"]).spec.seed == 3
        status = call("tools/call", name="status", arguments={"id": video["id"]})
        assert json.loads(status["content"][0]["text"])["status"] == "queued"
        wrong = call("tools/call", name="submit", arguments={"prompt": "a", "size": "7x7"})
        assert wrong["isError"]
        assert "nearest valid value" in wrong["content"][0]["text"]
        call("tools/call", name="cancel", arguments={"id": video["id"]})
        assert core.queue.get(video["id"]).state == "cancelled"
        assert client.post("/mcp/", json={}, headers={"origin": "http://evil.example"}).status_code == 403


def test_guests_cannot_name_models_or_clips_of_others(core: Core) -> None:
    with pytest.raises(NotAllowed):
        core.settle(replace(small(), model="/some/folder"), GUEST)
    with pytest.raises(NotFound):
        core.settle(replace(small(), extend_of="0" * 32), GUEST)
    upload = core.uploads.add(Image.new("RGB", (20, 20)), "local")
    with pytest.raises(NotFound):
        core.settle(replace(small(), image=upload.id), GUEST)


def test_guests_read_no_folders() -> None:
    for text, left in (
        ("cannot use /home/ann/my-clips/data for results", "cannot use data for results"),
        (r"no model 'C:\Users\Ann\model'; give another", "no model 'model'; give another"),
        ("the LoRA folder ~/.local/share/loras is full", "the LoRA folder loras is full"),
        ("size 96x64 at 24 fps, 3/4 done; see /v1/videos", "size 96x64 at 24 fps, 3/4 done; see videos"),
    ):
        assert shown(text, GUEST) == left
        assert shown(text, OWNER) == text

        def refuse(data: object, visitor: Visitor, language: str, text: str = text) -> dict:
            raise RequestError(text)

        ask = answered(refuse, "refuse")
        for visitor, told in ((GUEST, left), (OWNER, text)):
            request = Request({"type": "http", "headers": [], "state": {"visitor": visitor}})
            assert ask({}, request) == {"error": told}  # type: ignore[arg-type]


def test_the_process_of_the_page_loads_no_torch(tmp_path: Path) -> None:
    """Everything that the page uses of the core, imported and opened."""
    code = (
        "import sys; from pathlib import Path; from app.core import open_core; from app.server import make_server\n"
        "from app.options import parse\n"
        f"core = open_core(parse(['--data-dir', {str(tmp_path)!r}, '--model', {str(MODEL)!r}, '--mcp']))\n"
        "make_server(core); core.profile(); core.presets(); core.close()\n"
        "heavy = [n for n in ('torch', 'diffusers', 'transformers', 'moviepy') if n in sys.modules]\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-500:]


def test_two_studios_on_one_folder(tmp_path: Path) -> None:
    with studio(tmp_path) as core:
        core.lock.announce("http://127.0.0.1:7860")
        code = "from app.core import open_core; from app.options import parse\n"
        code += f"open_core(parse(['--data-dir', {str(tmp_path)!r}]))"
        began = time.monotonic()
        second = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, timeout=60)
        assert second.returncode != 0
        said = second.stderr.decode().strip().splitlines()[-1]
        assert "already running" in said
        assert "http://127.0.0.1:7860" in said
        assert time.monotonic() - began < 60
    with studio(tmp_path):
        pass  # the first has let go

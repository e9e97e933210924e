"""The server itself, without a worker: hosts and origins, ports, errors, what its process loads."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from app.core import Core
from app.door import host_name
from app.errors import StudioError
from app.server import listening, make_server
from tests.app_parts import MODEL, environment, studio


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


def test_why_an_event_of_the_page_failed_reaches_page_and_log(core: Core, caplog: pytest.LogCaptureFixture) -> None:
    app = make_server(core)

    @app.post("/gradio_api/run/predict")
    def fails() -> JSONResponse:
        return JSONResponse({"error": "3 is less than the minimum"}, 500)

    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.post("/gradio_api/run/predict")
    assert (answer.status_code, answer.json()) == (500, {"error": "3 is less than the minimum"})
    assert "3 is less than the minimum" in caplog.text


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    (first,) = listening(None, 0, fixed=True)
    port = first.getsockname()[1]
    with pytest.raises(StudioError, match=f"port {port}"):
        listening(None, port, fixed=True)
    (second,) = listening(None, port, fixed=False)
    assert second.getsockname()[1] != port
    first.close()
    second.close()


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

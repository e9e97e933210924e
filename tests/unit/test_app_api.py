"""/v1 and its tools for agents, as real requests to the real app, without a worker."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.core import Core
from app.server import make_server
from tests.app_parts import png, studio


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
        "step_cache": 0.2,
        "sound_steps": 2,
        "model": "sora-2",
    }
    made = client.post("/v1/videos", json=asked).json()
    assert (made["object"], made["status"], made["progress"], made["size"]) == ("video", "queued", 0, "96x64")
    assert (made["seed"], made["num_frames"], made["queue_position"]) == (7, 9, 1)
    spec = core.queue.get(made["id"]).spec
    assert (spec.guidance, spec.steps, spec.negative_prompt) == (4.5, 3, "blur")
    assert (spec.step_cache, spec.sound_steps) == (0.2, 2)
    for wrong in ({"step_cache": 3}, {"sound_steps": 0}):
        assert client.post("/v1/videos", json={"prompt": "b", **wrong}).status_code == 400
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
        asked = {"prompt": "a bell", "size": "96x64", "seed": 3, "step_cache": 0.1, "sound_steps": 2}
        made = call("tools/call", name="submit", arguments=asked)
        video = json.loads(made["content"][0]["text"])
        spec = core.queue.get(video["id"]).spec
        assert (spec.seed, spec.step_cache, spec.sound_steps) == (3, 0.1, 2)
        status = call("tools/call", name="status", arguments={"id": video["id"]})
        assert json.loads(status["content"][0]["text"])["status"] == "queued"
        wrong = call("tools/call", name="submit", arguments={"prompt": "a", "size": "7x7"})
        assert wrong["isError"]
        assert "nearest valid value" in wrong["content"][0]["text"]
        call("tools/call", name="cancel", arguments={"id": video["id"]})
        assert core.queue.get(video["id"]).state == "cancelled"
        assert client.post("/mcp/", json={}, headers={"origin": "http://evil.example"}).status_code == 403

"""A studio that others reach: passwords, sessions, guests and what is theirs, share links."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from starlette.requests import Request

from app.core import Core
from app.door import SESSION_COOKIE
from app.errors import NotAllowed, NotFound
from app.guard import Visitor, shown
from app.server import make_server, open_tunnel
from app.sessions import Sessions, Sharing, Throttle, new_password, read_token
from app.tabs.parts import answered
from engine.errors import RequestError
from tests.app_parts import GUEST, OWNER, shared, small, studio


def test_a_shared_studio_is_never_open(tmp_path: Path) -> None:
    with shared(tmp_path) as core:
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


def test_guests_log_in_and_have_only_their_own(tmp_path: Path) -> None:
    with shared(tmp_path) as core:
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
        assert one.get(f"/media/jobs/{mine[0]}/preview").status_code == 204  # its own, with nothing to show yet
        owner = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
        assert owner.get("/login", params={"key": "wrong"}).status_code == 401
        assert owner.get("/login", params={"key": sessions.owner_key}).status_code == 303
        assert len(owner.get("/v1/videos").json()["data"]) == 3  # the owner sees everything
        sessions.sharing = replace(sessions.sharing or Sharing(), until=0.0)  # its time is over
        assert one.get("/v1/videos").status_code == 401
        assert owner.get("/v1/videos").status_code == 200
        for client in (one, two, owner):
            client.close()


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

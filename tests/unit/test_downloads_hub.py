"""The hub's protocol, spoken with a hub on this machine."""

from __future__ import annotations

import logging
import socket
import threading
import time
from pathlib import Path

import pytest

from engine.downloads.hub import (
    DownloadError,
    Hub,
    HubFile,
    Offline,
    Retry,
    safe_path,
)
from engine.errors import Cancelled
from tests.hub_server import COMMIT, REPOSITORY, Fault, model_files, serving


def test_listing_in_pages_with_the_hubs_own_hashes() -> None:
    with serving() as server, Hub(server.url) as hub:
        assert hub.commit(REPOSITORY, "main") == COMMIT
        files = hub.files(REPOSITORY, COMMIT)
        assert [file.path for file in files] == sorted(model_files())
        for file in files:
            content = server.files[file.path]
            assert (file.size, file.expected) == (content.size, content.sha256 if file.sha256 else content.blob)
        assert sum(bool(file.sha256) for file in files) == 2


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("a/b.json", True),
        ("größe 語.json", True),
        ("../a", False),
        ("a/../../b", False),
        ("/etc/passwd", False),
        ("a//b", False),
        ("C:/x", False),
        ("a\\..\\b", False),
        ("nul", False),
        ("COM1.txt", False),
        ("a/aux.json", False),
        ("name.", False),
        ("name ", False),
        (" name", False),
        ("a\x00b", False),
        ("x" * 201, False),
        ("a/.", False),
        ("console", True),
    ],
)
def test_only_paths_that_stay_inside_on_every_system(path: str, good: bool) -> None:
    assert safe_path(path) == good


def test_listing_with_a_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    with serving({"../../evil": b"x"}) as server, Hub(server.url) as hub:
        with pytest.raises(DownloadError, match="refused"):
            hub.files(REPOSITORY, COMMIT)


def test_range_and_version_tag() -> None:
    with serving() as server, Hub(server.url) as hub:
        file = next(file for file in hub.files(REPOSITORY, COMMIT) if file.sha256)
        data = b"".join(block for block, _ in hub.read(REPOSITORY, COMMIT, file, 100, 70_100, ""))
        assert data == server.files[file.path].source[100:70_100]  # type: ignore[index]
        assert (server.sent, hub.received) == (70_000, 70_000)


def test_server_that_ignores_ranges_is_understood() -> None:
    with serving() as server, Hub(server.url) as hub:
        file = next(file for file in hub.files(REPOSITORY, COMMIT) if file.sha256)
        server.fault = lambda *_: Fault("whole")
        data = b"".join(block for block, _ in hub.read(REPOSITORY, COMMIT, file, 300_001, 300_100, ""))
        assert data == server.files[file.path].source[300_001:300_100]  # type: ignore[index]


def test_other_part_than_asked_for_is_not_taken() -> None:
    with serving() as server, Hub(server.url) as hub:
        file = next(file for file in hub.files(REPOSITORY, COMMIT) if file.sha256)
        server.fault = lambda *_: Fault("other")
        with pytest.raises(Retry, match="another part"):
            list(hub.read(REPOSITORY, COMMIT, file, 0, 100, ""))


def test_listing_survives_passing_troubles_and_waits_as_asked() -> None:
    troubles = [Fault("status", status=500), Fault("hang up"), Fault("status", status=429, retry_after="1")]
    with serving() as server, Hub(server.url, first_wait=0.01) as hub:
        server.api_fault = lambda number: troubles[number] if number < len(troubles) else None
        began = time.monotonic()
        assert hub.commit(REPOSITORY, "main") == COMMIT
        assert 1.0 <= time.monotonic() - began < 3.0


def test_gives_up_after_some_tries_and_says_so() -> None:
    with serving() as server, Hub(server.url, first_wait=0.001) as hub:
        server.api_fault = lambda number: Fault("status", status=503)
        with pytest.raises(DownloadError, match="503, 6 times in a row"):
            hub.files(REPOSITORY, COMMIT)
        assert server.api_asked == 6


def test_nobody_there_is_told_in_words() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Hub(address, first_wait=0.001) as hub, pytest.raises(DownloadError, match="no connection to the server"):
        hub.commit(REPOSITORY, "main")


@pytest.mark.parametrize(("name", "value"), [("MOVA_OFFLINE", "1"), ("HF_HUB_OFFLINE", "true")])
def test_offline_opens_no_connection(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    with Hub("http://127.0.0.1:9") as hub:
        with pytest.raises(Offline, match="switched off"):
            hub.commit(REPOSITORY, "main")
        with pytest.raises(Offline):
            list(hub.read(REPOSITORY, COMMIT, HubFile("a", 3, blob="0" * 40), 0, 3, ""))


def test_pause_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    with serving() as server, Hub(server.url, first_wait=30.0, stop=stop) as hub:
        server.api_fault = lambda number: Fault("status", status=500)
        threading.Timer(0.2, stop.set).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            hub.commit(REPOSITORY, "main")
        assert time.monotonic() - began < 2


def test_token_opens_and_goes_to_the_hub_only(caplog: pytest.LogCaptureFixture) -> None:
    token = "hf_SecretSecretSecret"  # noqa: S105
    caplog.set_level(logging.DEBUG)
    with serving() as server:
        server.token = token
        with Hub(server.url) as hub, pytest.raises(DownloadError, match=r"asks who you are.*models token"):
            hub.commit(REPOSITORY, "main")
        with Hub(server.url, token="hf_wrongwrong") as hub, pytest.raises(DownloadError, match="does not open"):  # noqa: S106
            hub.commit(REPOSITORY, "main")
        server.seen.clear()
        with Hub(server.url, token=token) as hub:
            file = next(file for file in hub.files(REPOSITORY, COMMIT) if file.sha256)
            list(hub.read(REPOSITORY, COMMIT, file, 0, 10, ""))
        assert {bool(sent) for path, _, sent in server.seen if path.startswith("/cdn/")} == {False}
        assert {sent for path, _, sent in server.seen if not path.startswith("/cdn/")} == {f"Bearer {token}"}
    assert token not in caplog.text


def test_token_is_not_sent_over_an_open_line(caplog: pytest.LogCaptureFixture) -> None:
    with Hub("http://mirror.example", token="hf_SecretSecret") as hub:  # noqa: S106
        assert hub._authorization() == {}
    assert "not encrypted" in caplog.text
    assert "Secret" not in caplog.text


@pytest.mark.parametrize("endpoint", ["not an address", "ftp://x", "http://"])
def test_address_that_is_none(endpoint: str) -> None:
    with pytest.raises(DownloadError, match="is not an address"):
        Hub(endpoint)

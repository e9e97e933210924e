"""Downloads behind a page: watched, paused, continued, one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.downloads import Hub, Shelf
from engine.downloads.background import Background, State
from engine.downloads.files import holding
from tests.hub_server import REPOSITORY, Fault, LocalHub, serving


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def behind(server: LocalHub, tmp_path: Path) -> Background:
    def hub(stop: threading.Event) -> Hub:
        return Hub(server.url, first_wait=0.01, read_seconds=2.0, stop=stop)

    return Background(Shelf(tmp_path), hub)


def until(behind: Background, done: int) -> State:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        state = behind.state()
        if not state.busy or (state.progress and state.progress.done >= done):
            return state
        time.sleep(0.005)
    raise AssertionError(f"still {behind.state()}")


def test_watched_to_its_end(behind: Background, tmp_path: Path) -> None:
    assert behind.state() == State()
    assert behind.start(REPOSITORY)
    state = behind.wait(30)
    assert (state.phase, state.message) == ("done", str(tmp_path / "models" / "model"))
    assert state.plan is not None
    assert state.progress is not None
    assert state.progress.done == state.progress.total == state.plan.size


def test_paused_and_continued(behind: Background, server: LocalHub) -> None:
    server.fault = lambda *_: Fault("slow", wait=0.2)  # a loaded machine pauses late
    behind.start(REPOSITORY)
    assert until(behind, 200_000).busy
    assert not behind.start("other/model")  # one at a time
    behind.pause()
    assert behind.wait(30).phase == "paused"
    server.fault = lambda *_: None
    assert behind.start(REPOSITORY)
    assert behind.wait(30).phase == "done"


def test_failure_is_told_in_words(behind: Background) -> None:
    behind.start("mova")
    assert behind.wait(30).message.startswith("no model 'mova' in the catalogue; did you mean 'MOVA-")
    behind.start("nobody/nothing")
    state = behind.wait(30)
    assert (state.phase, "is not at" in state.message) == ("failed", True)
    assert behind.start(REPOSITORY)  # and the next may come
    assert behind.wait(30).phase == "done"


def test_waits_for_another_process(behind: Background, server: LocalHub, tmp_path: Path) -> None:
    with holding(tmp_path / "models"):
        behind.start(REPOSITORY)
        end = time.monotonic() + 30
        while behind.state().phase != "waiting" and time.monotonic() < end:
            time.sleep(0.01)
        assert behind.state().phase == "waiting"
    assert behind.wait(30).phase == "done"


def test_pause_while_waiting_for_another_process(behind: Background, tmp_path: Path) -> None:
    with holding(tmp_path / "models"):
        behind.start(REPOSITORY)
        end = time.monotonic() + 30
        while behind.state().phase != "waiting" and time.monotonic() < end:
            time.sleep(0.01)
        behind.pause()
        assert behind.wait(10).phase == "paused"

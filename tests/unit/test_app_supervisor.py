"""The worker's life: how jobs end, pauses, a worker that waits and one that dies."""

from __future__ import annotations

import base64
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.core import Core
from app.errors import WrongState
from app.store import StoreStuck
from tests.app_parts import OWNER, made, small, studio, wait


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with studio(tmp_path_factory.mktemp("studio"), work=True) as core:
        yield core


@pytest.mark.parametrize("ending", ["done", "failed", "cancelled", "died"])
def test_who_sees_that_a_job_has_ended_finds_no_preview_of_it(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at in the very moment in which the queue says so, not whenever a test happens to look."""
    with studio(tmp_path) as core:
        supervisor, queue = core.supervisor, core.queue
        job = core.submit(small(), OWNER)[0]
        queue.claim()
        worker = SimpleNamespace(job=job, kill=lambda: None, how_it_ended=lambda: "signal 9")
        packed = base64.b64encode(b"webp").decode()
        supervisor._hear(worker, {"say": "preview", "job": job.id, "picture": packed, "envelope": [0.5], "step": 1})
        assert supervisor.preview(job.id) is not None
        found = []
        for name in ("finish", "fail", "cancelled", "worker_died"):
            told = getattr(queue, name)

            def look(*given: object, told: Callable = told) -> object:
                found.append(supervisor.preview(job.id))
                return told(*given)

            monkeypatch.setattr(queue, name, look)
        if ending == "died":
            supervisor._died(worker)
        else:
            if ending == "cancelled":
                queue.cancel(job.id, None)
            if ending == "done":
                monkeypatch.setattr(core.library, "add_published", lambda _: None)
            told = {"say": ending, "job": job.id, "clip": job.id, "measured": {}, "reason": "x"}
            supervisor._hear(worker, told)
        assert found == [None]


@pytest.mark.parametrize("ending", ["finish", "worker_died"])
def test_how_a_job_ended_is_written_down_when_there_is_room_again(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with studio(tmp_path, work=True) as core:
        tries, told = [], getattr(core.queue, ending)

        def full(*given: object) -> object:
            tries.append(given)
            if len(tries) < 3:
                raise StoreStuck("the disk is full")
            return told(*given)

        monkeypatch.setattr(core.queue, ending, full)
        job = core.submit(small(steps=60 if ending == "worker_died" else 2), OWNER)[0]
        if ending == "worker_died":
            while core.queue.get(job.id).stage != "denoise":
                time.sleep(0.01)
            os.kill(core.supervisor.status().pid or 0, signal.SIGKILL)
        assert wait(core, job).state == "done"
        assert len(tries) == 3
        assert core.queue.get(job.id).attempts == (2 if ending == "worker_died" else 1)
        assert core.supervisor.status().deaths == (1 if ending == "worker_died" else 0)


def test_pausing_a_job_and_the_queue(core: Core) -> None:
    core.queue.hold()
    first, second, third = (core.submit(small(seed=n), OWNER)[0] for n in (1, 2, 3))
    core.queue.pause(second.id, None)
    time.sleep(0.3)
    assert core.queue.counts()["running"] == 0
    core.queue.hold(False)
    assert wait(core, third).state == wait(core, first).state == "done"
    assert core.queue.get(second.id).state == "paused"
    core.queue.go_on(second.id, None)
    assert wait(core, second).state == "done"
    with pytest.raises(WrongState):
        core.queue.edit(second.id, small(), None)


def test_idle_workers_free_the_model_and_the_next_job_starts_another(core: Core) -> None:
    made(core)
    before = core.supervisor.status()
    assert before.state == "idle"
    assert before.memory > 50 << 20
    core.settings.change(idle_minutes=0.02)
    try:
        end = time.monotonic() + 60
        while core.supervisor.status().state != "off" and time.monotonic() < end:
            time.sleep(0.05)
        assert core.supervisor.status().state == "off"
    finally:
        core.settings.change(idle_minutes=10)
    assert made(core).facts.frames == 5
    assert core.supervisor.status().pid != before.pid
    core.supervisor.free()
    assert core.supervisor.status().state == "off"
    assert core.supervisor.status().deaths == 0

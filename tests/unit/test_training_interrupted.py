"""A training whose process is killed: it goes on by itself at most twice, and only where it came to a new checkpoint.

The processes are real ones that sleep instead of training; tests/faults/kill_training.py kills those that train.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core import Core
from app.tabs.train import TrainingRoom
from app.training import Run, Shown, State
from app.training_form import Place, TrainingForm, says_why
from engine.training.lora.progress import CHECKPOINT
from tests.app_parts import MODEL, OWNER, studio
from tests.unit.test_lora_training import clip

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Core]:
    """A studio whose trainings sleep; `says.py` in the run's folder is what the next one does instead."""
    monkeypatch.setattr("app.training.command", lambda words: [sys.executable, "-c", _program(tmp_path)])
    (tmp_path / "clips").mkdir()
    clip(tmp_path / "clips" / "a.mp4", 9, 1)
    with studio(tmp_path / "data") as opened:
        at = Place(MODEL, opened.trainings.place("zorb"), tmp_path / "loras", opened.settings.current)
        opened.trainings.begin(TrainingForm(name="zorb", data=str(tmp_path / "clips"), size="64x64"), at)
        opened.trainings.start()
        yield opened
        opened.trainings.stop()
        for run in opened.trainings._runs.values():
            if run.process is not None:
                run.process.kill()
                run.process.wait()


def _program(folder: Path) -> str:
    said = folder / "says.py"
    return said.read_text(encoding="utf-8") if said.is_file() else SLEEP


def until(what: Callable[[], object], otherwise: str) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, otherwise
        time.sleep(0.05)


def shown(core: Core) -> Shown:
    (one,) = core.trainings.list()
    return one


def kill(core: Core, cuts: int, then: State) -> None:
    """SIGKILL; then it is in this state, interrupted so often."""
    run: Run = core.trainings._runs["zorb"]
    until(lambda: run.process is not None and run.alive(), "it does not run")
    assert run.process is not None
    pid = run.process.pid  # never the record's: it is 0 until it is written, and 0 is everyone in this group
    run.process.send_signal(signal.SIGKILL)
    until(lambda: run.record.cuts == cuts, "the kill is not noticed")
    until(lambda: shown(core).state == then and run.record.pid != pid, f"not {then} but {shown(core).state}")


def told(core: Core, language: str) -> tuple[str, str, str]:
    (one,) = TrainingRoom(core).answer({}, OWNER, language)["runs"]
    return one["state"], one["text"], one["problem"]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_it_goes_on_twice_with_a_checkpoint_between(core: Core) -> None:
    path = core.trainings.place("zorb") / CHECKPOINT
    kill(core, 1, "running")
    assert told(core, "en")[2] == "It was interrupted (signal 9) and goes on by itself from its last checkpoint."
    path.write_bytes(b"first")
    kill(core, 2, "running")
    path.write_bytes(b"second")
    kill(core, 3, "interrupted")
    state, text, why = told(core, "en")
    assert state == "paused"  # what the page offers
    assert text.startswith("Interrupted at step 0 of ")
    assert "3 times (signal 9)" in why
    state, text, why = told(core, "zh")
    assert "已中断" in text
    assert "信号 9" in why
    assert not core.trainings.busy
    core.trainings.go_on("zorb")
    until(lambda: shown(core).state == "running", "it does not go on when asked to")
    assert told(core, "en")[2] == ""
    kill(core, 1, "running")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_it_waits_where_it_died_again_without_a_new_checkpoint(core: Core) -> None:
    (core.trainings.place("zorb") / CHECKPOINT).write_bytes(b"the same")
    kill(core, 1, "running")
    kill(core, 2, "interrupted")
    assert "2 times (signal 9)" in told(core, "en")[2]


def test_one_that_says_why_has_failed(core: Core, tmp_path: Path) -> None:
    (tmp_path / "says.py").write_text("import sys; print('train: no clip'); sys.exit(2)", encoding="utf-8")
    until(lambda: shown(core).state == "failed", "it has not failed")
    assert told(core, "en")[2] == "no clip"


def test_what_counts_as_saying_why() -> None:
    assert says_why("12:00 x\ntrain: no clip\n")
    assert says_why("Traceback (most recent call last)\n  File\nValueError: x")
    assert not says_why("12:00:01 step 3\n")
    assert not says_why("")

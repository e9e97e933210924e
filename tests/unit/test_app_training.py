"""Trainings of the studio without their engine: what the form becomes, folders of clips, and who has the card."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from app.errors import NotAllowed, NotFound, WrongState
from app.settings import Settings
from app.tabs.train import TrainingRoom
from app.training import RECORD, Record
from app.training_clips import ClipFolders
from app.training_form import Place, TrainingForm, arguments, last_words
from engine.errors import RequestError
from engine.training.cli import build_parser
from engine.training.lora.clips import Format
from tests.app_parts import GUEST, MODEL, OWNER, small, studio
from tests.unit.test_lora_training import clip

FORM = Format(96, 96, 24.0, 9)


def until(what: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def place(folder: Path, **settings: object) -> Place:
    return Place(MODEL, folder / "run", folder / "loras", Settings(**settings))  # type: ignore[arg-type]


def test_the_form_becomes_a_command_that_the_command_line_takes(tmp_path: Path) -> None:
    form = TrainingForm.read(
        {"data": str(tmp_path), "name": "--zorb", "trigger": " my  zorb ", "steps": 20, "rate": 1e-3, "seconds": 0.5}
        | {"size": "96x96", "looks": "A zorb.\n\n--Another.", "keep": "A ball."}
    )
    words = arguments(form, place(tmp_path, memory="24"), step_seconds=60.0)
    taken = build_parser().parse_args(words)
    assert (taken.name, taken.set_trigger, taken.set_steps, taken.set_rate) == ("--zorb", "my zorb", 20, 1e-3)
    assert (taken.size, taken.frames, taken.memory, taken.set_save_every) == ("96x96", 13, 24.0, 10)
    assert taken.sample_prompt == ["A zorb.", "--Another."]
    assert taken.keep_prompts == tmp_path / "run" / "keep-prompts.txt"
    assert build_parser().parse_args(arguments(form, place(tmp_path, memory="cpu"))).device == "cpu"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"rank": 0}, "rank 0 is out of range"),
        ({"steps": "many"}, "steps: "),
        ({"size": "../x"}, "size: "),
        ({"learn": "smell"}, "both, picture, sound"),
        ({"seconds": -1}, "seconds: "),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        TrainingForm.read(values)


def test_a_folder_of_clips_and_what_may_be_done_with_it(tmp_path: Path) -> None:
    data = tmp_path / "clips"
    data.mkdir()
    clip(data / "a.mp4", 9, 1, size=96)
    (tmp_path / "secret.txt").write_text("x", encoding="utf-8")
    folders = ClipFolders(tmp_path)
    (one,) = folders.look(str(data), FORM).clips
    assert (one.pieces, one.why) == (0, "no caption; write a.txt beside it")
    folders.caption(one.id, " A zorb\n hops. ")
    found = folders.look(str(data), FORM)
    assert (found.pieces, found.clips[0].caption, found.clips[0].why) == (1, "A zorb hops.", "")
    assert folders.video(one.id) == data / "a.mp4"
    for unknown in ("0" * 32, "../../secret.txt"):
        with pytest.raises(NotFound):
            folders.video(unknown)
    with pytest.raises(RequestError, match="does not exist"):
        folders.look(str(tmp_path / "nowhere"), FORM)


def test_files_that_are_brought_in_stay_in_their_folder(tmp_path: Path) -> None:
    folders = ClipFolders(tmp_path)

    def bring(name: str, folder: str = "") -> Path:
        (tmp_path / "arrived").write_bytes(b"bytes")
        return folders.bring(tmp_path / "arrived", name, folder)

    first = bring("../../etc/a b.mp4")
    assert first.parent == tmp_path / "training-clips"
    assert [path.name for path in first.iterdir()] == ["a b.mp4"]
    assert bring("a.txt", str(first)) == first
    assert bring("c.mov", str(tmp_path)) not in (first, tmp_path)  # another folder of the user's is left alone
    with pytest.raises(RequestError, match="no video"):
        bring("virus.exe", str(first))


def test_a_training_that_runs_is_found_again_holds_the_card_and_stops_when_asked(tmp_path: Path) -> None:
    """The process is a real one, that a studio before this one started."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    form = TrainingForm(name="zorb", data=str(tmp_path))
    born = psutil.Process(sleeper.pid).create_time()
    run = tmp_path / "training" / "zorb"
    run.mkdir(parents=True)
    (run / RECORD).write_text(json.dumps(asdict(Record(form.model_dump(), [], 1.0, pid=sleeper.pid, born=born))))
    (tmp_path / "training" / "broken").mkdir()
    (tmp_path / "training" / "broken" / RECORD).write_text("{")
    try:
        with studio(tmp_path) as core:
            assert [(one.id, one.state) for one in core.trainings.list()] == [("zorb", "running")]
            assert core.supervisor.gate()
            core.trainings.start()
            job = core.submit(small(), OWNER)[0]
            core.supervisor.start(warm=False)
            with pytest.raises(WrongState, match="at work"):
                core.trainings.remove("zorb")
            with pytest.raises(WrongState, match="'zorb' is being trained"):
                core.trainings.begin(TrainingForm(name="other"), place(tmp_path))
            time.sleep(1.0)
            assert core.queue.get(job.id).state == "queued"
            core.trainings.pause("zorb")
            assert sleeper.wait(30) != 0
            until(lambda: core.trainings.list()[0].state == "paused")
            until(lambda: not core.supervisor.gate())
            until(lambda: core.queue.get(job.id).state != "queued")  # its turn
            core.trainings.remove("zorb")
            assert not run.exists()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_guests_learn_only_whether_the_card_is_taken(tmp_path: Path) -> None:
    with studio(tmp_path) as core:
        room = TrainingRoom(core)
        assert room.answer({}, GUEST, "en") == {"active": False}
        with pytest.raises(NotAllowed):
            room.answer({"do": "look", "form": {"data": str(tmp_path)}}, GUEST, "en")
        with pytest.raises(RequestError, match="does not know"):
            room.answer({"do": "dance"}, OWNER, "en")
        with pytest.raises(RequestError, match="no clip"):
            room.answer({"do": "begin", "form": {"data": str(tmp_path), "name": "x"}}, OWNER, "en")


def test_why_it_ended_is_its_own_word() -> None:
    assert last_words("12:00 x\ntrain: no clip\nnoise\n") == "no clip"
    assert last_words("Traceback\nMemoryError\n\n") == "MemoryError"
    assert last_words("") == ""

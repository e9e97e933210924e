"""Trainings of the studio: each a process of its own that outlives tab and studio. Imports no torch.

A run's folder says all there is to know, so that a studio that starts again finds it: what the engine writes
(`engine.training.lora.progress`), and `studio.json`, what the user wants of it and which process is at it.

Training and clips take turns on the card. While a training holds it, the queue starts no job; a training waits until
the job that runs has ended. With "clips first" it makes way, with a checkpoint, whenever a clip waits.

A training whose process was killed was interrupted: it goes on by itself from its checkpoint, at most twice, and not
where it came to no new checkpoint since the last time. One that says why it ended has failed, and waits to be asked.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from app.errors import NotFound, WrongState
from app.jobs import JobQueue
from app.supervisor import Supervisor
from app.training_clips import ClipFolders
from app.training_form import KEEP_PROMPTS, Place, TrainingForm, arguments, command, environment, last_words, says_why
from engine.errors import MovaError, RequestError
from engine.media import atomic_file
from engine.training.lora.progress import CHECKPOINT, Progress, read_progress

log = logging.getLogger(__name__)

RUNS = "training"  # below the data folder
RECORD, OUTPUT = "studio.json", "output.log"
TICK = 0.5
NEW_GROUP = 0x200  # Windows' CREATE_NEW_PROCESS_GROUP: so that it, and nobody else, hears Ctrl-Break
SAME = 2.0  # seconds by which two tellings of when a process began may differ
GOES_ON = 2  # times that an interrupted training goes on by itself
CRASHED = 0xC0000000  # from here on, exit codes of Windows are those of processes that it ended itself

State = Literal["waiting", "running", "stopping", "paused", "interrupted", "failed", "done"]


@dataclass(frozen=True)
class Record:
    """What `studio.json` holds.

    Attributes:
        form: as it was filled in. words: the command. created: seconds since the epoch.
        wanted: it shall run. finishing: only to write what it has learned.
        pid, born: of its process, and when that began. problem: why it failed, else "".
        cuts: times that it was interrupted since the user last let it run.
        cut_code: what its process ended with then, below 0 a signal; None where nobody knows.
        cut_at: when its checkpoint was written, as it was then (ns); 0 where there was none.
    """

    form: dict[str, Any]
    words: list[str]
    created: float
    wanted: bool = True
    finishing: bool = False
    done: bool = False
    pid: int = 0
    born: float = 0.0
    problem: str = ""
    cuts: int = 0
    cut_code: int | None = None
    cut_at: int = 0


@dataclass
class Run:
    """One training.

    Attributes:
        process: where this studio started it. told: it was asked to stop. seen: this studio saw its process alive.
    """

    folder: Path
    record: Record
    process: subprocess.Popen[bytes] | None = None
    told: bool = False
    seen: bool = False

    @property
    def form(self) -> TrainingForm:
        return TrainingForm.model_validate(self.record.form)

    def note(self, **changes: Any) -> None:
        """Changes the record, on the disk first."""
        changed = replace(self.record, **changes)
        with atomic_file(self.folder / RECORD) as part:
            part.write_text(json.dumps(asdict(changed), indent=2), encoding="utf-8")
        self.record = changed

    def alive(self) -> bool:
        """Whether its process runs."""
        if self.process is not None:
            return self.process.poll() is None
        if not self.record.pid:
            return False
        with suppress(psutil.Error):
            found = psutil.Process(self.record.pid)
            same = abs(found.create_time() - self.record.born) < SAME
            return same and found.status() != psutil.STATUS_ZOMBIE
        return False

    def state(self) -> State:
        r = self.record
        if self.alive():
            return "running" if r.wanted and not self.told else "stopping"
        if r.wanted:
            return "waiting"
        return "done" if r.done else "failed" if r.problem else "interrupted" if r.cuts else "paused"


@dataclass(frozen=True)
class Shown:
    """One training as the page shows it."""

    id: str
    form: TrainingForm
    state: State
    finishing: bool
    problem: str
    progress: Progress
    folder: Path = field(repr=False)
    cuts: int = 0
    cut_code: int | None = None


class Trainings:
    """All trainings of one studio; one at a time is at work. Safe to use from any thread.

    Attributes:
        clips: folders that may be learned from.
    """

    def __init__(self, root: Path, queue: JobQueue, supervisor: Supervisor) -> None:
        """Starts nothing. Args: root: the studio's data folder."""
        self._root = root / RUNS
        self.clips = ClipFolders(root)
        self._queue, self._supervisor = queue, supervisor
        self._lock = threading.RLock()
        self._runs = {run.folder.name: run for run in _found(self._root)}
        for run in self._runs.values():
            run.seen = run.alive()
        self._holds = any(run.seen for run in self._runs.values())
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        supervisor.gate = lambda: self._holds

    def start(self) -> None:
        """Begins to look after them: what was at work when the studio ended goes on."""
        self._thread = threading.Thread(target=self._look_after, name="training", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Asks the one at work to end with a checkpoint; it goes on with the next start. Does not wait for it."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(5.0)
        with self._lock:
            for run in self._runs.values():
                if run.alive():
                    self._ask_to_stop(run)

    # ---- what the user asks for

    def list(self) -> list[Shown]:
        """Every training, the newest first."""
        with self._lock:
            runs = sorted(self._runs.values(), key=lambda run: -run.record.created)
            states = [(run, run.state(), run.record) for run in runs]
        return [
            Shown(
                run.folder.name,
                run.form,
                state,
                r.finishing,
                r.problem,
                read_progress(run.folder),
                run.folder,
                r.cuts,
                r.cut_code,
            )
            for run, state, r in states
        ]

    @property
    def busy(self) -> str:
        """Name of the training that is at work or waits for the card; "" where there is none."""
        with self._lock:
            found = self._active()
            return found.form.name if found else ""

    def begin(self, form: TrainingForm, at: Place, step_seconds: float | None = None) -> str:
        """Starts a training; returns its id.

        Raises:
            RequestError: a value is not valid, or the name is taken. WrongState: another one is at work.
        """
        if not form.name.strip():
            raise RequestError("give it a name first")
        words = arguments(form, at, step_seconds)
        with self._lock:
            self._require_none_active()
            if at.folder.name in self._runs:
                raise RequestError(f"there is a training named {form.name!r} already; take another name, or delete it")
            at.folder.mkdir(parents=True, exist_ok=True)
            if form.keep.strip():
                (at.folder / KEEP_PROMPTS).write_text(form.keep.strip() + "\n", encoding="utf-8")
            run = Run(at.folder, Record(form.model_dump(), words, time.time()))
            run.note()
            self._runs[at.folder.name] = run
        return at.folder.name

    def place(self, name: str) -> Path:
        """Where a training of this (safe) name lies."""
        return self._root / name

    def pause(self, run_id: str) -> None:
        """Lets it stop after its step, with a checkpoint."""
        with self._lock:
            self._get(run_id).note(wanted=False, cuts=0)

    def go_on(self, run_id: str) -> None:
        """Lets it run from its last checkpoint. Raises `WrongState`: another one is at work."""
        with self._lock:
            run = self._get(run_id)
            if run.record.done:
                raise WrongState("this training is done")
            self._require_none_active(run)
            run.note(wanted=True, finishing=False, problem="", cuts=0)

    def finish(self, run_id: str) -> None:
        """Trains no more: what it has learned becomes the LoRA.

        Raises:
            WrongState: it has learned nothing yet, is done, or another one is at work.
        """
        with self._lock:
            run = self._get(run_id)
            if run.record.done:
                raise WrongState("this training is done")
            if not (run.folder / CHECKPOINT).is_file() and not run.alive():
                raise WrongState("it has learned nothing yet")
            self._require_none_active(run)
            run.note(wanted=True, finishing=True, problem="", cuts=0)
            if run.alive():
                self._ask_to_stop(run)

    def remove(self, run_id: str) -> None:
        """Deletes a run's folder; a LoRA that is in the library stays. Raises `WrongState`: it is at work."""
        with self._lock:
            run = self._get(run_id)
            if run.alive():
                raise WrongState("it is at work; pause it first")
            shutil.rmtree(run.folder, ignore_errors=True)
            del self._runs[run_id]

    def sample(self, run_id: str, name: str) -> Path:
        """The file of a sample. Raises `NotFound`: there is none."""
        with self._lock:
            folder = self._get(run_id).folder
        found = next((path for path in read_progress(folder).samples if path.name == name), None)
        if found is None:
            raise NotFound("no such sample")
        return found

    def measured(self, form: TrainingForm, model: Path) -> float | None:
        """Seconds that a step would take, from the newest training of the same model; None without one."""
        wanted = _work(form, model)
        for shown in self.list():
            pace = shown.progress.step_seconds
            same = f"--base={model}" in self._runs[shown.id].record.words and shown.form.learn == form.learn
            if pace and same:
                return pace * wanted / _work(shown.form, model)
        return None

    # ---- at work

    def _get(self, run_id: str) -> Run:
        if run_id not in self._runs:
            raise NotFound("no such training")
        return self._runs[run_id]

    def _active(self) -> Run | None:
        runs = self._runs.values()
        return next((r for r in runs if r.alive()), None) or next((r for r in runs if r.record.wanted), None)

    def _require_none_active(self, but: Run | None = None) -> None:
        found = self._active()
        if found is not None and found is not but:
            raise WrongState(f"{found.form.name!r} is being trained; pause it first, or wait until it is done")

    def _look_after(self) -> None:
        while not self._ended.wait(TICK):
            try:
                self._once()
            except MovaError as error:  # a full disk, for instance: the user is told, and it is tried again
                log.warning("%s; trying again", error)
            except Exception:
                log.exception("the care for trainings stumbled and goes on")

    def _once(self) -> None:
        with self._lock:
            for run in self._runs.values():
                if run.record.pid and not run.alive():
                    self._has_ended(run)
            run_now = self._active()
            holds = run_now is not None
            if run_now is not None:
                waits = self._queue.counts()["queued"] > 0 and not self._queue.held
                gives_way = run_now.form.clips == "first" and waits and not run_now.record.finishing
                if run_now.alive():
                    if gives_way or not run_now.record.wanted:
                        self._ask_to_stop(run_now)
                elif gives_way:
                    holds = False
            before, self._holds = self._holds, holds  # from here on no new job begins; one may have begun
            if run_now is not None and holds and not run_now.alive() and self._supervisor.status().job is None:
                self._supervisor.free()
                self._begin(run_now)
        if before and not holds:
            self._queue.touch()

    def _begin(self, run: Run) -> None:
        words = [*run.record.words, *(["--finish"] if run.record.finishing else [])]
        with (run.folder / OUTPUT).open("wb") as output:
            run.process = subprocess.Popen(
                command(words), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment(),
                start_new_session=os.name == "posix",  # Ctrl-C is for the studio, which then asks it to stop
                creationflags=NEW_GROUP if sys.platform == "win32" else 0,
            )  # fmt: skip
        run.told, run.seen = False, True
        run.note(pid=run.process.pid, born=psutil.Process(run.process.pid).create_time())
        log.info("training %s begins (process %d)", run.form.name, run.process.pid)

    def _ask_to_stop(self, run: Run) -> None:
        if run.told or not run.record.pid:  # a signal to process 0 goes to everyone in this group
            return
        run.told = True
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                os.kill(run.record.pid, signal.CTRL_BREAK_EVENT)
            else:
                os.kill(run.record.pid, signal.SIGTERM)

    def _has_ended(self, run: Run) -> None:
        """Writes down how: done, stopped because it was asked to, interrupted, or failed."""
        code = run.process.wait() if run.process is not None else None
        whole = code == 0 or (code is None and read_progress(run.folder).file is not None)
        asked, seen, run.process, run.told, run.seen = run.told, run.seen, None, False, False
        text = _text(run.folder / OUTPUT)
        if whole:
            log.info("training %s is done", run.form.name)
            run.note(pid=0, done=True, wanted=False, finishing=False, problem="", cuts=0)
        elif asked or not seen:  # it ended while no studio looked: with the machine, or stopped by the last studio
            run.note(pid=0)
        elif _failed(code, text):
            said = last_words(text)
            log.warning("training %s failed (exit code %s): %s", run.form.name, code, said)
            run.note(pid=0, wanted=False, finishing=False, problem=said or f"ended by exit code {code}")
        else:
            _was_interrupted(run, code)


def _failed(code: int | None, text: str) -> bool:
    """Whether a training that came to no end failed by itself, from its exit code (None: unknown) and its output.

    Windows gives a process that somebody else ended an exit code above 0, too; only its own words tell them apart.
    """
    if code is None:
        return says_why(text)
    return 0 < code < CRASHED and (os.name == "posix" or says_why(text))


def _was_interrupted(run: Run, code: int | None) -> None:
    """Lets a killed training go on where that may help: not too often, and not where the last time came to nothing."""
    r, path = run.record, run.folder / CHECKPOINT
    saved = path.stat().st_mtime_ns if path.is_file() else 0
    goes_on = r.wanted and r.cuts < GOES_ON and (r.cuts == 0 or saved != r.cut_at)
    log.warning("training %s was interrupted (%s); %s", run.form.name, code, "goes on" if goes_on else "waits")
    finishing = goes_on and r.finishing
    run.note(pid=0, wanted=goes_on, finishing=finishing, cuts=r.cuts + 1, cut_code=code, cut_at=saved)


def _text(path: Path) -> str:
    """Of a file that may not be there."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _found(root: Path) -> list[Run]:
    runs = []
    for path in sorted(root.glob(f"*/{RECORD}")):
        try:
            record = Record(**json.loads(path.read_text(encoding="utf-8")))
            TrainingForm.model_validate(record.form)
            runs.append(Run(path.parent, record))
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s is damaged and left out: %s", path, error)
    return runs


def _work(form: TrainingForm, model: Path) -> float:
    """Size of a step: clips, pixels and frames."""
    made = form.format(model)
    return form.batch * made.width * made.height * made.frames

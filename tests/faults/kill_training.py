"""Kills a LoRA training of the studio with SIGKILL at random moments: its process, the studio's, or both.

    python tests/faults/kill_training.py --kills 20

A studio that starts again finds the training as it was left: it runs on, or begins again from its checkpoint. Where it
alone was killed, it was interrupted: it goes on by itself twice, then says what ended it and waits. At the end the LoRA
must be, bit for bit, that of a training that nobody disturbed, and lie in the library once. Exits with 1 if anything of
that fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from app.core import Core
from app.tabs.train import TrainingRoom
from app.training import GOES_ON, RECORD, Record
from app.training_form import Place, TrainingForm, arguments, command
from engine.training import checkpoint
from engine.training.lora.progress import CHECKPOINT, read_progress
from tests.app_parts import MODEL, OWNER, environment, python, studio
from tests.faults.verdict import verdict
from tests.unit.test_lora_training import PROFILE, clip

NAME = "zorb"
VICTIMS = ("studio", "training", "both")
PATIENCE = 300.0  # seconds for what a quiet machine does in ten


@dataclass
class Toll:
    """What a campaign came to. steps: of the checkpoint at each kill. waited: times it had to be asked."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VICTIMS, 0))
    steps: list[int] = field(default_factory=list)
    waited: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        dealt = ", ".join(f"{count} of {victim}" for victim, count in self.kills.items())
        return f"kills: {dealt}; at steps {self.steps}; waited {self.waited} times; {len(self.faults)} faults"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The studio's own process, killed at the end."""
    words = ("-m", "app.studio", "--no-browser", "--port", "0", "--data-dir", str(folder / "data"))
    quiet = subprocess.DEVNULL
    process = python(*words, "--model", str(folder / "model"), stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def campaign(folder: Path, victims: tuple[str, ...], seed: int, longest: float, steps: int = 12) -> Toll:
    """Trains, kills, starts again; then lets it end and compares.

    Args:
        victims: whom to kill, in this order.
        longest: seconds that may pass between a new checkpoint and the kill.
    """
    dice, toll = random.Random(seed), Toll()
    with _surroundings(folder):
        straight = _prepare(folder, steps)
        run = folder / "data" / "training" / NAME
        for victim in victims:
            with running(folder) as process:
                _until(lambda: _pid(run) or _record(run).done, f"no training before the kill of {victim}")
                _wait_for_progress(run, _step(run))
                time.sleep(dice.uniform(0, longest))
                if _record(run).done:
                    toll.faults.append(f"done before the kill of {victim}: too few steps for so many kills")
                    break
                toll.kills[victim] += 1
                toll.steps.append(_step(run))
                toll.faults += _kill(victim, process, run)
            record = _record(run)
            if not record.wanted and not record.done:
                toll.waited += 1
                with studio(folder / "data") as core:
                    toll.faults += _shown_as_interrupted(core)
        with running(folder):
            _until(lambda: _record(run).done or not _record(run).wanted, "the last training does not end")
        toll.faults += _differences(run, straight, folder)
    return toll


def _kill(victim: str, process: subprocess.Popen[bytes], run: Path) -> list[str]:
    """Kills, and looks at what that did at once."""
    pid = _pid(run)
    if victim in ("studio", "both"):
        process.send_signal(signal.SIGKILL)
        process.wait()
    if victim in ("training", "both") and pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _until(lambda: not _alive(pid), "SIGKILL did not end it")
    if victim == "training" and pid:
        # What was killed before the studio had opened counts as ended with the last studio: it goes on uncounted.
        _until(lambda: _goes_on(run, pid) or not _record(run).wanted, "the studio does not notice the kill")
        record = _record(run)
        if record.wanted and record.cuts > GOES_ON:
            return [f"it went on by itself after {record.cuts} kills"]
        if not record.wanted and not record.done and record.cuts != GOES_ON + 1:
            return [f"it waits after {record.cuts} kills, each of which had left a new checkpoint"]
    if victim == "studio" and pid and not _alive(pid) and not read_progress(run).file:
        return ["the training ended with its studio"]
    try:
        checkpoint.read(run / CHECKPOINT)
    except Exception as error:  # whatever a torn file raises
        return [f"torn checkpoint after the kill of {victim}: {error}"]
    return []


def _goes_on(run: Path, killed: int) -> bool:
    """Whether another process than the killed one is at it."""
    return _pid(run) not in (0, killed)


def _shown_as_interrupted(core: Core) -> list[str]:
    """How the page tells of a training that waits; then it is asked to go on."""
    found = []
    (shown,) = core.trainings.list()
    for language, text, how in (("en", "Interrupted at step", "signal"), ("zh", "已中断", "信号")):
        (told,) = TrainingRoom(core).answer({}, OWNER, language)["runs"]
        unknown = {"en": "its process was ended", "zh": "进程被终止"}[language]  # begun by an earlier studio
        if text not in told["text"] or not (f"{how} 9" in told["problem"] or unknown in told["problem"]):
            found.append(f"told as {told['text']!r}, {told['problem']!r}")
    if shown.state != "interrupted":
        found.append(f"shown as {shown.state} ({shown.problem!r})")
    core.trainings.go_on(shown.id)
    return found


def _differences(run: Path, straight: Path, folder: Path) -> list[str]:
    found = []
    if not _record(run).done:
        found.append(f"not done: {_record(run).problem}")
    ours, theirs = (checkpoint.read(path / CHECKPOINT) for path in (run, straight))
    for part in ("model", "average"):
        if not all(torch.equal(v, ours[part][n]) for n, v in theirs[part].items()):
            found.append(f"{part} differs from that of the undisturbed training")
    files = [next(path.glob("*.safetensors")).read_bytes() for path in (run, straight)]
    bodies = [data[8 + int.from_bytes(data[:8], "little") :] for data in files]
    if bodies[0] != bodies[1]:
        found.append("the LoRA differs from that of the undisturbed training")
    with studio(folder / "data") as core:
        (shown,) = core.trainings.list()
        if shown.state != "done":
            found.append(f"shown as {shown.state}")
    if len(list((folder / "loras").glob("*.safetensors"))) != 1:
        found.append("the library does not hold it once")
    found += [f"left over: {path.name}" for path in run.glob("*.part")]
    steps = [line["step"] for line in read_progress(run).curves]
    if steps != list(range(1, len(steps) + 1)) or len(steps) != read_progress(run).steps:
        found.append(f"the curves have steps {steps}")
    return found


def _prepare(folder: Path, steps: int) -> Path:
    """A model with a small profile, clips, the training as the page begins it, and one that nobody will disturb."""
    shutil.copytree(MODEL, folder / "model")
    (folder / "model" / "studio.json").write_text(json.dumps(PROFILE), encoding="utf-8")
    (folder / "clips").mkdir()
    for i in range(4):
        clip(folder / "clips" / f"{i}.mp4", 9, i)
        (folder / "clips" / f"{i}.txt").write_text(f"a {NAME} number {i}\n", encoding="utf-8")
    form = TrainingForm(
        name=NAME, data=str(folder / "clips"), trigger=NAME, steps=steps, rank=4, batch=2, rate=1e-3, seed=3,
        size="64x64", seconds=9 / 24, looks=f"a {NAME}",
    )  # fmt: skip
    hour = 3600.0  # a step is said to take so long that each one is saved
    with studio(folder / "data") as core:
        place = Place(folder / "model", core.trainings.place(NAME), folder / "loras", core.settings.current)
        core.trainings.begin(form, place, hour)
        alone = Place(folder / "model", folder / "straight", folder / "other-loras", core.settings.current)
    done = subprocess.run(
        command(arguments(form, alone, hour)), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return alone.folder


@contextlib.contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    """A cache of its own for every process."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    try:
        yield
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


def _record(run: Path) -> Record:
    return Record(**json.loads((run / RECORD).read_text(encoding="utf-8")))


def _pid(run: Path) -> int:
    """Of the training's process, while it runs."""
    pid = _record(run).pid
    return pid if pid and _alive(pid) else 0


def _alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _step(run: Path) -> int:
    path = run / CHECKPOINT
    return int(checkpoint.read(path)["step"]) if path.is_file() else 0


def _wait_for_progress(run: Path, before: int) -> None:
    _until(lambda: _step(run) > before or _record(run).done, "the training does not get on")


def _until(what: Callable[[], object], otherwise: str) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--longest", type=float, default=0.5, help="seconds between a checkpoint and the kill at most")
    args = p.parse_args()
    dice = random.Random(args.seed)
    victims = tuple(dice.choice(VICTIMS) for _ in range(args.kills))
    with tempfile.TemporaryDirectory(prefix="mova-kills-") as folder:
        toll = campaign(Path(folder), victims, args.seed, args.longest, steps=8 * args.kills)
    return verdict(toll, toll.faults)


if __name__ == "__main__":
    sys.exit(main())

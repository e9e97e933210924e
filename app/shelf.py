"""What the Models tab does: models fetched, paused, verified, mended, removed. Imports no torch.

One download and one check at a time, each in a thread of its own; the page looks at `rows` now and then.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from app.core import Core
from engine.downloads import Entry, Hub, Installed, Progress, Shelf
from engine.downloads.background import Background, State
from engine.downloads.manifest import Unfinished
from engine.downloads.shelf import catalogue_of
from engine.downloads.token import read_token
from engine.errors import Cancelled, MovaError, RequestError
from engine.folders import fault_of, read_places
from prompt_enhancer import catalogue as writers

log = logging.getLogger(__name__)

STOP_SECONDS = 20.0  # for a download to hear that it should end

Condition = Literal[
    "absent", "asking", "waiting", "running", "paused", "failed", "verified", "unchecked", "damaged", "checking"
]


@dataclass(frozen=True)
class Check:
    """A model whose every byte is read, or was.

    Attributes:
        bad: its files that are not what they must be; None while it runs, and where it did not come to its end.
        message: why it could not be done.
    """

    name: str = ""
    running: bool = False
    progress: Progress | None = None
    bad: tuple[str, ...] | None = None
    message: str = ""


@dataclass(frozen=True)
class Row:
    """One model as the tab shows it.

    Attributes:
        entry: of the catalogue, None for another model that is here.
        condition: "verified": as the hub promised; "unchecked": here, but nothing is known to compare it with.
        size: bytes on the disk, or to expect. done: bytes that have arrived.
        place: its folder, or the one it would go to. ours: whether removing it deletes its files.
        may: what can be done with it now, of "get", "pause", "cancel", "verify", "stop", "repair", "remove", "use".
        used: it makes the next clip.
    """

    name: str
    entry: Entry | None
    kind: str
    condition: Condition
    size: int
    place: Path
    ours: bool
    licence: str = ""
    done: int = 0
    progress: Progress | None = None
    message: str = ""
    may: tuple[str, ...] = ()
    used: bool = False


class ModelRoom:
    """All models of this machine, and what is being done with them. All methods may be called from any thread."""

    def __init__(self, core: Core, shelf: Shelf | None = None) -> None:
        self._core = core
        self.shelf = shelf or Shelf()
        self._downloads = Background(self.shelf, self._hub)
        self._lock = threading.Lock()
        self._check, self._stop = Check(), threading.Event()
        self._dismissed: State | None = None  # how a download ended whose rest was deleted

    def _hub(self, stop: threading.Event) -> Hub:
        return Hub(token=read_token(self.shelf.data), offline=self._core.options.offline, stop=stop)

    # ---- what there is

    @property
    def fetching(self) -> bool:
        """Whether a download is under way: the next one has to wait."""
        return self._downloads.state().busy

    @property
    def busy(self) -> bool:
        """Whether something is under way that the page should follow."""
        return self.fetching or self._check.running

    def rows(self) -> list[Row]:
        """The catalogue, then other models that are here, then the enhancer's other files."""
        state, used = self._downloads.state(), self._used()
        listed = [self._row(*known, state, used) for known in catalogue_of(self.shelf)]
        names = {row.name for row in listed}
        others = [one for one in self.shelf.installed() if one.name not in names]
        rows = [*listed, *(self._row(None, one, None, state, used) for one in others)]
        names = {row.name for row in rows if row.kind == "enhancer"}
        for name, chosen in writers.installed().items():
            if name not in names:
                size = chosen.path.stat().st_size
                rows.append(Row(name, None, "enhancer", "unchecked", size, chosen.path.parent, False))
        return rows

    def _used(self) -> str:
        try:
            return self._core.model_name().lower()
        except MovaError:
            return ""

    def _row(
        self, entry: Entry | None, here: Installed | None, begun: Unfinished | None, state: State, used: str
    ) -> Row:
        name = entry.name if entry else here.name if here else ""
        kind = entry.kind if entry else (here.manifest.kind if here and here.manifest else "mova")
        row = self._resting(name, entry, kind, here, begun)
        row = self._checked(replace(row, used=bool(here) and kind != "enhancer" and name.lower() == used))
        if state.name.lower() == name.lower() and state is not self._dismissed:
            row = _on_its_way(row, state)
        return replace(row, may=self._may(row, here))

    def _resting(
        self, name: str, entry: Entry | None, kind: str, here: Installed | None, begun: Unfinished | None
    ) -> Row:
        """A model that nothing is done with."""
        licence = entry.licence if entry else here.manifest.licence if here and here.manifest else ""
        if here is not None:
            fault = fault_of(here.folder)
            good: Condition = "verified" if here.manifest and here.manifest.verified else "unchecked"
            state: Condition = "damaged" if fault else good
            return Row(name, entry, kind, state, here.size, here.folder, here.ours, licence, here.size, message=fault)
        place = self.shelf.data / "enhancer" if kind == "enhancer" else self.shelf.folder
        if begun is not None:
            return Row(name, entry, kind, "paused", begun.size, begun.folder.parent.parent, True, licence, begun.done)
        return Row(name, entry, kind, "absent", entry.size if entry else 0, place, True, licence)

    def _checked(self, row: Row) -> Row:
        """What a running check, or the last one, says about it."""
        check = self._check
        if check.name != row.name or row.condition in ("absent", "paused"):
            return row
        if check.running:
            return replace(row, condition="checking", progress=check.progress)
        if check.bad:
            return replace(row, condition="damaged", message=", ".join(check.bad[:5]))
        return replace(row, message=row.message or check.message)

    def _may(self, row: Row, here: Installed | None) -> tuple[str, ...]:
        match row.condition:
            case "absent":
                return ("get",)
            case "asking" | "waiting" | "running":
                return ("pause",) if here else ("pause", "cancel")
            case "paused" | "failed":
                return ("get",) if here or not row.done else ("get", "cancel")
            case "checking":
                return ("stop",)
        assert here is not None
        actions = [] if row.used or row.kind == "enhancer" or row.condition == "damaged" else ["use"]
        if here.manifest and not self._check.running:
            actions.append("verify")
        mendable = row.condition == "damaged" and here.ours and here.manifest and here.manifest.repository
        if mendable:
            actions.append("repair")
        known = here.ours or here.name in read_places(self.shelf.data).elsewhere
        return (*actions, "remove") if known else tuple(actions)

    # ---- what can be done

    def get(self, name: str) -> None:
        """Begins a download, goes on with one, or mends a damaged model.

        Raises:
            RequestError: another one is under way.
        """
        wanted = name
        for model in self.shelf.installed():
            if model.name == name and model.manifest and model.manifest.repository:
                wanted = model.manifest.repository  # one of the user's own choice is known by that only
        known = next((e.name for e, _, _ in catalogue_of(self.shelf) if wanted in (e.name, e.repository)), wanted)
        self._forget_check(name)
        if not self._downloads.start(known):
            raise RequestError(f"{self._downloads.state().name} is being fetched; one download at a time")

    def pause(self) -> None:
        """Ends the download soon; what has arrived stays."""
        self._downloads.pause()

    def cancel(self, name: str) -> str:
        """Ends a download and deletes what has arrived; returns what was deleted.

        Raises:
            RequestError: it did not stop yet, or it has become whole in the meantime.
        """
        if self._downloads.state().name.lower() == name.lower():
            self._downloads.pause()
            if self._downloads.wait(STOP_SECONDS).busy:
                raise RequestError(f"the download of {name} is still ending; try again in a moment")
        if any(model.name == name for model in self.shelf.installed()):
            raise RequestError(f"{name} is whole already; remove it instead")
        self._dismissed = self._downloads.state()
        if not any(one.name == name for one in self.shelf.unfinished()):
            return name  # nothing of it had arrived
        return self.shelf.remove(name)[0]

    def remove(self, name: str) -> tuple[str, int]:
        """Deletes a model; the worker gives it up first. Returns what was removed and the bytes that are free again.

        Raises:
            RequestError: a clip is being made with it, it is being fetched or checked, or it is a part of the studio.
        """
        status = self._core.supervisor.status()
        if status.model == name and status.job is not None:
            raise RequestError(f"a clip is being made with {name}; wait until it is done, or cancel it")
        if self._check.running and self._check.name == name:
            raise RequestError(f"{name} is being checked; stop that first")
        state = self._downloads.state()
        if state.busy and state.name.lower() == name.lower():
            raise RequestError(f"{name} is being fetched; pause that first")
        if status.model == name:
            self._core.supervisor.free()
        if self._core.settings.current.model == name:
            self._core.settings.change(model="")  # the bundled one makes the next clip
        self._forget_check(name)
        return self.shelf.remove(name)

    def use(self, name: str) -> None:
        """New clips are made with it.

        Raises:
            RequestError: the studio was started with a model of its own.
            CheckpointError: it is not installed.
        """
        if self._core.options.model:
            raise RequestError(f"the studio was started with --model {self._core.options.model}; start it without")
        self._core.model_name(name)
        self._core.settings.change(model=name)

    def choose_folder(self, text: str) -> None:
        """New models go there from now on.

        Raises:
            RequestError: it cannot be written to, or is no whole path.
        """
        folder = Path(text.strip()).expanduser()
        if not text.strip() or not folder.is_absolute():
            raise RequestError(f"{text.strip()!r} is no whole path; it looks like {self.shelf.folder}")
        try:
            self.shelf.choose_folder(folder)
        except OSError as error:
            raise RequestError(f"models cannot be kept in {folder}: {error.strerror or error}") from None

    # ---- checking

    def verify(self, name: str) -> None:
        """Begins to read every byte of a model.

        Raises:
            RequestError: another one is being checked.
        """
        with self._lock:
            if self._check.running:
                raise RequestError(f"{self._check.name} is being checked; one at a time")
            self._check, self._stop = Check(name, running=True), threading.Event()
            stop = self._stop
        threading.Thread(target=self._verify, args=(name, stop), daemon=True).start()

    def stop_check(self) -> None:
        """Ends the check that runs; nothing is known anew."""
        self._stop.set()

    def _verify(self, name: str, stop: threading.Event) -> None:
        def report(progress: Progress) -> None:
            self._check = replace(self._check, progress=progress)

        done = Check(name)
        try:
            done = replace(done, bad=tuple(self.shelf.verify(name, report, stop)))
        except Cancelled:
            done = Check()
        except (MovaError, OSError) as error:
            done = replace(done, message=str(error))
        except Exception:
            log.exception("the check of %s ended by a defect", name)
            done = replace(done, message="it ended unexpectedly; the log tells more")
        self._check = done

    def _forget_check(self, name: str) -> None:
        with self._lock:
            if self._check.name == name and not self._check.running:
                self._check = Check()

    def checked_good(self, name: str) -> bool:
        """Whether the last check read all of this model and found nothing."""
        return self._check.name == name and self._check.bad == ()


def _on_its_way(row: Row, state: State) -> Row:
    """A model whose download runs, or has failed. A paused one is seen from what lies on the disk."""
    if state.phase == "failed":
        return replace(row, condition="failed", message=state.message)
    if state.phase not in ("asking", "waiting", "running"):
        return row
    size = state.plan.size if state.plan else row.size
    done = state.progress.done if state.progress else state.plan.present if state.plan else row.done
    return replace(row, condition=state.phase, progress=state.progress, size=size, done=done)

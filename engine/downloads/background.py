"""A download that runs behind a page: started, paused, watched. One at a time, in a thread of this process.

It needs no care at the end of the process: what has arrived stays, and starting the same model again goes on there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engine.downloads.hub import Hub
from engine.downloads.manifest import Plan
from engine.downloads.shelf import Shelf
from engine.downloads.token import read_token
from engine.downloads.transfer import Progress
from engine.errors import Cancelled, MovaError

log = logging.getLogger(__name__)

Phase = Literal["idle", "asking", "waiting", "running", "done", "paused", "failed"]


@dataclass(frozen=True)
class State:
    """What a page shows.

    Attributes:
        phase: "asking" the hub what it has; "waiting" for another process that changes the same folder; "running";
            and how it ended.
        name: of the model, "" where none was ever asked for.
        plan: sizes and place, once they are known.
        progress: the last report while running.
        message: why it failed, for the user; where the model is when done.
    """

    phase: Phase = "idle"
    name: str = ""
    plan: Plan | None = None
    progress: Progress | None = None
    message: str = ""

    @property
    def busy(self) -> bool:
        """Whether something is under way."""
        return self.phase in ("asking", "waiting", "running")


class Background:
    """Downloads for one shelf. All methods return at once, and may be called from any thread."""

    def __init__(self, shelf: Shelf, hub: Callable[[threading.Event], Hub] | None = None) -> None:
        """
        Args:
            hub: makes the connection, which ends when the event is set; the hub itself with the kept token if None.
        """
        self._shelf = shelf
        self._hub = hub or (lambda stop: Hub(token=read_token(shelf.data), stop=stop))
        self._lock = threading.Lock()
        self._state = State()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def state(self) -> State:
        """How far it is now."""
        with self._lock:
            return self._state

    def start(self, name: str, to: Path | None = None) -> bool:
        """Begin or continue a model; False where another one is under way."""
        with self._lock:
            if self._state.busy:
                return False
            self._state, self._stop = State("asking", name), threading.Event()
            self._thread = threading.Thread(target=self._run, args=(name, to, self._stop), daemon=True)
            self._thread.start()
            return True

    def pause(self) -> None:
        """Stop soon; what has arrived is kept."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> State:
        """The state after the download has ended, or after so many seconds."""
        if self._thread:
            self._thread.join(seconds)
        return self.state()

    def _run(self, name: str, to: Path | None, stop: threading.Event) -> None:
        try:
            with self._hub(stop) as hub:
                plan = self._shelf.plan(name, hub, to)
                self._tell(phase="running", plan=plan)
                model = self._shelf.get(plan, hub, self._report, on_wait=lambda: self._tell(phase="waiting"))
            self._tell(phase="done", message=str(model.folder))
        except Cancelled:
            self._tell(phase="paused")
        except (MovaError, OSError) as error:
            self._tell(phase="failed", message=str(error))
        except Exception:
            log.exception("the download of %s ended by a defect", name)
            self._tell(phase="failed", message="it ended unexpectedly; the log tells more")

    def _report(self, progress: Progress) -> None:
        self._tell(phase="running", progress=progress)

    def _tell(self, **changes: object) -> None:
        with self._lock:
            self._state = replace(self._state, **changes)  # type: ignore[arg-type]

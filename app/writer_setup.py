"""Builds llama-cpp-python, which runs the enhancer's language models, behind the studio's back after its first start.

The first clip does not wait for it: rules write prompts until it is there, and from then on the models do, without
a restart. The building is set-up's own work (`bootstrap.later`), in a process of its own that ends with the studio; a
build that was cut off begins anew at the next start, and the environment is touched only when all is built.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from bootstrap import later
from bootstrap.setup import given_up, has
from bootstrap.store import Layout, read_stamp
from engine.downloads.hub import is_offline

log = logging.getLogger(__name__)

GROUP = "enhancer"
BELOW_NORMAL = 0x4000  # Windows' BELOW_NORMAL_PRIORITY_CLASS; elsewhere the process makes itself nice
LAST_WORDS = 4000  # characters of a failed build that go to the log

Phase = Literal["there", "absent", "offline", "waiting", "building", "done", "failed"]


@dataclass(frozen=True)
class State:
    """How far it is.

    Attributes:
        phase: "there": nothing to do; "absent": this environment is not set-up's, whoever made it looks after it;
            "offline": the network may not be used; "waiting": not begun yet, or another set-up is running;
            "building"; "done": just now; "failed": could not be built here.
        seconds: since the building began.
    """

    phase: Phase
    seconds: float = 0.0

    @property
    def told(self) -> bool:
        """Whether the user should hear of it."""
        return self.phase not in ("there", "absent")

    @property
    def moving(self) -> bool:
        return self.phase in ("waiting", "building")


class WriterSetup:
    """One background set-up of the enhancer's group. All methods may be called from any thread."""

    def __init__(self, offline: bool = False, layout: Layout | None = None, prefix: str = sys.prefix) -> None:
        """
        Args:
            layout: of the project's folder. prefix: of the environment that this process runs in.
        """
        self._layout = layout or Layout(later.ROOT)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._began = 0.0
        self._phase: Phase = self._found(offline or is_offline(), Path(prefix))

    def _found(self, offline: bool, prefix: Path) -> Phase:
        env = self._layout.env
        stamp = read_stamp(env)
        if stamp is None or prefix.resolve() != env.resolve() or not self._layout.lock_file(GROUP).is_file():
            return "absent"
        if has(self._layout, stamp, GROUP):
            return "there"
        if given_up(self._layout, GROUP):
            return "failed"
        return "offline" if offline else "waiting"

    def state(self) -> State:
        """How far it is now."""
        with self._lock:
            seconds = time.monotonic() - self._began if self._phase == "building" else 0.0
            return State(self._phase, seconds)

    def start(self) -> None:
        """Begins, where there is something to do; returns at once."""
        with self._lock:
            if self._phase != "waiting" or self._process is not None or self._stopped:
                return
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bootstrap.later", GROUP],
                cwd=self._layout.root,
                env=_environment(self._layout.root),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C is for the studio, which then ends it
                creationflags=BELOW_NORMAL if sys.platform == "win32" else 0,
            )
            threading.Thread(target=self._follow, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        """Ends a build that runs, compilers and all; the environment stays as it was."""
        with self._lock:
            self._stopped = True
            process = self._process
        if process is not None and process.poll() is None:
            _end_tree(process.pid)
            process.wait()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        said = ""
        with process.stderr:
            for line in process.stderr:
                said = (said + line)[-LAST_WORDS:]
                if line.startswith(later.STARTED):
                    log.info("the enhancer's language model is being built in the background")
                    self._tell("building")
        code = process.wait()
        if self._stopped:
            return
        if code == 0:
            log.info("the enhancer's language model is ready after %.0f s", self.state().seconds)
        else:
            log.warning("the enhancer's language model could not be built; rules write instead:\n%s", said.strip())
        self._tell("done" if code == 0 else "failed")

    def _tell(self, phase: Phase) -> None:
        with self._lock:
            self._phase = phase
            self._began = time.monotonic()


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}


def _end_tree(pid: int) -> None:
    """Ends a process and all that it started; itself first, or it would take the end of the others for a failure."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue  # it ended by itself meanwhile
    psutil.wait_procs(family, timeout=10)

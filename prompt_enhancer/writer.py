"""The caller's end of the model process: starts it, asks it, keeps it warm, ends it. Never dies with it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from prompt_enhancer.chat import Part
from prompt_enhancer.request import EnhancerCancelled, ModelError

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
KEEP_SECONDS = 300.0  # an unused model is given back after this long
SMALL = 64_000_000  # bytes of a file whose model runs on one thread
LOOK_TOKENS = 120  # of a picture's description
TICK = 0.05
Cancelled = Callable[[], bool]  # asked again and again; True stops the work
CANCEL_SECONDS = 1.0  # a process that does not stop by itself is ended
NOT_INSTALLED = (
    "Rules write the prompt until llama-cpp-python is built, which the studio does by itself after its first start. "
    "Where that fails it needs a C++ compiler (Debian, Ubuntu: apt install g++; Windows: Visual Studio Build Tools; "
    "macOS: xcode-select --install), and then: python launch.py setup"
)


def missing() -> str:
    """Why no model can run here, and how to change that; empty if one can."""
    return "" if importlib.util.find_spec("llama_cpp") else NOT_INSTALLED


def _cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 2


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Reply:
    """What a model wrote. reason: end, tokens (the cap), time or cancelled."""

    text: str
    tokens: int
    reason: str
    seconds: float


@dataclass(frozen=True)
class Loaded:
    """What the process tells of its model. chat: name of its family's format; context: tokens."""

    chat: str
    context: int
    seconds: float


class Writer:
    """One warm model in a process of its own. Safe to use from several threads; one question at a time."""

    def __init__(self, threads: int | None = None, memory: int | None = None) -> None:
        """threads: of the model, all of our cores but one at most; memory: bytes allowed beside the file."""
        self.threads = threads or max(1, min(8, _cores() - 1))
        self.memory = memory if memory is not None else 1 << 30
        self.lock = threading.RLock()
        self.process: subprocess.Popen[str] | None = None
        self.errors: IO[bytes] | None = None
        self.answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.files: tuple[Path, Path | None] | None = None
        self.loaded: Loaded | None = None
        self.idle: threading.Timer | None = None

    @contextlib.contextmanager
    def turn(self, deadline: float, cancelled: Cancelled | None = None) -> Iterator[None]:
        """Waits until nobody else is asking; nobody else asks, and no other model is loaded, until the end.

        Raises:
            ModelError: it took too long. EnhancerCancelled: `cancelled` said so.
        """
        while not self.lock.acquire(timeout=TICK):
            if cancelled and cancelled():
                raise EnhancerCancelled("the suggestion was stopped")
            if time.monotonic() > deadline:
                raise ModelError("the model was busy with other suggestions")
        try:
            yield
        finally:
            self.lock.release()

    def load(
        self,
        path: Path,
        exact: bool,
        deadline: float,
        cancelled: Cancelled | None = None,
        projector: Path | None = None,
    ) -> Loaded:
        """Makes sure this file is loaded.

        Args:
            exact: keep the attention cache in float32. deadline: on time.monotonic's clock.
            projector: the picture half of a vision model.

        Raises:
            ModelError: it cannot be; the message says why. EnhancerCancelled: `cancelled` said so.
        """
        with self.lock:
            self._rest()
            if self.files == (path, projector) and self.process and self.process.poll() is None and self.loaded:
                return self.loaded
            self.release()
            if reason := missing():
                raise ModelError(reason)
            size = _size(path) + (_size(projector) if projector else 0)
            self._start()
            # llama.cpp's threads wait for each other by spinning: a small model is faster, and never stuck, with one
            threads = self.threads if size > SMALL else 1
            order = {"load": str(path), "threads": threads, "exact": exact, "memory": self.memory}
            try:
                self._tell(order | {"projector": str(projector) if projector else None})
                answer = self._next(deadline, cancelled, int(size * 1.3) + self.memory, "loading")
                if "loaded" not in answer:
                    raise ModelError(str(answer.get("error", "the model's process made no sense")))
                self.files, self.loaded = (path, projector), Loaded(**answer["loaded"])
            except BaseException:
                self.release()
                raise
            return self.loaded

    def write(
        self,
        parts: list[Part],
        grammar: str,
        most: int,
        deadline: float,
        temperature: float = 0.0,
        seed: int = 0,
        cancelled: Cancelled | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Asks the loaded model. `on_text` gets the text so far after each piece.

        Raises:
            ModelError: the process died or did not answer in time. EnhancerCancelled: `cancelled` said so.
        """
        order = {"parts": parts, "grammar": grammar, "most": most, "temperature": temperature, "seed": seed}
        return self._ask("write", order, deadline, cancelled, on_text)

    def look(
        self,
        path: Path,
        projector: Path,
        image: Path,
        task: str,
        grammar: str,
        deadline: float,
        cancelled: Cancelled | None = None,
    ) -> Reply:
        """Loads a vision model and asks it about a picture file.

        Raises:
            ModelError: it cannot be loaded, died or did not answer in time. EnhancerCancelled: `cancelled` said so.
        """
        with self.lock:
            self.load(path, False, deadline, cancelled, projector)
            order = {"image": str(Path(image).absolute()), "task": task, "grammar": grammar, "most": LOOK_TOKENS}
            return self._ask("look", order, deadline, cancelled, None)

    def _ask(
        self,
        kind: str,
        order: dict[str, Any],
        deadline: float,
        cancelled: Cancelled | None,
        on_text: Callable[[str], None] | None,
    ) -> Reply:
        with self.lock:
            self._rest()
            self._tell({kind: order | {"seconds": max(0.1, deadline - time.monotonic())}})
            text: list[str] = []
            try:
                while True:
                    answer = self._next(deadline + 2.0, cancelled, None, "writing")
                    if "piece" in answer:
                        text.append(answer["piece"])
                        if on_text:
                            on_text("".join(text))
                    elif "done" in answer:
                        done = answer["done"]
                        return Reply("".join(text), done["tokens"], done["reason"], done["seconds"])
                    else:
                        raise ModelError(f"the model stopped: {answer.get('error', 'no reason given')}")
            except BaseException:
                self.release()  # nobody knows what it would say next
                raise
            finally:
                self._idle()

    def logits(self, tokens: list[int], seconds: float = 60.0) -> list[float]:
        """Logits after these tokens; for tests of the export."""
        with self.lock:
            self._tell({"logits": tokens})
            answer = self._next(time.monotonic() + seconds, None, None, "computing")
            if "error" in answer:
                raise ModelError(answer["error"])
            return list(answer["logits"])

    def release(self) -> None:
        """Ends the process and frees its memory; the next question starts another."""
        with self.lock:
            self._rest()
            process, self.process, self.files, self.loaded = self.process, None, None, None
            if process is None:
                return
            with contextlib.suppress(OSError, ValueError):
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, self.errors):
                if pipe:
                    with contextlib.suppress(OSError, ValueError):
                        pipe.close()

    def _start(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self.errors = tempfile.TemporaryFile()
        self.answers = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "prompt_enhancer.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            encoding="utf-8",
            errors="replace",
        )
        threading.Thread(target=_read, args=(self.process.stdout, self.answers), daemon=True).start()

    def _tell(self, order: dict[str, Any]) -> None:
        if self.process is None or self.process.stdin is None:
            raise ModelError("no model is loaded")
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        except (OSError, ValueError):
            raise ModelError(self._obituary()) from None

    def _next(self, deadline: float, cancelled: Cancelled | None, memory: int | None, doing: str) -> dict[str, Any]:
        """The next answer; watches time, memory, the cancel and whether the process lives."""
        cancelled_at = 0.0
        checked = time.monotonic()
        while True:
            try:
                answer = self.answers.get(timeout=TICK)
            except queue.Empty:
                answer = {}
            now = time.monotonic()
            if answer is None:
                raise ModelError(self._obituary())
            if cancelled and not cancelled_at and cancelled():
                cancelled_at = now
                self._tell({"cancel": True})
            if cancelled_at and ("done" in answer or now - cancelled_at > CANCEL_SECONDS):
                raise EnhancerCancelled("the suggestion was stopped")
            if answer and not cancelled_at:
                return answer
            if now > deadline:
                raise ModelError(f"the model took too long ({doing})")
            if memory and now - checked > 0.5:
                checked = now
                self._watch(memory)

    def _watch(self, memory: int) -> None:
        """Where the system does not bound memory by itself, we do."""
        if self.process is None:
            return
        with contextlib.suppress(psutil.Error):
            used = psutil.Process(self.process.pid).memory_info().rss
            if used > memory:
                raise ModelError(f"the model needs more than {memory / 1e9:.1f} GB of memory")

    def _obituary(self) -> str:
        """How the process ended, for people."""
        if self.process is None:
            return "the model's process is gone"
        try:
            code = self.process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            return "the model's process no longer answers"
        last = ""
        if self.errors:
            with contextlib.suppress(OSError, ValueError):
                self.errors.seek(max(0, os.fstat(self.errors.fileno()).st_size - 2000))
                lines = self.errors.read().decode("utf-8", errors="replace").strip().splitlines()
                last = f": {lines[-1].strip()[:200]}" if lines else ""
        how = f"signal {-code}" if code < 0 else f"code {code}"
        return f"the model's process ended with {how}{last}; the file may be damaged"

    def _rest(self) -> None:
        if self.idle:
            self.idle.cancel()
            self.idle = None

    def _idle(self) -> None:
        """Gives the model back when nobody asks for a while."""
        self._rest()
        if self.process:
            self.idle = threading.Timer(KEEP_SECONDS, self.release)
            self.idle.daemon = True
            self.idle.start()


def _read(pipe: Any, answers: queue.Queue[dict[str, Any] | None]) -> None:
    """Passes a process's lines on until it ends; what is no JSON object is not an answer."""
    with contextlib.suppress(OSError, ValueError):
        for line in pipe:
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
                if isinstance(answer, dict):
                    answers.put(answer)
    answers.put(None)

"""Keeps one worker process at work: starts it, feeds it jobs, hears its progress, ends it when it idles or hangs.

All torch lives in the worker (`app/worker.py`). They talk in lines of JSON over the worker's stdin and stdout. When
this process dies, the worker's stdin ends and it leaves by itself.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import queue as queues
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from app import derived
from app.errors import NotFound
from app.guard import Visitor, shown
from app.jobs import Job, JobQueue, Progress
from app.library import LOCAL, Library
from app.order import Order
from app.paths import StudioPaths
from app.settings import SettingsFile
from app.spec import JobSpec
from app.store import StoreStuck
from engine.errors import MovaError, OutputError
from engine.folders import find_model

log = logging.getLogger(__name__)
worker_log = logging.getLogger("app.worker")

ROOT = Path(__file__).resolve().parents[1]
TICK = 0.05  # seconds between looks at queue and clock while nothing is heard
GRACE = 5.0  # a cancelled job must have stopped after that, or after two of its steps if they are longer


@dataclass(frozen=True)
class Preview:
    """How the running clip looks and sounds so far.

    Attributes:
        picture: bytes of a small WebP, a guess from the latents. envelope: loudness over time, 0 to 1, 96 values.
        step: after which it was made.
    """

    picture: bytes
    envelope: tuple[float, ...]
    step: int


@dataclass(frozen=True)
class WorkerStatus:
    """Attributes:
    state: "off" (no process), "starting", "idle" or "busy".
    pid: of the process. model: the one that is loaded, "" for none. job: the one it runs.
    device: such as "cuda" or "cpu", "" while unknown. memory: bytes that it uses. deaths: since the start.
    """

    state: str
    pid: int | None = None
    model: str = ""
    job: str | None = None
    device: str = ""
    memory: int = 0
    deaths: int = 0


class _Worker:
    """One worker process and the threads that listen to it. `heard` gets (this, message); a last None says it ended."""

    def __init__(self, heard: queues.Queue[tuple[_Worker | None, dict[str, Any] | None]], offline: bool = True) -> None:
        environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONNOUSERSITE="1", PYTHONUNBUFFERED="1")
        if offline:  # models are folders on this machine: nothing is ever fetched by a running job
            environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "app.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=os.name == "posix",  # Ctrl-C is for the studio; and its children can be ended with it
        )
        self.job: Job | None = None
        self.model = ""
        self.device = ""
        self.ready = False
        self.last_words = ""
        self._heard = heard
        for target, stream in ((self._listen, self.process.stdout), (self._collect, self.process.stderr)):
            threading.Thread(target=target, args=(stream,), daemon=True).start()

    def tell(self, **message: Any) -> None:
        """Sends a line; a worker that is gone is noticed by its listener."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def end(self, timeout: float) -> None:
        """Asks it to leave, then makes it."""
        self.tell(do="quit")
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it and whatever it started, at once."""
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def how_it_ended(self) -> str:
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{how}: {self.last_words}" if code > 0 and self.last_words else how

    def _listen(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                try:
                    message = json.loads(raw)
                except ValueError:
                    continue  # cut short by its death
                self._heard.put((self, message))
        self.process.wait()
        self._heard.put((self, None))

    def _collect(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip()
                if line.strip():
                    worker_log.info("%s", line[:2000])
                    self.last_words = line.strip()[:200]


def _told(job: Job, reason: str) -> str:
    """Why a job failed, as whoever asked for it may read it."""
    return shown(reason, Visitor(job.owner, "owner" if job.owner == LOCAL else "guest"))


class Supervisor:
    """Runs jobs from the queue until it is stopped. Safe to use from any thread."""

    def __init__(self, queue: JobQueue, library: Library, paths: StudioPaths, settings: SettingsFile) -> None:
        """Starts nothing yet."""
        self._queue, self._library, self._paths, self._settings = queue, library, paths, settings
        self._heard: queues.Queue[tuple[_Worker | None, dict[str, Any] | None]] = queues.Queue()
        self._worker: _Worker | None = None
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._previews: dict[str, Preview] = {}
        self._pace: list[float] = []  # seconds of the present job's last steps
        self._cancel_sent: float | None = None
        self._unheard: tuple[_Worker, dict[str, Any] | None] | None = None  # what could not be written down yet
        self._seen = -1  # the queue's revision when it was last looked at
        self._last_work = time.monotonic()
        self._deaths = 0
        self.gate: Callable[[], bool] = lambda: False  # true: something else has the card, and no job begins

    def start(self, warm: bool = True) -> None:
        """Begins to run jobs. `warm` starts the worker at once, so that its libraries are loaded when a job comes."""
        if warm:
            with self._lock:
                self._ensure_worker()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()
        threading.Thread(target=self._wake, name="supervisor-wake", daemon=True).start()

    def stop(self, timeout: float = 10.0) -> None:
        """Ends the worker. A running job goes back to the queue and runs again after the next start."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)
        with self._lock:
            if self._worker is not None:
                self._worker.end(timeout)
                self._worker = None

    def status(self) -> WorkerStatus:
        with self._lock:
            worker = self._worker
            if worker is None:
                return WorkerStatus("off", deaths=self._deaths)
            job = worker.job.id if worker.job else None
            state = "busy" if job else "idle" if worker.ready else "starting"
            try:
                memory = int(psutil.Process(worker.process.pid).memory_info().rss)
            except psutil.Error:
                memory = 0
            return WorkerStatus(state, worker.process.pid, worker.model, job, worker.device, memory, self._deaths)

    def preview(self, job_id: str) -> Preview | None:
        """The latest preview of the running job; None for others. The caller checks whose job it is."""
        return self._previews.get(job_id)

    def free(self) -> None:
        """Ends the worker if it is idle: all of its memory is free. The next job starts another."""
        with self._lock:
            worker = self._worker
            if worker is not None and worker.job is None:
                self._worker = None
                worker.end(GRACE)

    # ---- the loop

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._once()
            except (StoreStuck, OutputError) as error:  # a full disk: jobs must not stop for good
                log.warning("%s; trying again", error)
                time.sleep(1.0)
            except Exception:
                log.exception("the supervisor stumbled and goes on")
                time.sleep(1.0)

    def _wake(self) -> None:
        """Ends the loop's wait when something changes in the queue: a cancel must not wait for the next tick."""
        revision = self._queue.revision
        while not self._stopping.is_set():
            now = self._queue.wait(revision, 1.0)
            if now != revision and self._heard.empty():
                self._heard.put((None, None))
            revision = now

    def _once(self) -> None:
        """Hears at most one message, then looks at the queue and the clock."""
        try:
            worker, message = self._unheard or self._heard.get(timeout=TICK)
        except queues.Empty:
            pass
        else:
            self._unheard = None
            with self._lock:
                if worker is not None and worker is self._worker:
                    try:
                        if message is None:
                            self._died(worker)
                        else:
                            self._hear(worker, message)
                    except (StoreStuck, OutputError):
                        self._unheard = worker, message  # how a job ended is not lost: it is written down later
                        raise
        with self._lock:
            self._look_at_queue()
            self._look_at_clock()

    def _ensure_worker(self) -> _Worker:
        if self._worker is None:
            self._worker = _Worker(self._heard)
            log.info("worker started (process %d)", self._worker.process.pid)
            self._last_work = time.monotonic()
        return self._worker

    def _look_at_queue(self) -> None:
        """Starts a job when nothing runs; passes a cancel on when it does."""
        revision = self._queue.revision
        if revision == self._seen:
            return
        current = self._worker.job if self._worker else None
        if current is not None:
            if self._cancel_sent is None and self._queue.get(current.id).cancelling:
                self._cancel_sent = time.monotonic()
                assert self._worker is not None
                self._worker.tell(do="cancel", job=current.id)
            self._seen = revision
            return
        job = None if self.gate() else self._queue.claim()
        if job is None:
            self._seen = revision
            return
        try:
            order = self._order(job)
        except MovaError as error:
            self._queue.fail(job.id, _told(job, str(error)))
            return
        worker = self._ensure_worker()
        worker.job, worker.model = job, str(job.spec.model or "")
        self._pace, self._cancel_sent, self._last_work = [], None, time.monotonic()
        worker.tell(**order.to_message())
        log.info("job %s begins (attempt %d): %s", job.id[:8], job.attempts, job.spec.prompt[:80])

    def _order(self, job: Job) -> Order:
        """The job with its files.

        Raises:
            MovaError: its model or a clip that it names is gone.
        """
        spec, settings = job.spec, self._settings.current
        source = spec.extend_of or (spec.given.clip if spec.given else None)
        clip_path = latents = None
        if source is not None:
            try:
                clip = self._library.get(source)
            except NotFound:
                raise NotFound("the clip that this one is made from is gone; choose another") from None
            clip_path = self._library.path(clip)
            kept = self._paths.preview(clip.id) / derived.LATENTS
            latents = kept if spec.given and kept.is_file() and clip.spec.extend_of is None else None
        return Order(
            job=job.id,
            owner=job.owner,
            spec=spec,
            data=self._paths.root,
            model=find_model(spec.model).absolute(),
            device=settings.device,
            precision=settings.precision,
            keep_latents=settings.keep_latents,
            image=self._paths.upload(spec.image) if spec.image else None,
            last_image=self._paths.upload(spec.last_image) if spec.last_image else None,
            source=clip_path,
            source_latents=latents,
            loras=Path(settings.lora_folder) if settings.lora_folder else None,
            memory=settings.memory,
        )

    def _look_at_clock(self) -> None:
        """Ends a worker that idles too long, or does not stop when asked."""
        worker, now = self._worker, time.monotonic()
        if worker is None:
            return
        if worker.job is not None:
            patience = max([GRACE, *(2 * pace for pace in self._pace)])
            if self._cancel_sent is not None and now - self._cancel_sent > patience:
                log.warning("job %s did not stop within %.0f s; its worker is ended", worker.job.id[:8], patience)
                worker.kill()
            return
        idle = self._settings.current.idle_minutes * 60
        if idle and worker.ready and now - self._last_work > idle:
            log.info("nothing to do for %g minutes: the model's memory is freed", self._settings.current.idle_minutes)
            self._worker = None
            worker.end(GRACE)

    # ---- what the worker says

    def _hear(self, worker: _Worker, message: dict[str, Any]) -> None:
        say = message["say"]
        if say == "ready":
            worker.ready, worker.device = True, str(message["device"])
            return
        job = worker.job
        if job is None or message.get("job") != job.id:
            return  # of a job that has ended already
        if say in ("done", "failed", "cancelled"):
            self._previews.pop(job.id, None)  # first: who sees that the job has ended finds no preview of it any more
        if say == "stage":
            self._progress(job, message["stage"], 0, 0)
        elif say == "prompt":
            self._queue.revise(job.id, JobSpec.from_dict(message["spec"]))
        elif say == "step":
            self._pace = [*self._pace[-7:], float(message["seconds"])]
            self._progress(job, "denoise", int(message["step"]), int(message["steps"]))
        elif say == "preview":
            picture = base64.b64decode(message["picture"])
            self._previews[job.id] = Preview(picture, tuple(message["envelope"]), int(message["step"]))
            self._queue.touch()
        elif say == "done":
            self._library.add_published(message["clip"])
            self._queue.finish(job.id, message["clip"], message["measured"])
            log.info("job %s is done", job.id[:8])
            self._ended(worker)
        elif say == "failed":
            self._queue.fail(job.id, _told(job, message["reason"]))
            self._ended(worker)
            if message.get("leaving"):  # the next job goes to a fresh process, not to one on its way out
                self._worker = None
                worker.end(GRACE)
        elif say == "cancelled":
            self._clean(job)  # first: who sees that the job is cancelled must find nothing of it
            self._queue.cancelled(job.id)
            self._ended(worker)

    def _progress(self, job: Job, stage: str, step: int, steps: int) -> None:
        before = self._queue.progress(job.id)
        since = before.since if before is not None and before.stage == stage else time.time()
        eta = None
        if stage == "denoise" and self._pace:
            pace = sorted(self._pace)[len(self._pace) // 2]
            eta = pace * (steps - step) + self._tail()
        elif stage in ("decode", "write"):
            eta = self._tail()
        self._queue.report(job.id, Progress(stage, step, steps, eta, since))

    def _tail(self) -> float:
        """Seconds of decoding and writing, as they were measured last."""
        for _, times in self._queue.measured(1):
            return float(times.get("decode", 0.0)) + float(times.get("write", 0.0))
        return 0.0

    def _ended(self, worker: _Worker) -> None:
        worker.job = None
        self._cancel_sent = None
        self._last_work = time.monotonic()
        self._seen = -1

    def _died(self, worker: _Worker) -> None:
        """The process is gone: what it had published is kept, what it was at runs again."""
        worker.kill()  # the process is gone; what it started must not write on
        how = worker.how_it_ended()
        job = worker.job
        log.warning("the worker ended (%s)%s", how, f" during job {job.id[:8]}" if job else "")
        if job is not None:
            self._previews.pop(job.id, None)
            self._library.refresh()
            self._sweep(job)
            if job.id in self._library.by_job():
                self._queue.finish(job.id, job.id, {})
            else:
                left = self._queue.worker_died(job.id, how)
                if left.state != "queued":
                    self._clean(left)
            self._ended(worker)
        self._worker = None
        self._deaths += 1

    def _sweep(self, job: Job) -> None:
        """Removes the files that a killed worker was just writing."""
        for path in (*self._paths.work.glob(".*.part"), *self._paths.preview(job.id).glob(".*.part")):
            path.unlink(missing_ok=True)
        for suffix in (".part", ".mp4"):
            self._paths.latents(job.id).with_suffix(suffix).unlink(missing_ok=True)

    def _clean(self, job: Job) -> None:
        """Removes all that a job without a result has left."""
        self._sweep(job)
        self._paths.latents(job.id).unlink(missing_ok=True)
        derived.remove(self._paths.preview(job.id))

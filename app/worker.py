"""The process that holds the model. Started by `app.supervisor`, one at a time; nobody else starts it.

    in (stdin, a JSON object a line)                 out (the original stdout, likewise)
    {"do": "run", ...}     see `app.order.Order`    {"say": "ready", "device": ...}
    {"do": "cancel", "job": id}                      {"say": "stage"|"prompt"|"step"|"preview", "job": id, ...}
    {"do": "quit"}                                   {"say": "done"|"failed"|"cancelled", "job": id, ...}

A "failed" with "leaving" says that this process ends by itself now: memory ran out, or something unforeseen happened.

When stdin ends, the studio is gone: the process stops within a step and leaves. Whatever libraries print goes to
stderr, which the studio's log collects; the protocol has its own descriptor.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any

from app.making import Maker, Published
from app.order import Order
from app.spec import JobSpec
from engine.errors import Cancelled, MovaError

log = logging.getLogger(__name__)

LEAVE_SECONDS = 5.0  # after the studio is gone: enough for a step of a small model; then without ceremony
NO_MEMORY = "not enough memory for this clip; make it shorter or smaller, or close other programs"


class Line:
    """The way out: whole lines, from any thread."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def say(self, what: str, **values: Any) -> None:
        text = json.dumps({"say": what, **values}, ensure_ascii=True).encode() + b"\n"
        with self._lock, contextlib.suppress(BrokenPipeError):  # the studio is gone; the reader notices it too
            self._stream.write(text)
            self._stream.flush()


class Reporter:
    """What `Maker` calls while it works on one job."""

    def __init__(self, line: Line, job: str, stop: threading.Event) -> None:
        self._line, self._job, self._stop = line, job, stop

    def stage(self, name: str) -> None:
        self.check()
        self._line.say("stage", job=self._job, stage=name)

    def prompt(self, spec: JobSpec) -> None:
        self._line.say("prompt", job=self._job, spec=spec.to_dict())

    def step(self, step: int, steps: int, seconds: float) -> None:
        self._line.say("step", job=self._job, step=step, steps=steps, seconds=round(seconds, 4))

    def preview(self, step: int, picture: bytes, envelope: Sequence[float]) -> None:
        packed = base64.b64encode(picture).decode("ascii")
        self._line.say("preview", job=self._job, step=step, picture=packed, envelope=[round(v, 3) for v in envelope])

    def check(self) -> None:
        """Raises:
        Cancelled: the studio asked to stop this job.
        """
        if self._stop.is_set():
            raise Cancelled("stopped")

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()


def main() -> int:
    """Runs until told to quit or left alone; returns the exit code."""
    line = Line(_private_stdout())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(True)
    with contextlib.suppress(AttributeError):  # Windows has no SIGINT for a process without a console
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the studio, which tells us
    orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
    stop, current = threading.Event(), _Current()
    threading.Thread(target=_listen, args=(orders, stop, current), daemon=True).start()
    maker = Maker()
    line.say("ready", device=maker.warm())
    while (order := orders.get()) is not None:
        if not _run(maker, line, Order.from_message(order), stop, current):
            return 1
    return 0


class _Current:
    """Which job runs, and which were cancelled before they began."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.job = ""
        self.cancelled: set[str] = set()
        self.leaving = False


def _listen(orders: queue.Queue[dict[str, Any] | None], stop: threading.Event, current: _Current) -> None:
    """Reads what the studio says; its own thread, so that a cancel is heard while a job runs."""
    for raw in sys.stdin.buffer:
        message = json.loads(raw)
        if message["do"] == "run":
            orders.put(message)
        elif message["do"] == "cancel":
            with current.lock:
                if current.job == message["job"]:
                    stop.set()
                else:
                    current.cancelled.add(message["job"])
        elif message["do"] == "quit":
            break
    with current.lock:
        current.leaving = True
        stop.set()
    orders.put(None)
    # A job that does not come to its next step soon is left where it is: it runs again from its start.
    timer = threading.Timer(LEAVE_SECONDS, os._exit, (3,))
    timer.daemon = True
    timer.start()


def _run(maker: Maker, line: Line, order: Order, stop: threading.Event, current: _Current) -> bool:
    """One job from order to answer; False when this process should not be trusted with another one."""
    with current.lock:
        current.job = order.job
        if not current.leaving:
            stop.clear()
        if order.job in current.cancelled:
            stop.set()
    try:
        published: Published = maker.make(order, Reporter(line, order.job, stop))
    except Cancelled:
        line.say("cancelled", job=order.job)
    except MovaError as error:
        log.warning("job %s failed: %s", order.job[:8], error)
        line.say("failed", job=order.job, reason=" ".join(str(error).split()))
    except Exception as error:
        from engine.memory.carry import is_out_of_memory

        if is_out_of_memory(error):
            log.exception("job %s ran out of memory", order.job[:8])
            reason = NO_MEMORY
        else:
            log.exception("job %s failed in a way that was not foreseen", order.job[:8])
            detail = " ".join(str(error).split())[:200]
            reason = f"a defect of the studio: {detail or type(error).__name__}; see the log"
        line.say("failed", job=order.job, reason=reason, leaving=True)
        return False
    else:
        line.say("done", job=order.job, clip=published.clip, measured=published.measured)
    finally:
        with current.lock:
            current.job = ""
            current.cancelled.discard(order.job)
    return True


def _private_stdout() -> IO[bytes]:
    """Our own copy of stdout; what anyone else prints goes to stderr."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


if __name__ == "__main__":
    sys.exit(main())

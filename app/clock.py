"""How long each part of a job takes: what the studio predicts the next ones from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Clock:
    """Seconds of each part of a job, kept in `times` by the part's name.

    Parts are "load", "enhance", "loras", "text", "picture", "step" (see `done`), "decode" and "write".
    """

    def __init__(self) -> None:
        self.times: dict[str, Any] = {}
        self._stage = ""
        self._entered = 0.0  # that stage
        self._steps: list[float] = []
        self._last = 0.0  # the end of the last step

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times the block."""
        began = time.monotonic()
        yield
        self.times[name] = round(time.monotonic() - began, 4)

    def stages(self, tell: Callable[[str], None]) -> Callable[[str], None]:
        """A callback for the pipeline's stages that passes them on and times those before the steps."""

        def entered(name: str) -> None:
            now = time.monotonic()
            if self._stage in ("text", "picture"):
                self.times[self._stage] = round(now - self._entered, 4)
            self._stage, self._entered, self._last = name, now, now
            tell(name)

        return entered

    def lap(self) -> float:
        """A step has ended; returns the seconds since the one before."""
        now = time.monotonic()
        self._steps.append(now - self._last)
        self._last = now
        return self._steps[-1]

    def skip(self) -> None:
        """What was done since the last step is no part of the next one."""
        self._last = time.monotonic()

    def done(self, even: bool = True) -> None:
        """All steps have ended. A step took the median of all, or their mean where they are not `even`."""
        if self._steps:
            median, mean = sorted(self._steps)[len(self._steps) // 2], sum(self._steps) / len(self._steps)
            self.times["step"] = round(median if even else mean, 4)

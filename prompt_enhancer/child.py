"""The process that holds the language model. Reads orders from standard input, answers on standard output.

One JSON object a line. Orders: {"load": path, "projector": path or null, "threads": n, "exact": bool, "memory": n},
{"write": {...}}, {"look": {...}}, {"logits": [...]}, {"cancel": true}. Answers: {"loaded": {...}}, {"piece": text},
{"done": {...}}, {"logits": [...]}, {"error": text}. Whatever the file does to this process, the caller only sees it
end.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from prompt_enhancer.chat import CHATS

if TYPE_CHECKING:
    from prompt_enhancer.eyes import Eyes
    from prompt_enhancer.llama import Llama

SPARE_MEMORY = 1 << 30  # bytes beside the file itself: Python, contexts, work space
RESERVED = 8 << 30  # bytes of address space beyond that


def limit_memory(limit: int) -> None:
    """Bounds the memory that this process may write to, where the system can (not on Windows).

    Its address space gets a far wider bound: threads reserve a lot of it and use little.
    """
    try:
        import resource
    except ImportError:
        return
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_AS, (limit + RESERVED, limit + RESERVED))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no gigabytes behind
    except (ValueError, OSError):
        pass  # a lower limit is already set; the caller watches the memory as well


class Child:
    """The loop over orders."""

    def __init__(self, answers: TextIO) -> None:
        self.answers = answers
        self.orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.cancelled = threading.Event()
        self.model: Llama | None = None
        self.eyes: Eyes | None = None
        self.chat = CHATS[-1]

    def read(self) -> None:
        """Runs beside the loop, so that a cancel is seen while the model writes."""
        for line in sys.stdin:
            order = json.loads(line)
            if "cancel" in order:
                self.cancelled.set()
            else:
                self.orders.put(order)
        self.cancelled.set()
        self.orders.put(None)

    def say(self, **answer: Any) -> None:
        self.answers.write(json.dumps(answer) + "\n")
        self.answers.flush()

    def run(self) -> int:
        threading.Thread(target=self.read, daemon=True).start()
        while (order := self.orders.get()) is not None:
            try:
                if "load" in order:
                    self.load(order)
                elif "write" in order:
                    self.write(order["write"])
                elif "look" in order:
                    self.look(order["look"])
                elif "logits" in order:
                    assert self.model is not None  # the caller loads first
                    self.say(logits=[float(one) for one in self.model.logits(order["logits"])])
            except Exception as error:
                self.say(error=str(error) or type(error).__name__)
        return 0

    def load(self, order: dict[str, Any]) -> None:
        path, projector = Path(order["load"]), order.get("projector")
        size = path.stat().st_size + (Path(projector).stat().st_size if projector else 0)
        from prompt_enhancer.llama import Llama

        limit_memory(int(size * 1.3) + int(order.get("memory", SPARE_MEMORY)))

        began = time.monotonic()
        threads = int(order["threads"])
        self.model = Llama(path, threads, bool(order.get("exact")))
        if projector:
            from prompt_enhancer.eyes import Eyes

            self.eyes = Eyes(Path(projector), self.model, threads)
        self.chat = next((one for one in CHATS if all(map(self.model.has_special, one.signs))), CHATS[-1])
        seconds = time.monotonic() - began
        self.say(loaded={"chat": self.chat.name, "context": self.model.context, "seconds": seconds})

    def write(self, order: dict[str, Any]) -> None:
        assert self.model is not None  # the caller loads first
        most = int(order["most"])
        prompt = self.prompt(order["parts"], self.model.context - most)
        pieces = self.model.write(prompt, order["grammar"], most, order["temperature"], order["seed"])
        self.tell(pieces, most, order["seconds"])

    def look(self, order: dict[str, Any]) -> None:
        """Describes a picture."""
        assert self.model is not None  # the caller loads first
        assert self.eyes is not None
        from prompt_enhancer.eyes import read_picture

        chat, most = self.chat, int(order["most"])
        parts = [(chat.before_system, True), (order["task"], False), (chat.before_user, True), None]
        pieces = self.model.look(
            self.eyes, read_picture(Path(order["image"])), [*parts, (chat.before_answer, True)], order["grammar"], most
        )
        self.tell(pieces, most, order["seconds"])

    def tell(self, pieces: Iterator[tuple[str, int]], most: int, seconds: float) -> None:
        """Passes on what is written until it ends, or has to."""
        self.cancelled.clear()
        began = time.monotonic()
        reason, number = "end", 0
        for piece, count in pieces:
            number = count
            if piece:
                self.say(piece=piece)
            if self.cancelled.is_set():
                reason = "cancelled"
                break
            if time.monotonic() - began > seconds:
                reason = "time"
                break
        else:
            reason = "tokens" if number >= most else "end"
        self.say(done={"reason": reason, "tokens": number, "seconds": time.monotonic() - began})

    def prompt(self, parts: list[list[Any]], room: int) -> list[int]:
        """Token ids of the parts; where they do not fit, the longest part loses its end."""
        assert self.model is not None
        ids = [self.model.tokens(text, control) for text, control in parts]
        over = sum(map(len, ids)) + 1 - room
        if over > 0:
            longest = max(range(len(ids)), key=lambda at: (not parts[at][1], len(ids[at])))
            ids[longest] = ids[longest][: max(1, len(ids[longest]) - over)]
        return [*self.model.start(), *(one for part in ids for one in part)]


def main() -> int:
    """Takes standard output for answers and sends everything else that is printed to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    return Child(answers).run()


if __name__ == "__main__":
    sys.exit(main())

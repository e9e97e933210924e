"""The process that holds the language model. Reads orders from standard input, answers on standard output.

One JSON object a line. Orders: {"load": path, "threads": n, "exact": bool}, {"write": {...}}, {"logits": [...]},
{"cancel": true}. Answers: {"loaded": {...}}, {"piece": text}, {"done": {...}}, {"error": text}. Whatever the file
does to this process, the caller only sees it end.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
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
                elif "logits" in order:
                    assert self.model is not None  # noqa: S101 - the caller loads first
                    self.say(logits=[float(one) for one in self.model.logits(order["logits"])])
            except Exception as error:
                self.say(error=str(error) or type(error).__name__)
        return 0

    def load(self, order: dict[str, Any]) -> None:
        from prompt_enhancer.chat import CHATS, PLAIN_CHAT
        from prompt_enhancer.llama import Llama

        path = Path(order["load"])
        limit_memory(int(path.stat().st_size * 1.3) + int(order.get("memory", SPARE_MEMORY)))
        began = time.monotonic()
        self.model = Llama(path, int(order["threads"]), bool(order.get("exact")))
        chat = next((one.name for one in CHATS if one.sign and self.model.has_control(one.sign)), PLAIN_CHAT)
        self.say(loaded={"chat": chat, "context": self.model.context, "seconds": time.monotonic() - began})

    def write(self, order: dict[str, Any]) -> None:
        assert self.model is not None  # noqa: S101 - the caller loads first
        self.cancelled.clear()
        began = time.monotonic()
        most = int(order["most"])
        prompt = self.prompt(order["parts"], self.model.context - most)
        reason, number = "end", 0
        pieces = self.model.write(prompt, order["grammar"], most, order["temperature"], order["seed"])
        for piece, count in pieces:
            number = count
            if piece:
                self.say(piece=piece)
            if self.cancelled.is_set():
                reason = "cancelled"
                break
            if time.monotonic() - began > order["seconds"]:
                reason = "time"
                break
        else:
            reason = "tokens" if number >= most else "end"
        self.say(done={"reason": reason, "tokens": number, "asked": len(prompt), "seconds": time.monotonic() - began})

    def prompt(self, parts: list[list[Any]], room: int) -> list[int]:
        """Token ids of the parts; where they do not fit, the longest part loses its end."""
        assert self.model is not None  # noqa: S101
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

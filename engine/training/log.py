"""Training logs: one JSON object a line, appended, readable by anything that draws curves."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any


class JsonLines:
    """Appends records to a ``.jsonl`` file; every record carries the wall-clock seconds since this run began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **record: Any) -> None:
        """One line; floats are rounded to six digits, which is more than training repeats."""
        line = {name: _short(value) for name, value in record.items()}
        line["seconds"] = round(time.monotonic() - self.began, 1)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole records of a log; a line cut off by a kill is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    return value

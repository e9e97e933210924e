"""What the doctor finds: one line of its report, and the report without what concerns nobody else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "warn", "fail"]
SECRETS = (
    (re.compile(r"(?<=://)[^/\s@:]+:[^/\s@]+(?=@)"), "..."),  # user and password of a proxy or mirror
    (re.compile(r"\bhf_[A-Za-z0-9_]{6,}"), "hf_..."),  # the hub's tokens
    (re.compile(r'(?i)("[^"]*(?:password|token|secret|authorization)[^"]*"\s*:\s*)"[^"]*"'), r'\1"..."'),
    (re.compile(r"(?i)((?:password|token|secret|authorization)\"?\s*[=:]\s*\"?)(?:bearer )?[^\s\"',;]+"), r"\1..."),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: "ok"; "warn" works with a loss; "fail" something will not work.
        summary: what was found, in words.
        todo: what the user can do; empty when there is nothing to do.
        details: figures for programs; sizes in bytes.
    """

    name: str
    status: Status
    summary: str
    todo: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def without_secrets(value: Any, home: str | None = None) -> Any:
    """The same value with the home folder written as ~ and no passwords and tokens, also inside lists and dicts."""
    home = home if home is not None else str(Path.home())
    if isinstance(value, str):
        for pattern, instead in SECRETS:
            value = pattern.sub(instead, value)
        inside = re.compile(re.escape(home) + r"(?=$|[\\/\s,;:'\")])", re.IGNORECASE if os.name == "nt" else 0)
        return inside.sub("~", value) if len(home) > 1 else value
    if isinstance(value, dict):
        return {key: without_secrets(item, home) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item, home) for item in value]
    return value

"""Whether this machine had its processors to itself while something was measured."""

from __future__ import annotations

import psutil


def stolen_seconds() -> float:
    """What a virtual machine's host took from all its processors since the start; 0 where the system does not tell."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))

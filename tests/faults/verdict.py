"""How a campaign ends on the command line."""

from __future__ import annotations

from collections.abc import Sequence


def verdict(told: object, faults: Sequence[str]) -> int:
    """Prints what a campaign came to and each fault; returns the exit code, 1 on any."""
    print(told)
    for fault in faults:
        print("FAULT", fault)
    return 1 if faults else 0

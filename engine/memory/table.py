"""The planner's answers over a table of machines: `python -m engine.memory.table` prints it for docs/memory.md."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from engine.memory.machine import GIB, Machine, Rates, pin_limit
from engine.memory.plan import Plan, make_plan
from engine.memory.sizes import RELEASED, Work

VRAM = (6, 8, 12, 16, 24, 32, 48, 80)  # GB
RAM = (16, 24, 32, 48, 64, 128)
SIZES = {"360p": (640, 352), "720p": (1280, 720)}
SECONDS = {2: 49, 5: 121, 8: 193}  # frames
RATES = Rates(pinned=22e9, pageable=7e9, disk=2.5e9, compute=140e12)  # of an RTX 4090 on PCIe 4 beside an NVMe drive


def machine(vram: int, ram: int, rates: Rates = RATES) -> Machine:
    """A card of `vram` GB of which the desktop holds 0.5, in a computer of `ram` GB of which 3 are in use."""
    free = (ram - 3) * GIB
    return Machine(
        "cuda", f"{vram} GB card", vram * GIB, vram * GIB - GIB // 2, ram * GIB, free, pin_limit(ram * GIB, free),
        (8, 9), rates=rates,
    )  # fmt: skip


def works() -> Iterator[tuple[str, Work]]:
    for name, (width, height) in SIZES.items():
        for seconds, frames in SECONDS.items():
            yield f"{name} {seconds} s", Work(width, height, frames)


def cell(plan: Plan) -> str:
    """A plan in a few signs: seconds a step, layers on the card, where the others wait."""
    if not plan.fits:
        return plan.advice
    waits = [f"{n} {w}" for n, w in ((plan.pinned, "locked"), (plan.pageable, "RAM"), (plan.mapped, "disk")) if n]
    eight = ", 8 bits" if plan.weights != plan.dtype else ""
    return f"{plan.seconds:.1f} s: {plan.residents} stay{''.join(', ' + w for w in waits)}{eight}"


def table(name: str, work: Work) -> list[str]:
    """One Markdown table: a line a card, a column a size of main memory."""
    lines = [f"**{name}** ({work.frames} frames)", "", "| card | " + " | ".join(f"{ram} GB RAM" for ram in RAM) + " |"]
    lines.append("|---" * (len(RAM) + 1) + "|")
    for vram in VRAM:
        cells = [cell(make_plan(machine(vram, ram), RELEASED, work)) for ram in RAM]
        lines.append(f"| {vram} GB | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    """Prints all tables."""
    for name, work in works():
        print("\n".join(table(name, work)), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a new user wants to know first: what this machine can do, and which model fits. Imports no torch.

The cards are asked of their driver, and the engine's own planner says which clips would fit, as it does before every
clip. What only torch can tell, such as whether a card really computes, is the doctor's part.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from bootstrap import backend
from engine.downloads.catalogue import CATALOGUE, Entry
from engine.memory.machine import GIB, Machine, host_memory, pin_limit
from engine.memory.plan import make_plan
from engine.memory.sizes import RELEASED, Work

DESKTOP = GIB // 2  # of a card's memory that windows and browsers hold
SPARE_DISK = 2 * 10**9  # besides a model: room for clips and temporary files
LEAST_MEMORY = 15 * GIB  # of the computer; 16 GB as they are sold, less what the board keeps for itself
FPS = 24
LONGEST = 8  # seconds, as released
AMD_MEMORY = "card*/device/mem_info_vram_total"

Verdict = Literal["here", "fits", "short", "no_disk", "no_memory", "no_card", "small_card", "unknown"]


@dataclass(frozen=True)
class Host:
    """The computer as its system describes it.

    Attributes:
        card: name of the best graphics card that torch has a build for, "" without one.
        card_memory: its bytes, 0 where the driver does not say.
        memory: bytes of main memory, or of those that a container may use.
        advice: what would let a card be used that cannot be used now.
        apple: a Mac, whose card shares the main memory.
    """

    card: str
    card_memory: int
    memory: int
    cores: int
    advice: str = ""
    apple: bool = False


@dataclass(frozen=True)
class Fit:
    """How one model would do here.

    Attributes:
        verdict: "here": installed; "fits": up to the longest clips; "short": up to `seconds`; "no_disk",
            "no_memory", "no_card", "small_card": what is missing; "unknown": the card does not tell its memory.
        size: bytes to fetch. free: bytes free where it would go.
        seconds: of the longest clip that fits on the card.
    """

    name: str
    verdict: Verdict
    size: int
    free: int
    seconds: int = 0


def look(drm: Path = Path("/sys/class/drm")) -> Host:
    """Asks the system and the card's driver; takes as long as nvidia-smi, at most some seconds."""
    system, cards, amd = platform.system(), backend.cards(), backend.amd_targets(backend.KFD)
    choice = backend.choose(cards, system, amd)
    memory, cores = host_memory()[0], psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    if system == "Darwin":
        return Host("Apple GPU", memory, memory, cores, apple=True)
    if choice.tag == backend.CPU:
        return Host("", 0, memory, cores, choice.advice)
    if choice.tag == backend.ROCM:
        return Host(choice.reason, _amd_memory(drm), memory, cores)
    best = max(cards, key=lambda card: (card.capability, card.memory_mb))
    return Host(best.name, best.memory_mb * 2**20, memory, cores)


def _amd_memory(drm: Path) -> int:
    """Bytes of the largest AMD card, as Linux' driver tells them; 0 where it does not."""
    sizes = [int(text) for path in drm.glob(AMD_MEMORY) if (text := path.read_text().strip()).isdigit()]
    return max(sizes, default=0)


def clip_models() -> tuple[Entry, ...]:
    """The released models that make clips, in the catalogue's order."""
    return tuple(entry for entry in CATALOGUE if entry.kind == "mova")


def fit(entry: Entry, host: Host, free: int, installed: bool = False, arrived: int = 0) -> Fit:
    """Judges one released model.

    Args:
        free: bytes on the drive where it would go. arrived: bytes of it that are there already.
    """
    size = max(0, entry.size - arrived)
    told = Fit(entry.name, "unknown", size, free)
    if installed:
        return Fit(entry.name, "here", 0, free, _longest(entry, host) if host.card_memory else 0)
    if not host.card:
        return Fit(entry.name, "no_card", size, free)
    if host.memory < LEAST_MEMORY:
        return Fit(entry.name, "no_memory", size, free)
    if host.apple or not host.card_memory:
        return told
    seconds = _longest(entry, host)
    if seconds == 0:
        return Fit(entry.name, "small_card", size, free)
    if free < size + SPARE_DISK:
        return Fit(entry.name, "no_disk", size, free, seconds)
    return Fit(entry.name, "fits" if seconds == LONGEST else "short", size, free, seconds)


def _longest(entry: Entry, host: Host) -> int:
    """Seconds of the longest clip that the planner has room for; 0 where not even one second fits."""
    free = max(0, host.memory - 3 * GIB)
    card = max(0, host.card_memory - DESKTOP)
    machine = Machine(
        "cuda", host.card, host.card_memory, card, host.memory, free, pin_limit(host.memory, free), (8, 9)
    )  # fmt: skip
    width, height = (1280, 720) if "720" in entry.name else (640, 352)
    for seconds in range(LONGEST, 0, -1):
        if make_plan(machine, RELEASED, Work(width, height, FPS * seconds + 1, FPS)).fits:
            return seconds
    return 0

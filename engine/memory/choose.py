"""From a model folder and a clip to a plan for this machine: what `generate`, the worker and the doctor ask.

What a run really took is kept beside the rates of the card (`Ledger`), and corrects the next plan.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.errors import MovaError, RequestError
from engine.folders import cache_folder
from engine.memory.backends import choose_attention, words_of
from engine.memory.machine import GIB, Machine, detect, read_json, write_json
from engine.memory.plan import Plan, make_plan
from engine.memory.sizes import ModelSizes, Work, read_sizes

log = logging.getLogger(__name__)

CHOICES = ("auto", "8", "12", "16", "24", "48", "cpu")
SHORT_BY = 0.85  # share of the free memory that is counted on after it did not suffice
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Ledger:
    """Predicted against measured, by card, model and clip; a JSON file in the cache.

    Attributes:
        file: where; `Ledger.here()` is this machine's.
    """

    file: Path

    @classmethod
    def here(cls) -> Ledger:
        return cls(cache_folder() / "plans.json")

    def record(self, key: str, plan: Plan, seconds: float, vram: int, short: bool) -> None:
        """Keeps what a run took: seconds a step, peak bytes of the device, and whether memory ran out."""
        known = read_json(self.file)
        before = known.get(key)
        before = before if isinstance(before, dict) else {}
        entry = {
            "predicted_seconds": round(plan.seconds, 4),
            "seconds": round(seconds, 4),
            "predicted_vram": plan.vram,
            "vram": vram,
            "short": short or bool(before.get("short")),
        }
        write_json(self.file, {**known, key: entry})

    def entry(self, key: str) -> dict[str, Any]:
        found = read_json(self.file).get(key)
        return found if isinstance(found, dict) else {}

    def corrected(self, machine: Machine, key: str) -> Machine:
        """The machine as the last run of this kind showed it: its real speed, and less memory where it ran out."""
        entry = self.entry(key)
        try:
            ratio = min(max(float(entry["predicted_seconds"]) / float(entry["seconds"]), 0.02), 50.0)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            ratio = 1.0
        rates = replace(machine.rates, compute=machine.rates.compute * ratio)
        share = SHORT_BY if entry.get("short") else 1.0
        return replace(machine, rates=rates, vram_free=int(machine.vram_free * share))


def ledger_key(machine: Machine, folder: Path, work: Work) -> str:
    """The same for clips that take the same."""
    clip = f"{work.width}x{work.height}x{work.frames} {work.passes}"
    return f"{machine.kind} {machine.name}, {machine.vram_total // GIB} GB, {folder.name}, {clip}"


@lru_cache(maxsize=16)
def _machine(device: str, cap: int | None) -> Machine:
    """As it was when this process first asked: what it has taken since is its own."""
    return detect(device, cap)


@lru_cache(maxsize=8)
def _sizes(folder: Path, stamp: float) -> ModelSizes:
    return read_sizes(folder)


def sizes_of(folder: Path) -> ModelSizes:
    """The sizes of a model folder; read again when its index changes."""
    return _sizes(folder, (folder / "model_index.json").stat().st_mtime)


def plan_clip(
    folder: Path,
    work: Work,
    device: str = "auto",
    precision: str = "auto",
    memory: str = "auto",
    exact: bool = False,
    processes: int = 1,
    attention: str = "auto",
) -> Plan:
    """The plan for a clip of this model on this machine.

    Args:
        device, precision: as in `engine.device`.
        memory: "auto"; "8" to "48": as if the card had so many GB; "cpu".
        exact: no 8-bit weights.
        processes: so many share the main memory, each with a device of its own.
        attention: a kernel of `engine.memory.backends`, or "auto".

    Raises:
        RequestError: the device cannot be used, or a value is not one of these.
    """
    from engine.device import choose_device, choose_precision

    if memory not in CHOICES:
        raise RequestError(f"memory {memory!r} is not one of {', '.join(CHOICES)}")
    where = choose_device("cpu" if memory == "cpu" else device)
    dtype = str(choose_precision(precision, where)).removeprefix("torch.")
    cap = int(memory) * GIB if memory.isdigit() else None
    machine = _machine(str(where), cap)
    kernel = choose_attention(machine, dtype, attention)
    try:
        sizes = sizes_of(folder)
    except (MovaError, OSError, LookupError, TypeError, ValueError, ZeroDivisionError) as error:
        log.debug("no plan for %s: %s", folder.name, error)
        return replace(
            unplanned(str(where), dtype), attention=kernel
        )  # opening it will say what is wrong, tensor by tensor
    machine = Ledger.here().corrected(machine, ledger_key(machine, folder, work))
    shared = max(1, processes)
    machine = replace(machine, ram_free=machine.ram_free // shared, pin_limit=machine.pin_limit // shared)
    plan = make_plan(machine, sizes, work, exact, str(where), dtype)
    said = "" if kernel == "native" else f"; attention by {words_of(kernel)}"
    plan = replace(plan, attention=kernel, why=plan.why + said)
    log.debug("%s", plan)
    return plan


def unplanned(device: str, dtype: str) -> Plan:
    """Everything on the device."""
    return Plan(device, dtype, dtype, "device", 0, 0, 0, 0, 0, 3, "none", 0.0, 0, 0, why="everything on the device")


def remember(folder: Path, work: Work, plan: Plan, seconds: float, vram: int, short: bool) -> None:
    """Keeps what a run of `plan` took."""
    machine = _machine(plan.device, None)
    Ledger.here().record(ledger_key(machine, folder, work), plan, seconds, vram, short)


def layout(plan: Plan) -> tuple[Any, ...]:
    """What of a plan a loaded pipeline is built for; another clip with the same layout needs no loading."""
    if plan.plain:
        return plan.device, plan.dtype, plan.tiles, plan.attention
    return (
        plan.device, plan.dtype, plan.weights, plan.experts, plan.residents, plan.ring, plan.pinned, plan.pageable,
        plan.mapped, plan.at_once, plan.tiles, plan.attention,
    )  # fmt: skip

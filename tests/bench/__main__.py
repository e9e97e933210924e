"""What this machine reaches, in one table: every way to run, the kernels, the rates, and the plans of its models.

    python launch.py bench [--device auto] [--steps 4] [--json]

On a graphics card: one step of the network of full size, 8 s at 360p, held to the memory of smaller cards, and the
card's own kernels at that length. Elsewhere the same code on a small network, which shows what streaming costs against
holding everything; the first line says what could not be measured. Model files are not needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch

from engine.device import choose_device
from engine.errors import MovaError
from engine.folders import model_folders
from engine.memory.choose import Ledger, ledger_key, plan_clip
from engine.memory.machine import GIB, detect
from engine.memory.sizes import RELEASED, Work, guidance_passes
from engine.profile import read_profile
from tests.bench import kernels, step

CAPS = [80.0, 48.0, 24.0, 16.0, 12.0, 8.0]  # GB
SMALL_WORK = Work(192, 128, 17)
SMALL_TOKENS = 1024
HEAD = ("benchmark", "case", "measured", "beside it")
Row = tuple[str, str, str, str]


def steps_of(device: torch.device, steps: int) -> list[dict[str, Any]]:
    """A step by every cap on a card, by every way elsewhere."""
    if device.type != "cuda":
        return step.by_ways(device, step.small_sizes(), SMALL_WORK, steps, True)
    caps = [cap for cap in CAPS if cap * GIB <= 1.05 * torch.cuda.get_device_properties(device).total_memory]
    return step.by_caps(caps, device, RELEASED, Work(640, 352, 193), steps, False)


def step_rows(found: list[dict[str, Any]]) -> list[Row]:
    rows = []
    for one in found:
        case = one["way"] if "way" in one else f"{one['cap']:g} GB"
        ratio = one["seconds"] / found[0]["seconds"]
        done, of = one["prefetched"]
        beside = f"{ratio:.2f} x the first"
        if "cap" in one:
            peak = (one["peak_vram"] or 0) / GIB
            predicted = one["predicted_vram"] / GIB
            beside += f", predicted {one['predicted_seconds']:.2f} s, peak {peak:.1f} GB (predicted {predicted:.1f})"
        if of:
            beside += f", {one['streamed_a_step'] / 1e6:.0f} MB streamed, {done} of {of} blocks in time"
        rows.append(("step", case, f"{one['seconds']:.3f} s", beside))
    return rows


def kernel_rows(found: list[dict[str, Any]]) -> list[Row]:
    rows = []
    for one in found:
        if "rates" in one:
            for name, value in one["rates"].items():
                what = f"{value / 1e12:.2f} TFLOP/s" if name == "compute" else f"{value / 1e9:.1f} GB/s"
                rows.append(("rate", name, what, ""))
            continue
        kind = "attention" if "attention" in one else "linear"
        if "why not" in one:
            rows.append((kind, one[kind], "-", one["why not"]))
            continue
        beside = f"{one['tflops']:.2f} TFLOP/s, difference {one['difference']:.1e}"
        rows.append((kind, one[kind], f"{one['seconds']:.4f} s", beside))
    return rows


def plan_rows(device: torch.device) -> list[Row]:
    """Each installed model's own clip: predicted, and what the last run of that kind took."""
    rows = []
    for name, folder in model_folders().items():
        try:
            profile = read_profile(folder)
            passes = guidance_passes(profile.guidance, profile.bridge_guidance)
            work = Work(*profile.sizes[0], profile.frames, profile.fps, passes, profile.steps)
            plan = plan_clip(folder, work, str(device))
        except MovaError as error:
            rows.append(("plan", name, "-", str(error)))
            continue
        last = Ledger.here().entry(ledger_key(detect(str(device)), folder, work)).get("seconds")
        measured = "not run yet" if last is None else f"{last:.3f} s a step"
        rows.append(("plan", name, measured, f"predicted {plan.seconds:.3f} s; {plan.why}"))
    return rows


def note(device: torch.device) -> str:
    """What this machine can measure."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}: a step at full size, the card's kernels, the plans of its models"
    words = "a processor" if device.type == "cpu" else "this device"
    return (
        f"On {words} neither the network of full size nor a card's kernels and copies can be measured. Measured here: "
        "every way to hold the weights on a small network, attention and linear layers in short, rates, plans"
    )


def table(rows: list[Row]) -> str:
    columns = list(zip(HEAD, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (HEAD, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    parser.add_argument("--steps", type=int, default=4, help="steps of each case; the first one warms up")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        device = choose_device(args.device)
        if args.steps < 1:
            parser.error(f"--steps {args.steps} is not a number above 0; the nearest is 1")
    except MovaError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if not args.json:
        print(note(device), flush=True)
    steps = steps_of(device, args.steps)
    measured = kernels.measure(SMALL_TOKENS if device.type != "cuda" else 43_120, device)
    plans = plan_rows(device)
    if args.json:
        print(json.dumps({"note": note(device), "steps": steps, "kernels": measured, "plans": plans}))
        return 0
    print(table([*step_rows(steps), *kernel_rows(measured), *plans]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A plan's accounting against a process that carries it out: peak of its own memory, within a tenth."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from engine.memory.choose import layout, plan_clip
from engine.memory.machine import GIB, Machine, Rates
from engine.memory.plan import BASE_DEVICE, BASE_HOST, account
from engine.memory.sizes import Work, guidance_passes, read_sizes
from tests.make_checkpoint import make_checkpoint
from tests.memory_parts import ACCOUNT, TINY, WIDE

SCRIPT = """
import json, sys
import diffusers, transformers
from engine import MovaPipeline
from engine.memory.plan import Plan
from tests.memory_parts import watched

MovaPipeline.from_pretrained(sys.argv[3])  # what the libraries hold once they have worked
with watched() as memory:
    pipe = MovaPipeline.from_pretrained(sys.argv[1], plan=Plan(**json.loads(sys.argv[2])))
    pipe("x", height=64, width=64, num_frames=5, num_inference_steps=3, seed=1)
print(json.dumps(memory))
"""


@pytest.mark.skipif(not ACCOUNT.is_file(), reason="reads Linux's own account of a process")
@pytest.mark.parametrize("choice", [("swap", "float32", 2), ("host", "float32", 0), ("host", "int8", 4)])
def test_peak_memory_is_as_predicted(tmp_path, choice):
    experts, weights, residents = choice
    folder = make_checkpoint(tmp_path / "model", WIDE)
    sizes, work = read_sizes(folder), Work(64, 64, 5, steps=3)
    machine = Machine("cpu", "x", 64 * GIB, 64 * GIB, 64 * GIB, 64 * GIB, 0, rates=Rates())
    plan = account(machine, sizes, work, ("cpu", "float32", weights, experts, 2, 2, "none"), residents)
    assert plan.pageable == 8 - residents
    command = [sys.executable, "-c", SCRIPT, str(folder), json.dumps(asdict(plan)), str(TINY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TINY.parents[3])
    before, peak = json.loads(done.stdout)
    predicted = before + plan.vram - BASE_DEVICE + plan.ram - BASE_HOST
    grown, counted = peak - before, predicted - before
    print(f"{choice}: predicted {predicted / 1e6:.0f} MB, measured {peak / 1e6:.0f} MB; without the libraries "
          f"{counted / 1e6:.0f} and {grown / 1e6:.0f}")  # fmt: skip
    assert abs(peak - predicted) <= 0.1 * predicted


def test_a_clip_is_planned_for_this_machine():
    work = Work(96, 64, 9, steps=4)
    plan = plan_clip(TINY, work, device="cpu")
    assert plan.fits
    assert plan.plain
    assert layout(plan) == layout(plan_clip(TINY, replace(work, frames=13), device="cpu"))
    assert layout(plan) == layout(plan_clip(TINY, replace(work, passes=1), device="cpu"))  # nothing to load again
    assert "main memory" in plan.why
    assert [guidance_passes(*g) for g in ((1, 1), (5, 1), (5, 3), (1, 3))] == [1, 2, 3, 3]

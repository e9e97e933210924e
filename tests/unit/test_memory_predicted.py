"""A plan's accounting against a process that carries it out: peak of its own memory, within a tenth."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from engine.memory.choose import layout, plan_clip
from engine.memory.machine import GIB, Machine, Rates
from engine.memory.plan import BASE_DEVICE, BASE_HOST, account
from engine.memory.sizes import Work, guidance_passes, read_sizes
from tests.make_checkpoint import SIZES, make_checkpoint
from tests.memory_parts import TINY

SCRIPT = """
import json, sys, threading, time
import torch, diffusers, transformers
from engine import MovaPipeline
from engine.memory.plan import Plan

def own():  # anonymous pages: what the system cannot take back by forgetting a file
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("RssAnon"))

MovaPipeline.from_pretrained(sys.argv[3])  # what the libraries hold once they have worked
before, peak, done = own(), [0], threading.Event()

def watch():
    while not done.is_set():
        peak[0] = max(peak[0], own())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
pipe = MovaPipeline.from_pretrained(sys.argv[1], plan=Plan(**json.loads(sys.argv[2])))
pipe("x", height=64, width=64, num_frames=5, num_inference_steps=3, seed=1)
done.set()
watcher.join()
print(json.dumps([before, peak[0]]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's own account of a process")
@pytest.mark.parametrize("choice", [("swap", "float32", 2), ("host", "float32", 0), ("host", "int8", 4)])
def test_peak_memory_is_as_predicted(tmp_path, choice):
    experts, weights, residents = choice
    wide = replace(
        SIZES["wide"], video_dim=768, video_heads=6, video_layers=8, video_ffn=3072, audio_dim=384, audio_heads=6,
        audio_layers=6, audio_ffn=1536, bridge_head=64,
    )  # fmt: skip
    folder = make_checkpoint(tmp_path / "model", wide)
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

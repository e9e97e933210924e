"""Training of LoRAs on a base that streams: the same bits as on a base that stands, and what it moves and takes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import MovaPipeline
from engine.errors import RequestError
from engine.memory.eight_bit import EightBitLinear, make_eight_bit
from engine.memory.machine import GIB, Machine
from engine.memory.plan import BASE_DEVICE, BASE_HOST
from engine.memory.sizes import Work, read_sizes
from engine.training import checkpoint
from engine.training.lora.cache import Example
from engine.training.lora.memory import account, load_of, start
from engine.training.lora.run import LoraOrder, _alone, plan_training, train_lora
from engine.training.lora.streamed import TwoWayStreamer, lean_blocks
from engine.training.lora.task import Levels, LoraTask
from engine.training.lora.waiting import HostStates
from tests.make_checkpoint import make_checkpoint
from tests.memory_parts import ACCOUNT, TINY, WIDE, plan, storage
from tests.unit.test_lora_training import (
    SETTINGS,
    _own_cache,
    command,
    environment,
    examples,
    home,
    objective_of,
    order,
)

STEPS = 6
__all__ = ["_own_cache", "home"]  # fixtures


def task_of(pipe: MovaPipeline, **changes: Any) -> LoraTask:
    settings = replace(SETTINGS, **{"keep": 0.5, **changes})
    new, blank, empty = examples(pipe, 3)
    old = [replace(e, condition=None) for e in new[:2]]
    return LoraTask(objective_of(pipe, settings), Levels(0.9, 3.0, 3.0, 6.0), new, old, blank, empty)


def learn(task: LoraTask, autocast: torch.dtype | None, steps: int = STEPS) -> tuple[list[float], list[torch.Tensor]]:
    """Some steps by hand; losses and factors."""
    optimizer = torch.optim.AdamW(task.objective.groups(), lr=1e-2)
    losses, seen = [], set()
    for step in range(steps):
        with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            batch = task.batch(step, 0, 1)
            seen.add(batch["expert"])
            loss, _ = task.objective(**batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert seen == {"high", "low"}
    return losses, [p.detach().clone() for p in task.objective.parameters()]


@contextlib.contextmanager
def streaming(pipe: MovaPipeline, to_host: bool = False, ring: int = 2) -> Iterator[TwoWayStreamer]:
    carrier = pipe.carrier
    assert carrier.streamer is not None
    layout = replace(carrier.streamer.layout, ring=ring)
    streamer = TwoWayStreamer(carrier.networks, carrier.shared, layout, carrier.device)
    waiting = HostStates() if to_host else None
    with lean_blocks((pipe.high_noise, pipe.low_noise), streamer, waiting), streamer.running():
        yield streamer


@pytest.fixture(scope="module", params=[None, torch.bfloat16], ids=["float32", "bfloat16"])
def resident(request: pytest.FixtureRequest) -> tuple[torch.dtype | None, list[float], list[torch.Tensor]]:
    losses, factors = learn(task_of(MovaPipeline.from_pretrained(TINY)), request.param)
    assert losses[-1] != losses[0]
    return request.param, losses, factors


@pytest.mark.parametrize(("waits", "residents", "ring"), [("pageable", 0, 2), ("mapped", 0, 1), ("pageable", 2, 2)])
def test_bits_are_those_of_a_resident_base(resident: Any, waits: str, residents: int, ring: int) -> None:
    autocast, losses, factors = resident
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(**storage(waits, residents)))
    task = task_of(pipe)
    with streaming(pipe, ring=ring):
        found, learned = learn(task, autocast)
    assert found == losses
    assert all(torch.equal(a, b) for a, b in zip(learned, factors, strict=True))


def test_eight_bits_are_those_of_a_resident_base_in_eight_bits() -> None:
    plain = MovaPipeline.from_pretrained(TINY)
    for expert in (plain.high_noise, plain.low_noise):
        make_eight_bit(expert.blocks, "int8")
        for layer in expert.modules():
            if isinstance(layer, EightBitLinear) and not layer.packed:
                layer.pack_now()
    losses, factors = learn(task_of(plain), None)
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(weights="int8", **storage("pageable", 1)))
    with streaming(pipe, to_host=True):
        found, learned = learn(task_of(pipe), None)
    assert found == losses
    assert all(torch.equal(a, b) for a, b in zip(learned, factors, strict=True))


@pytest.mark.parametrize("residents", [0, 2])
def test_a_step_streams_every_other_block_twice_and_nothing_back(residents: int) -> None:
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(**storage("pageable", residents)))
    task = task_of(pipe, keep=0.0)
    waiting = 4 - residents
    with streaming(pipe) as streamer:
        steps = [s for s in range(20) if task.expert_at(s) == "high"][:3]
        for step in steps:
            loss, _ = task.objective(**task.batch(step, 0, 1))
            loss.backward()
        slabs = sum(streamer._size(0, i) for i in streamer.order)
        passes = streamer.counters.steps
        assert len(passes) == 2 * len(steps)
        assert all((p.blocks, p.streamed) == (waiting, slabs) for p in passes)
        assert all(p.prefetched == waiting for p in passes[1:])
        assert streamer.counters.copied_back == 0
    assert streamer.counters.device == 0
    # Where the direction turns, the two blocks that lie in the slots are used again without a copy.
    sizes = [streamer._size(0, i) for i in streamer.order]
    count = len(steps)
    assert streamer.counters.copied == slabs + count * sum(sizes[:-2]) + (count - 1) * sum(sizes[2:])


def test_parts_of_a_batch_add_up_to_it() -> None:
    task = task_of(MovaPipeline.from_pretrained(TINY))
    batch = task.batch(0, 0, 1)
    sums = []
    for parts in (1, 2, 4):
        task.objective.zero_grad(set_to_none=True)
        losses = []
        for part in task.split(batch, parts):
            loss, _ = task.objective(**part)
            loss.backward()
            losses.append(loss.detach())
        assert len(losses) == parts
        gradients = {n: p.grad for n, p in task.objective.named_parameters() if p.grad is not None}
        sums.append((torch.stack(losses).sum(), gradients))
    for loss, gradients in sums[1:]:
        torch.testing.assert_close(loss, sums[0][0], rtol=1e-5, atol=1e-6)
        assert gradients.keys() == sums[0][1].keys()
        for name, value in gradients.items():
            torch.testing.assert_close(value, sums[0][1][name], rtol=1e-5, atol=1e-5)


def small_plan(order_: LoraOrder) -> float:
    """GB with which nothing but blocks from the model's files fits."""
    profile, sizes = (64, 64, 9, 24.0), read_sizes(order_.model)
    load = load_of(order_.model, sizes, profile, order_.settings, 1, True)
    machine = Machine("cpu", "x", *[64 * GIB] * 4, 0)
    ways = [start("cpu", "float32", "float32", e, 1) for e in ("host", "device")]
    mapped, device = (account(machine, sizes, load, w, mapped=w is ways[0]).base for w in ways)
    assert mapped.vram + mapped.ram < device.vram + device.ram
    return (mapped.vram + mapped.ram + device.vram + device.ram) / 2 / GIB


def test_a_whole_training_streams_where_memory_is_short(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples in between, a stop and a resume; the checkpoint is that of a training with everything in place."""
    monkeypatch.setattr("engine.training.lora.run.cache_folder", lambda: home / "cache")
    changes: dict[str, Any] = {"accumulate": 1, "frozen": "exact", "in_parts": "no", "sample_every": 6, "steps": 8}
    plain, lean = order(home, "stands", **changes), order(home, "streams", **changes)
    lean = replace(lean, memory=small_plan(lean))
    way = plan_training(lean, torch.device("cpu"))
    assert way is not None
    assert (way.base.experts, way.base.mapped, way.base.fits) == ("host", 4, True)
    assert "stream from its files" in way.why
    assert way.tight  # freed memory goes back to the system
    assert train_lora(plain) is not None
    assert train_lora(lean, until=3) is None
    assert train_lora(lean) is not None
    a, b = (checkpoint.read(o.folder / "checkpoint.pt") for o in (plain, lean))
    for part in ("model", "average"):
        assert all(torch.equal(v, b[part][n]) for n, v in a[part].items())
    samples = [(o.folder / "samples" / "step-000006-1.mp4").read_bytes() for o in (plain, lean)]
    assert len(samples[0]) > 1000
    assert samples[0] == samples[1]


def test_one_folder_takes_one_training_at_a_time(home: Path) -> None:
    folder = order(home, "taken").folder
    with _alone(folder):
        words = [sys.executable, *command(home, "taken", "--steps", "2")]
        second = subprocess.run(words, env=environment(home), capture_output=True, text=True, check=False)
        assert second.returncode != 0
        assert "is in use" in second.stderr
        with pytest.raises(RequestError, match="in use"), _alone(folder):
            raise AssertionError
    with _alone(folder):
        pass


PEAK = """
import json, sys
import torch, diffusers, transformers
from engine import MovaPipeline
from engine.memory.plan import Plan
from engine.training.loop import give_memory_back
from engine.training.lora.memory import TrainPlan
from engine.training.lora.streamed import Frozen
from tests.memory_parts import TINY, watched
from tests.unit.test_lora_streamed import peak_task

def steps(folder, way, count):
    pipe = MovaPipeline.from_pretrained(folder, plan=way.base)
    frozen = Frozen(pipe, way)
    task = peak_task(pipe)
    optimizer = torch.optim.AdamW(task.objective.groups(), lr=1e-4)
    average = [p.detach().clone() for p in task.objective.parameters()]
    with frozen.carried():
        for step in range(count):
            task.objective(**task.batch(step, 0, 1))[0].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

give_memory_back()  # as a training does where memory is short
way = TrainPlan(Plan(**json.loads(sys.argv[2])), 1, True)
steps(str(TINY), TrainPlan(Plan(**json.loads(sys.argv[3])), 1, True), 2)  # what libraries hold once they worked
with watched() as memory:
    steps(sys.argv[1], way, 3)
print(json.dumps(memory))
"""
GRID = (3, 16, 16)  # latent frames, rows and columns of patches


def peak_task(pipe: MovaPipeline) -> LoraTask:
    """Clips of `GRID`."""
    settings = replace(SETTINGS, keep=0.0, batch=2, rank=8)
    c, g = pipe.high_noise.config, torch.Generator().manual_seed(1)
    z, f, h, w = c.video["out_dim"], GRID[0], 2 * GRID[1], 2 * GRID[2]
    blank = torch.randn(c.video["in_dim"] - z, f, h, w, generator=g)
    text = torch.randn(100, c.video["text_dim"], generator=g)
    video, audio = torch.randn(z, f, h, w, generator=g), torch.randn(c.audio["in_dim"], 19, generator=g)
    clip = Example(video, audio, blank, text)
    return LoraTask(objective_of(pipe, settings), Levels(0.9, 3.0, 3.0, 6.0), [clip], [], blank, text)


@pytest.mark.slow
@pytest.mark.skipif(not ACCOUNT.is_file(), reason="reads Linux's own account of a process")
@pytest.mark.parametrize(("weights", "residents"), [("float32", 0), ("int8", 4)])
def test_peak_memory_is_as_predicted(tmp_path: Path, weights: str, residents: int) -> None:
    folder = make_checkpoint(tmp_path / "model", WIDE)
    sizes, settings = read_sizes(folder), replace(SETTINGS, batch=2, rank=8)
    machine = Machine("cpu", "x", *[64 * GIB] * 4, 0)
    work = Work(32 * 8, 32 * 8, 9, passes=1)
    load = load_of(folder, sizes, (work.width, work.height, work.frames, 24.0), settings, 1, True)
    way = account(machine, sizes, load, start("cpu", "float32", weights, "host", 1), residents)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), json.dumps(asdict(way.base)), json.dumps(asdict(plan()))],
        capture_output=True, text=True, check=True, cwd=TINY.parents[3],
    )  # fmt: skip
    before, peak = json.loads(done.stdout)
    predicted = before + way.base.vram - BASE_DEVICE + way.base.ram - BASE_HOST
    print(f"{weights}, {residents} stay: predicted {predicted / 1e6:.0f} MB, measured {peak / 1e6:.0f} MB; without the "
          f"libraries {(predicted - before) / 1e6:.0f} and {(peak - before) / 1e6:.0f}")  # fmt: skip
    assert abs(peak - predicted) <= 0.1 * predicted

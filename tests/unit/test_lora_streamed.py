"""Training of LoRAs on a base that streams: the same bits as on a base that stands, and what it moves and takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine import MovaPipeline
from engine.training.lora.streamed import TwoWayStreamer, lean_blocks
from engine.training.lora.task import Levels, LoraTask
from tests.memory_parts import TINY, plan, storage
from tests.unit.test_lora_training import SETTINGS, examples, objective_of

STEPS = 6


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
    with lean_blocks((pipe.high_noise, pipe.low_noise), streamer, to_host), streamer.running():
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

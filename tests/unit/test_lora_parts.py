"""Training of LoRAs with blocks in parts: the gradients of whole blocks within rounding, and what it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine import MovaPipeline
from engine.memory.meter import Meter
from engine.memory.sizes import read_sizes
from engine.training.lora import parts
from engine.training.lora.graph import graph_bytes
from engine.training.lora.memory import load_of, start, working
from engine.training.lora.streamed import TwoWayStreamer, lean_blocks
from engine.training.lora.task import LoraTask
from engine.training.lora.waiting import HostStates
from tests.memory_parts import TINY, plan, storage
from tests.unit.test_lora_streamed import learn, peak_task, task_of


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model's clips have 48 tokens and 4 heads: several parts of either, the last one shorter."""
    monkeypatch.setattr(parts, "TOKENS", 20)
    monkeypatch.setattr(parts, "HEADS", 1)


def gradients(task: LoraTask, step: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Of one batch, with factors that are not zero."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in task.objective.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    loss, _ = task.objective(**task.batch(step, 0, 1))
    loss.backward()
    found = {n: p.grad.clone() for n, p in task.objective.named_parameters() if p.grad is not None}
    task.objective.zero_grad(set_to_none=True)
    return float(loss.detach()), found


@pytest.mark.parametrize("learns", ["both", "picture", "sound"])
@pytest.mark.parametrize("again", [True, False])
def test_gradients_are_those_of_whole_blocks(learns: str, again: bool) -> None:
    pipe = MovaPipeline.from_pretrained(TINY)
    task = task_of(pipe, learn=learns)
    for step in (next(s for s in range(20) if task.expert_at(s) == expert) for expert in ("high", "low")):
        loss, plain = gradients(task, step)
        with lean_blocks((pipe.high_noise, pipe.low_noise), None, None, True, again):
            close, found = gradients(task, step)
        assert close == pytest.approx(loss, rel=1e-5)
        assert found.keys() == plain.keys()
        assert max(float(g.abs().max()) for g in plain.values()) > 1e-3
        for name, slope in plain.items():
            torch.testing.assert_close(found[name], slope, rtol=1e-4, atol=1e-6 + 1e-5 * float(slope.abs().max()))


def test_a_wrong_part_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one part of the tokens is left out, the gradients are others."""
    pipe = MovaPipeline.from_pretrained(TINY)
    task = task_of(pipe)
    _, plain = gradients(task, 0)
    whole = parts._slices
    monkeypatch.setattr(parts, "_slices", lambda t: list(whole(t))[:-1])
    with lean_blocks((pipe.high_noise, pipe.low_noise), None, None, True):
        _, found = gradients(task, 0)
    assert any(not torch.allclose(found[n], g, rtol=1e-2, atol=1e-5) for n, g in plain.items())


def test_a_streamed_training_in_parts_learns_the_same_and_reuses_its_slabs() -> None:
    losses, factors = learn(task_of(MovaPipeline.from_pretrained(TINY)), None)
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(**storage("pageable", 1)))
    task, waiting, carrier = task_of(pipe), HostStates(), pipe.carrier
    assert carrier.streamer is not None
    streamer = TwoWayStreamer(carrier.networks, carrier.shared, carrier.streamer.layout, carrier.device)
    with lean_blocks((pipe.high_noise, pipe.low_noise), streamer, waiting, True), streamer.running():
        found, learned = learn(task, None)
        assert streamer.counters.copied_back == 0
    assert found == pytest.approx(losses, rel=1e-3)
    for a, b in zip(learned, factors, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=2e-3)
    video = 4 * 4 * 48 * int(pipe.high_noise.config.video["dim"])  # bytes of a batch's states
    blocks, steps = 4, len(losses)
    assert waiting.taken == waiting.brought == blocks * steps * video
    assert waiting.held == blocks * video  # slabs of one step


def test_eight_bits_in_parts_are_whole_ones() -> None:
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(weights="int8", **storage("pageable", 1)))
    task, carrier, found = task_of(pipe), pipe.carrier, []
    assert carrier.streamer is not None
    for in_parts in (False, True):
        streamer = TwoWayStreamer(carrier.networks, carrier.shared, carrier.streamer.layout, carrier.device)
        with lean_blocks((pipe.high_noise, pipe.low_noise), streamer, None, in_parts), streamer.running():
            found.append(gradients(task, 0)[1])
    assert found[0].keys() == found[1].keys()
    for name, slope in found[0].items():
        torch.testing.assert_close(found[1][name], slope, rtol=1e-4, atol=1e-6 + 1e-5 * float(slope.abs().max()))


def test_bfloat16_in_parts_is_as_near_to_float32_as_whole() -> None:
    def slopes(**how: bool) -> dict[str, torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=how.pop("half", True)):
            pipe = MovaPipeline.from_pretrained(TINY)
            with lean_blocks((pipe.high_noise, pipe.low_noise), None, None, **how):
                return gradients(task_of(pipe), 0)[1]

    exact, whole, found = slopes(half=False), slopes(), slopes(in_parts=True)

    def error(values: dict[str, torch.Tensor]) -> float:
        return sum(float((values[n] - g).square().sum()) for n, g in exact.items()) ** 0.5

    assert error(found) < 1.2 * error(whole)


def test_a_step_takes_what_was_foretold_and_a_fraction_of_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "TOKENS", 64)
    graph_bytes.cache_clear()
    pipe = MovaPipeline.from_pretrained(TINY)
    task, sizes = peak_task(pipe), read_sizes(TINY)
    settings = replace(task.settings, learn="both")
    clip = 32 * 8, 32 * 8, 9, 24.0
    load = load_of(TINY, sizes, clip, settings, 1, True)
    for in_parts, accumulate in ((False, 1), (True, 1), (True, 2)):
        way = start("cpu", "float32", "float32", "device", accumulate, True, False, in_parts)
        foretold = working(sizes, load, way, settings.batch // accumulate)[1]
        batch = task.split(task.batch(0, 0, 1), accumulate)[0]
        with lean_blocks((pipe.high_noise, pipe.low_noise), None, None, in_parts), Meter() as meter:
            loss, _ = task.objective(**batch)
            loss.backward()
        task.objective.zero_grad(set_to_none=True)
        del loss
        print(f"in parts: {in_parts}, {accumulate}: foretold {foretold / 1e6:.1f} MB, taken {meter.peak / 1e6:.1f} MB")
        assert abs(meter.peak - foretold) <= 0.1 * foretold
        if not in_parts:
            whole = meter.peak
    assert meter.peak < 0.3 * whole

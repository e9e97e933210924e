"""Streaming: bit for bit what everything on the device gives, and the counters that say nothing is moved in vain."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch

from engine import MovaPipeline
from engine.lora import LoraStack
from engine.memory.slabs import Part
from tests.make_checkpoint import SIZES, make_checkpoint
from tests.memory_parts import TINY, plan, run, same, storage


@pytest.fixture(scope="module")
def resident():
    return run(MovaPipeline.from_pretrained(TINY))


@pytest.mark.parametrize("experts", ["host", "swap"])
@pytest.mark.parametrize("ring", [1, 2])
@pytest.mark.parametrize(
    ("kind", "residents"),
    [("pageable", 0), ("pageable", 1), ("pinned", 2), ("pageable", 3), ("mapped", 1), ("mixed", 0)],
)
def test_streamed_is_bit_identical_to_resident(resident, experts, ring, kind, residents):
    if experts == "host" and kind in ("mapped", "mixed"):
        pytest.skip("with both experts in main memory nothing is read from files")
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(experts=experts, ring=ring, **storage(kind, residents)))
    assert same(run(pipe), resident)
    assert same(run(pipe), resident)  # the ring, the residents and the swapped expert are right again
    counters = pipe.carrier.streamer.counters
    check_counters(pipe, counters, 4 - residents, ring)


def check_counters(pipe, counters, streamed, ring):
    streamer = pipe.carrier.streamer
    slabs = sum(streamer._size(0, i) for i in streamer.order)
    assert len(counters.steps) == 8
    assert [s.blocks for s in counters.steps] == [streamed] * 8
    assert [s.streamed for s in counters.steps] == [slabs] * 8  # once for all guidance branches
    assert all(s.prefetched == streamed for s in counters.steps[1:]), counters.steps
    assert counters.copied == 2 * 8 * slabs  # two runs: nothing twice, nothing for the bin
    assert counters.copied_back == 0
    slots = sum(slot.buffer.numel() for slot in streamer._slots)
    assert slots == 0, "the ring is given back"


def test_everything_resident_is_the_same(resident):
    for experts in ("device", "host", "swap"):
        pipe = MovaPipeline.from_pretrained(TINY, plan=plan(experts=experts, device="cpu", **storage("mapped", 4)))
        assert same(run(pipe), resident), experts


@pytest.mark.parametrize("name", ["wide", "square", "fine", "single"])
def test_other_sizes(tmp_path, name):
    folder = make_checkpoint(tmp_path / "model", SIZES[name])
    plain = MovaPipeline.from_pretrained(folder)
    layers = len(plain.high_noise.blocks)
    arguments = {"height": 64, "width": 64, "num_frames": 9, "fps": SIZES[name].fps, "num_inference_steps": 3}
    expected = run(plain, **arguments)
    for experts, ring, residents in (("swap", 1, 0), ("host", 2, layers // 2)):
        lean = MovaPipeline.from_pretrained(
            folder, plan=plan(experts=experts, ring=ring, **storage("pageable", residents, layers))
        )
        assert same(run(lean, **arguments), expected)


def test_pinned_bytes_are_those_of_the_slabs():
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(experts="swap", **storage("pinned")))
    streamer = pipe.carrier.streamer
    weights = sum(p.numel() * p.element_size() for p in pipe.high_noise.blocks.parameters())
    assert streamer.counters.pinned == sum(streamer._size(0, i) for i in range(4))
    full = [Part([torch.nn.Linear(5120, 5120, dtype=torch.bfloat16, device="meta")], torch.bfloat16)]
    print(f"pinned {streamer.counters.pinned}, weights {weights}")
    assert full[0].size <= 1.02 * (5120 * 5120 + 5120) * 2  # what alignment adds to layers of full size


def test_the_alignment_of_a_full_size_block_costs_next_to_nothing():
    from engine.memory.plan import slab_bytes
    from engine.memory.sizes import RELEASED
    from engine.models.towers import TowerBlock

    with torch.device("meta"):
        block = TowerBlock(5120, 13824, 40, 1e-6)
    part = Part([block], torch.bfloat16)
    assert part.size <= 1.02 * slab_bytes(RELEASED, 39, "bfloat16", "bfloat16")[0]
    assert part.size >= slab_bytes(RELEASED, 39, "bfloat16", "bfloat16")[0]


@pytest.mark.parametrize("experts", ["host", "swap"])
def test_adapters_stream_with_their_blocks(tmp_path, experts):
    file = adapter(tmp_path)
    plain = MovaPipeline.from_pretrained(TINY)
    lean = MovaPipeline.from_pretrained(TINY, plan=plan(experts=experts, **storage("pageable", 1)))
    before = run(plain)
    results = []
    for pipe in (plain, lean):
        stack = LoraStack(pipe.high_noise, pipe.low_noise)
        applied = stack.attach(stack.fit(file, "both"))
        assert applied.has_effect
        results.append(run(pipe))
        stack.detach(applied.name)
        results.append(run(pipe))
    assert not same(results[0], before)
    assert same(results[0], results[2])
    assert same(results[1], before)
    assert same(results[3], before)


def adapter(folder, norms=True, model=TINY):
    """Factors for linear layers of both towers, and a difference of a norm, which is written into the parameter."""
    from safetensors.torch import save_file

    from engine.lora.formats import read_lora

    g = torch.Generator().manual_seed(5)
    tower = MovaPipeline.from_pretrained(model).high_noise
    state = {}
    for layer in range(len(tower.blocks)):
        for name in ("self_attn.q", "cross_attn.o", "ffn.0"):
            weight = tower.get_submodule(f"blocks.{layer}.video.{name}").weight
            state[f"blocks.{layer}.{name}.lora_A.weight"] = torch.randn(4, weight.shape[1], generator=g) / 4
            state[f"blocks.{layer}.{name}.lora_B.weight"] = torch.randn(weight.shape[0], 4, generator=g) / 4
        width = tower.blocks[layer].video.norm3.weight.shape[0]
        if norms:
            state[f"blocks.{layer}.norm3.diff"] = torch.randn(width, generator=g) / 4
    save_file(state, folder / "lora.safetensors")
    return read_lora(folder / "lora.safetensors")


def test_a_cancelled_run_leaves_nothing_on_the_device(resident):
    from engine.errors import Cancelled

    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(experts="swap", **storage("mixed", 1)))
    with pytest.raises(Cancelled):
        run(pipe, callback_on_step_end=lambda state: state.step < 3)
    streamer = pipe.carrier.streamer
    assert (streamer.counters.device, streamer._slots, streamer._hooks) == (0, [], [])
    assert same(run(pipe), resident)


def test_what_is_on_the_device_is_what_the_layout_says():
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(experts="swap", **storage("pageable", 2)))
    run(pipe)
    streamer = pipe.carrier.streamer
    ends = max(n.ends.size for n in streamer.networks)
    stay = sum(streamer._size(0, i) for i in streamer.layout.residents)
    ring = 2 * max(streamer._size(0, i) for i in streamer.order)
    assert streamer.counters.device_peak == ends + stay + ring


def test_mapped_weights_take_no_memory_of_their_own():
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(experts="swap", **storage("mapped")))
    gc.collect()
    assert pipe.carrier.streamer.counters.host == 0
    run(pipe)
    assert pipe.carrier.streamer.counters.host == 0


def test_branches_one_by_one_stream_the_weights_once():
    together = MovaPipeline.from_pretrained(TINY, plan=plan())
    apart = MovaPipeline.from_pretrained(TINY, plan=replace(plan(), at_once=1))
    a, b = run(together, bridge_guidance_scale=3.0), run(apart, bridge_guidance_scale=3.0)
    error = max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))
    print(f"one by one against together: {error:.1e}")
    assert error <= 1e-4
    steps = [p.carrier.streamer.counters.steps for p in (together, apart)]
    assert steps[0] == steps[1]

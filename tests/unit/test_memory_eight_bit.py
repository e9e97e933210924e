"""8-bit weights: exactly the network of the unpacked weights, at half the size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine import MovaPipeline
from engine.lora import LoraStack
from engine.memory.eight_bit import EightBitLinear, make_eight_bit, pack, unpack
from tests.memory_parts import TINY, plan, run, same, storage
from tests.unit.test_memory_streaming import adapter


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packing_loses_at_most_half_a_step(kind, dtype):
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    weight[3] = 0
    weight[4, 5] = 40.0
    packed, scale = pack(weight, kind)
    assert packed.element_size() == 1
    back = unpack(packed, scale, torch.float32)
    error = (back - weight.float()).abs()
    assert torch.equal(back[3], torch.zeros(96))
    if kind == "int8":
        assert bool((error <= 0.5001 * scale).all())
    else:
        assert bool((error <= weight.float().abs() / 16 + scale * 2**-9).all())  # three bits of mantissa
    assert torch.equal(pack(back, kind)[0].float(), packed.float())  # packing again changes nothing
    assert not torch.equal(back[4], weight[4].float())
    assert weight[4, 5] == 40  # the given weight was not touched


def twin(kind):
    """The plain network with the weights that are left of 8 bits."""
    pipe = MovaPipeline.from_pretrained(TINY)
    for expert in (pipe.high_noise, pipe.low_noise):
        done = set()
        for module in expert.blocks.modules():
            if type(module) is nn.Linear and not hasattr(module, "seen"):
                module.weight.data = unpack(*pack(module.weight.data, kind), torch.float32)
                module.seen = True
                done.add(module)
    return pipe


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("experts", ["host", "swap", "device"])
def test_a_run_is_bit_identical_to_the_unpacked_twin(kind, experts):
    where = storage("mapped", 4) if experts == "device" else storage("pageable", 1)
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(weights=kind, experts=experts, **where))
    got = run(pipe)
    assert same(got, run(twin(kind)))
    exact = run(MovaPipeline.from_pretrained(TINY))
    assert not same(got, exact)
    error = float((got[0] - exact[0]).norm() / exact[0].norm()), float((got[1] - exact[1]).norm() / exact[1].norm())
    print(f"{kind}: relative difference of picture {error[0]:.3f}, of sound {error[1]:.3f}")


@pytest.mark.parametrize("storing", ["mapped", "mixed"])
def test_packed_on_the_way_is_the_same_as_packed_before(storing):
    pipe = MovaPipeline.from_pretrained(TINY, plan=plan(weights="int8", experts="swap", **storage(storing)))
    assert same(run(pipe), run(twin("int8")))


def test_slabs_are_a_quarter_of_float32():
    full = MovaPipeline.from_pretrained(TINY, plan=plan(experts="host"))
    packed = MovaPipeline.from_pretrained(TINY, plan=plan(experts="host", weights="int8"))
    sizes = [p.carrier.streamer.counters.host for p in (full, packed)]
    print(f"host bytes: float32 {sizes[0]}, int8 {sizes[1]}")
    assert sizes[1] < 0.5 * sizes[0]  # a tiny model's norms and scales weigh much


@pytest.mark.parametrize("experts", ["host", "swap"])
def test_adapters_stand_beside_packed_weights(tmp_path, experts):
    file = adapter(tmp_path, norms=False)
    results = []
    for pipe in (
        twin("int8"),
        MovaPipeline.from_pretrained(TINY, plan=plan(weights="int8", experts=experts, **storage("pageable", 1))),
    ):
        stack = LoraStack(pipe.high_noise, pipe.low_noise)
        assert stack.attach(stack.fit(file, "both")).has_effect
        results.append(run(pipe))
    assert same(*results)


def test_only_linear_layers_of_blocks_are_replaced():
    network = MovaPipeline.from_pretrained(TINY).high_noise
    count = make_eight_bit(network.blocks, "int8")
    found = [m for m in network.modules() if isinstance(m, EightBitLinear)]
    assert len(found) == count
    assert not any(isinstance(m, EightBitLinear) for m in network.video_ends.modules())
    assert not [m for m in network.blocks.modules() if type(m) is nn.Linear]
    assert make_eight_bit(network.blocks, "int8") == 0

"""The model in the box: streamed, by every plan, it makes bit for bit the clip that it makes all resident."""

from __future__ import annotations

import pytest

from engine import MovaPipeline
from engine.errors import CheckpointError
from engine.folders import find_model
from engine.lora import LoraStack
from tests.memory_parts import plan, run, same, storage
from tests.unit.test_memory_streaming import adapter

CLIP = {"height": 96, "width": 96, "num_frames": 9, "num_inference_steps": 4, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def folder():
    try:
        return find_model("demo")
    except CheckpointError as error:
        pytest.skip(f"the bundled model is not in this tree: {error}")


@pytest.fixture(scope="module")
def lora(folder, tmp_path_factory):
    return adapter(tmp_path_factory.mktemp("lora"), model=folder)


@pytest.fixture(scope="module")
def resident(folder, lora):
    """What it makes without streaming: plain, and with the adapter."""
    return clips(MovaPipeline.from_pretrained(folder), lora)


def clips(pipe, lora):
    before = run(pipe, **CLIP)
    stack = LoraStack(pipe.high_noise, pipe.low_noise)
    applied = stack.attach(stack.fit(lora, "both"))
    adapted = run(pipe, **CLIP)
    stack.detach(applied.name)
    assert same(run(pipe, **CLIP), before)
    return before, adapted


def test_the_adapter_and_both_experts_matter(folder, resident):
    """Else the comparisons below would show nothing."""
    assert not same(*resident)
    pipe = MovaPipeline.from_pretrained(folder)
    used = set()
    announce = pipe.carrier.step
    pipe.carrier.step = lambda network, following: (used.add(id(network)), announce(network, following))[1]
    run(pipe, **CLIP)
    assert used == {id(pipe.high_noise), id(pipe.low_noise)}


@pytest.mark.parametrize("experts", ["host", "swap"])
@pytest.mark.parametrize("ring", [1, 2])
@pytest.mark.parametrize(("kind", "residents"), [("pageable", 0), ("pinned", 2), ("mapped", 1)])
def test_streamed_equals_resident(folder, lora, resident, experts, ring, kind, residents):
    if experts == "host" and kind == "mapped":
        pytest.skip("with both experts in main memory nothing is read from files")
    layers = len(MovaPipeline.from_pretrained(folder).high_noise.blocks)
    streamed = plan(experts=experts, ring=ring, **storage(kind, residents, layers))
    pipe = MovaPipeline.from_pretrained(folder, plan=streamed)
    plain, adapted = clips(pipe, lora)
    assert same(plain, resident[0])
    assert same(adapted, resident[1])
    counters = pipe.carrier.streamer.counters
    assert [s.blocks for s in counters.steps] == [layers - residents] * CLIP["num_inference_steps"]
    assert all(s.prefetched == layers - residents for s in counters.steps[1:])
    assert counters.copied_back == 0

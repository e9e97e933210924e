"""More steps for the sound than for the picture: the audio tower alone, with what the bridge added before."""

from __future__ import annotations

import pytest
import torch

from engine import MovaPipeline
from engine.denoise import denoise, hearing
from engine.errors import RequestError
from engine.guided import Guidance, GuidedVelocity
from engine.models import lean
from engine.schedule import Step
from tests.memory_parts import TINY, plan, run, same, storage


@pytest.fixture(scope="module")
def pipe() -> MovaPipeline:
    return MovaPipeline.from_pretrained(TINY)


def inputs(pipe: MovaPipeline, batch: int) -> tuple[torch.Tensor, ...]:
    network = pipe.low_noise
    v, a = network.config.video, network.config.audio
    draw = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    times = torch.full((batch,), 600.0), torch.full((batch,), 400.0)
    return noise(batch, v["in_dim"], 3, 4, 6), noise(batch, a["in_dim"], 20), *times, noise(batch, 7, v["text_dim"])


@pytest.mark.parametrize("v2a", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("at_once", [None, 1])
@torch.no_grad()
def test_the_sound_alone_equals_the_whole_network(pipe, v2a, at_once, monkeypatch):
    """At the same noise level nothing is approximated: the audio tower gives what all of the network gave."""
    network = pipe.low_noise
    for block in network.blocks:
        monkeypatch.setattr(block, "at_once", at_once)
    video, audio, video_time, audio_time, text = inputs(pipe, batch=2)
    with hearing(network):
        whole = network(video, audio, video_time, audio_time, text, 6.0, 1.0, v2a)[1]
        alone = network.sound(audio, audio_time, text)
        later = network.sound(audio, audio_time - 100, text)
    assert float((alone - whole).abs().max()) <= 1e-5
    assert not torch.allclose(later, whole, atol=1e-3)
    assert network.heard is None


def test_one_part_is_the_plain_run(pipe):
    assert same(run(pipe, sound_steps=1), run(pipe))


def test_more_parts_change_the_sound_and_leave_nothing_behind(pipe):
    plain, finer = run(pipe), run(pipe, sound_steps=3)
    assert float((finer[1] - plain[1]).norm() / plain[1].norm()) > 1e-3
    assert same(run(pipe, sound_steps=3), finer)
    assert pipe.low_noise.heard is None
    assert same(run(pipe), plain)


def test_the_parts_are_steps_of_the_sound(pipe):
    """With the bridge off the sound does not see the picture: one step in four parts is then four steps."""
    network = pipe.low_noise
    video, audio, _, _, text = inputs(pipe, batch=1)
    channels = network.config.video["out_dim"]
    start, condition = video[:, :channels], video[:, channels:]
    unbridged = GuidedVelocity(condition, text, -text, Guidance(3.0, 1.0, 0.0, 0.0), 6.0)

    def sound(steps: list[Step], parts: int) -> torch.Tensor:
        with hearing(network):
            return denoise(lambda t: network, start, audio, unbridged, steps, sound_steps=parts)[1]

    whole = [Step(0, 1000.0, 1000.0, -0.6, -0.4), Step(1, 400.0, 600.0, -0.4, -0.6)]
    fine = [
        Step(i, 1000.0, t, -0.1, d)
        for i, (t, d) in enumerate([(1000.0, -0.2), (800.0, -0.2), (600.0, -0.3), (300.0, -0.3)])
    ]
    assert float((sound(whole, 2) - sound(fine, 1)).abs().max()) <= 1e-5


def test_streamed_and_long_runs_are_the_same(pipe, monkeypatch):
    expected = run(pipe, sound_steps=2)
    streamed = MovaPipeline.from_pretrained(TINY, plan=plan(experts="swap", **storage("pageable", 1)))
    assert same(run(streamed, sound_steps=2), expected)
    monkeypatch.setattr(lean, "TOKENS", 16)
    found = run(pipe, sound_steps=2)
    assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) <= 1e-4


def test_with_the_step_cache(pipe):
    """Steps that the cache leaves out still refine the sound, with what the bridge added last."""
    found = run(pipe, sound_steps=2, step_cache=1.0)
    assert not same(found, run(pipe, step_cache=1.0))
    assert all(torch.isfinite(x).all() for x in found)


@pytest.mark.parametrize("count", [0, 9, 1.5])
def test_a_number_out_of_range_is_refused(pipe, count):
    with pytest.raises(RequestError, match="sound steps"):
        run(pipe, sound_steps=count)

"""Two and three processes on one clip give what one process gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine import MovaPipeline
from engine.denoise import hearing
from engine.distributed.clip import make_together, way
from engine.distributed.guidance import GuidanceSplit
from engine.guidance import branches, combine
from engine.inputs import noise_for
from engine.schedule import paired_steps
from engine.timing import ClipLength
from tests.memory_parts import SMALL, TINY, plan, storage

ARGUMENTS = SMALL | {"prompt": "a bell rings", "negative_prompt": "noise", "fps": 24.0, "num_inference_steps": 4}
RESIDENT = plan(experts="device", at_once=1, **storage("mapped", 4))


def apart(one, other) -> float:
    return max(float((one[k] - other[k]).abs().max()) for k in ("video_latents", "audio_latents"))


def alone(arguments, at_once: int) -> dict:
    out = MovaPipeline.from_pretrained(TINY, plan=replace(RESIDENT, at_once=at_once))(**arguments)
    return {"video_latents": out.video_latents, "audio_latents": out.audio_latents}


@torch.inference_mode()
def one_after_the_other(bridge: float, frames: int = 9, sound_steps: int = 1) -> dict:
    """One process that evaluates the network once a branch."""
    pipe = MovaPipeline.from_pretrained(TINY)
    texts = {positive: pipe.encode_prompt(ARGUMENTS["prompt" if positive else "negative_prompt"]).embeds
             for positive in (False, True)}  # fmt: skip
    condition = pipe.encode_condition(num_frames=frames, height=64, width=96)
    length = ClipLength(frames, 24.0, pipe.audio_vae.sample_rate, pipe.audio_vae.hop, pipe.stride)
    video = noise_for(3, "video", (16, length.latent_frames, 8, 12))[None]
    audio = noise_for(3, "audio", (16, length.audio_latents))[None]
    steps, todo = paired_steps(4, 5.0, 5.0, pipe.schedule), branches(5.0, bridge)
    with hearing(pipe.high_noise, pipe.low_noise):
        for step, after in zip(steps, [*steps[1:], None], strict=True):
            network, found, heard = pipe.expert_at(step.video_timestep), [], []
            for b in todo:
                found.append(
                    pipe.velocity(
                        video, audio, condition, texts[b.positive], step.video_timestep, bridge_scale=float(b.bridged)
                    )
                )
                heard.append(network.heard)
            video = video + step.video_delta * combine([v for v, _ in found], 5.0, bridge)
            audio = audio + step.audio_delta / sound_steps * combine([a for _, a in found], 5.0, bridge)
            end = after.audio_timestep if after else 0.0
            for part in range(1, sound_steps):
                within = step.audio_timestep + (end - step.audio_timestep) * part / sound_steps
                alone = []
                for b, network.heard in zip(todo, heard, strict=True):
                    alone.append(network.sound(audio, torch.tensor([within], dtype=torch.float64), texts[b.positive]))
                audio = audio + step.audio_delta / sound_steps * combine(alone, 5.0, bridge)
    return {"video_latents": video, "audio_latents": audio}


@pytest.mark.parametrize(("count", "bridge"), [(2, 1.0), (3, 3.0)])
def test_guidance_branches_on_several_processes_are_exact(count, bridge):
    together = make_together(count, TINY, RESIDENT, 3, ARGUMENTS | {"bridge_guidance_scale": bridge}, "guidance")
    error = apart(together, one_after_the_other(bridge))
    print(f"guidance on {count} processes, bridge {bridge}: max abs difference {error}")
    assert error == 0


@pytest.mark.parametrize("frames", [9, 13])
def test_ulysses_on_two_processes(frames):
    """13 frames are 4 latent frames of 24 tokens, 9 are 3; the sound's 19 and 27 tokens do not divide."""
    arguments = ARGUMENTS | {"num_frames": frames, "height": 48, "width": 80}
    together = make_together(2, TINY, RESIDENT, 2, arguments, "ulysses")
    error = apart(together, alone(arguments, at_once=2))
    # In four steps: q, k, v and the result of four layers, the picture for three layers of sound, and the end.
    assert together["exchanges"] == 4 * (4 * 4 + 3 + 1)
    print(f"Ulysses on 2 processes, {frames} frames: max abs difference {error:.1e}")
    assert error <= 1e-5


def test_streamed_blocks_and_ulysses_go_together():
    streamed = plan(experts="swap", at_once=1, **storage("pageable", 1))
    together = make_together(2, TINY, streamed, 2, ARGUMENTS | {"num_frames": 5}, "ulysses")
    assert apart(together, alone(ARGUMENTS | {"num_frames": 5}, at_once=1)) <= 1e-5


def test_more_steps_of_the_sound_on_two_processes():
    more = ARGUMENTS | {"num_frames": 5, "sound_steps": 2}
    expected = {"guidance": one_after_the_other(1.0, frames=5, sound_steps=2), "ulysses": alone(more, at_once=2)}
    for kind, reference in expected.items():
        error = apart(make_together(2, TINY, RESIDENT, 2, more, kind), reference)
        print(f"two steps of the sound, {kind} on 2 processes: max abs difference {error:.1e}")
        assert error <= 1e-5


def test_which_way():
    assert [way(n, 2) for n in (2, 3, 4)] == ["guidance", "ulysses", "ulysses"]
    assert way(3, 3) == "guidance"


def test_branches_are_shared_out(monkeypatch):
    for count, many, expected in ((2, 3, [[0, 2], [1]]), (3, 2, [[0], [1], [0]]), (2, 2, [[0], [1]])):
        for rank in range(count):
            monkeypatch.setattr(GuidanceSplit, "rank", property(lambda self, rank=rank: rank))
            monkeypatch.setattr(GuidanceSplit, "count", property(lambda self, count=count: count))
            assert GuidanceSplit().mine(many) == expected[rank]

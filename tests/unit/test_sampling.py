"""What sampling promises: batches equal singles, guidance equals its formula, a seed is a seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights

from engine import MovaPipeline
from engine.errors import Cancelled, NumericsError
from engine.models import AudioTower, Bridge, VideoTower
from engine.schedule import paired_steps
from tests.bench.velocity import measure

TINY = Path(__file__).parents[1] / "data" / "mova-tiny" / "checkpoint"
SMALL = {"height": 64, "width": 96, "num_frames": 9, "num_inference_steps": 4, "output_type": "latent"}


@pytest.fixture(scope="module")
def pipe() -> MovaPipeline:
    return MovaPipeline.from_pretrained(TINY)


def apart(a, b) -> float:
    return max(
        float((a.video_latents - b.video_latents).abs().max()), float((a.audio_latents - b.audio_latents).abs().max())
    )


@pytest.mark.parametrize("bridge", [1.0, 3.5])
def test_batched_guidance_equals_separate_passes(pipe, bridge):
    out = pipe("a bell", negative_prompt="noise", seed=3, bridge_guidance_scale=bridge, **SMALL)
    pos, neg = pipe.encode_prompt("a bell").embeds, pipe.encode_prompt("noise").embeds
    condition = pipe.encode_condition(num_frames=9, height=64, width=96)
    start = pipe("a bell", seed=3, guidance_scale=1.0, **(SMALL | {"num_inference_steps": 1}))
    step = paired_steps(1, 5.0, 5.0, pipe.schedule)[0]
    first = pipe_noise(pipe, 3)
    assert start.video_latents.shape == first[0].shape
    assert step.video_delta == -1
    video, audio = first
    for s in paired_steps(4, 5.0, 5.0, pipe.schedule):
        v = [
            pipe.velocity(video, audio, condition, text, s.video_timestep, bridge_scale=on)
            for text, on in ((neg, 0.0), (neg, 1.0), (pos, 1.0))
        ]
        guided = [v[0][i] + bridge * (v[1][i] - v[0][i]) + 5.0 * (v[2][i] - v[1][i]) for i in (0, 1)]
        video, audio = video + s.video_delta * guided[0], audio + s.audio_delta * guided[1]
    error = max(float((out.video_latents - video).abs().max()), float((out.audio_latents - audio).abs().max()))
    print(f"bridge guidance {bridge}: {error:.1e}")
    assert error <= 1e-5


def pipe_noise(pipe, seed):
    from engine.inputs import noise_for

    return noise_for(seed, "video", (16, 3, 8, 12))[None], noise_for(seed, "audio", (16, 19))[None]


def test_batch_of_two_equals_two_singles(pipe):
    both = pipe(["a bell", "a red ball on the floor"], seed=[5, 9], **SMALL)
    singles = [pipe("a bell", seed=5, **SMALL), pipe("a red ball on the floor", seed=9, **SMALL)]
    error = max(
        float((getattr(both, side)[i] - getattr(singles[i], side)[0]).abs().max())
        for i in (0, 1)
        for side in ("video_latents", "audio_latents")
    )
    print(f"batch of two: {error:.1e}")
    assert error <= 1e-5


def test_same_seed_is_bit_identical_and_threads_do_not_matter(pipe):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, again = pipe("a bell", seed=5, **SMALL), pipe("a bell", seed=5, **SMALL)
        assert apart(one, again) == 0
        torch.set_num_threads(4)
        four, again = pipe("a bell", seed=5, **SMALL), pipe("a bell", seed=5, **SMALL)
        assert apart(four, again) == 0
        print(f"1 thread against 4: {apart(one, four):.1e}")
        assert apart(one, four) <= 1e-4
    finally:
        torch.set_num_threads(threads)
    assert apart(one, pipe("a bell", seed=6, **SMALL)) > 0.1


def test_guidance_one_is_one_pass_and_reads_no_negative_prompt(pipe, monkeypatch):
    texts, batches = [], []
    real = pipe.encode_prompt
    monkeypatch.setattr(pipe, "encode_prompt", lambda p: texts.append(p) or real(p))
    hooks = [
        network.register_forward_pre_hook(lambda _, args: batches.append(args[0].shape[0]))
        for network in (pipe.high_noise, pipe.low_noise)
    ]
    try:
        pipe("a bell", seed=1, guidance_scale=1.0, **SMALL)
        assert (len(texts), batches) == (1, [1] * 4)
        pipe("a bell", seed=1, **SMALL)
        assert (len(texts), batches) == (3, [1] * 4 + [2] * 4)
    finally:
        for hook in hooks:
            hook.remove()


def test_a_given_side_is_returned_unchanged(pipe):
    made = pipe("a bell", seed=1, **SMALL)
    sound = pipe("a bell", seed=2, given_video_latents=made.video_latents, **SMALL)
    assert torch.equal(sound.video_latents, made.video_latents)
    assert not torch.equal(sound.audio_latents, made.audio_latents)
    picture = pipe("a bell", seed=2, given_audio_latents=made.audio_latents, **SMALL)
    assert torch.equal(picture.audio_latents, made.audio_latents)
    assert not torch.equal(picture.video_latents, made.video_latents)


def test_outputs_have_their_promised_forms(pipe):
    arguments = SMALL | {"seed": 1, "num_inference_steps": 1}
    out = pipe("x", **(arguments | {"output_type": "np"}))
    assert out.frames.shape == (1, 9, 64, 96, 3)
    assert str(out.frames.dtype) == "float32"
    assert 0 <= out.frames.min() <= out.frames.max() <= 1
    assert out.audio.shape == (1, round(9 / 24 * 48000))
    assert pipe("x", **(arguments | {"output_type": "pt"})).frames.shape == (1, 9, 3, 64, 96)
    assert pipe("x", **(arguments | {"output_type": "pil"})).frames[0][0].size == (96, 64)
    assert pipe("word " * 600, **arguments).truncated == [True]


def test_a_callback_stops_the_run(pipe):
    seen = []

    def stop(state):
        seen.append((state.step, state.steps, state.timesteps, [x.shape for x in state.latents]))
        return state.step < 2

    with pytest.raises(Cancelled, match="step 2 of 4"):
        pipe("x", seed=1, callback_on_step_end=stop, **SMALL)
    assert [s[:2] for s in seen] == [(1, 4), (2, 4)]


def test_broken_latents_end_the_run(pipe):
    video, audio = pipe_noise(pipe, 1)
    video[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericsError):
        pipe("x", video_latents=video, audio_latents=audio, **SMALL)


def test_experts_share_fifty_steps_as_published(pipe):
    experts = [pipe.expert_at(s.video_timestep) is pipe.high_noise for s in paired_steps(50, 5.0, 5.0, pipe.schedule)]
    assert (sum(experts), len(experts)) == (18, 50)


def test_released_configs_have_the_released_tensors():
    common = {"freq_dim": 256, "text_dim": 4096, "eps": 1e-6}
    with init_empty_weights():
        models = [
            VideoTower(
                dim=5120,
                in_dim=36,
                ffn_dim=13824,
                out_dim=16,
                patch_size=(1, 2, 2),
                num_heads=40,
                num_layers=40,
                **common,
            ),
            AudioTower(
                dim=1536, in_dim=128, ffn_dim=8960, out_dim=128, patch_size=(1,), num_heads=12, num_layers=30, **common
            ),
            Bridge(40, 30, 5120, 1536, 50.0, 128),
        ]
    found = [(len(m.state_dict()), round(sum(p.numel() for p in m.parameters()) / 1e9, 3)) for m in models]
    print(found)
    assert found == [(1095, 14.289), (825, 1.419), (720, 2.660)]


def test_import_is_quiet_and_light():
    script = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('socket opened')\n"
        "socket.socket.connect = refuse; socket.create_connection = refuse; socket.socket.bind = refuse\n"
        "import engine; assert 'torch' not in sys.modules\n"
        "engine.MovaPipeline\n"
        "bad = [m for m in ('gradio', 'llama_cpp') if m in sys.modules]; assert not bad, bad\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=TINY.parents[3], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_one_velocity_is_no_slower_than_the_naive_twin():
    ratios = []
    while len(ratios) < 3 and max(ratios, default=0.0) <= 0.9:  # what other processes take hits one time, not three
        figures = measure(repeats=3)
        print(figures)
        assert figures["max_abs_difference"] <= 1e-4
        ratios.append(figures["ratio_naive_over_ours"])
    assert max(ratios) > 0.9  # about 1.6 here; the margin is for a busy machine

"""Every tensor of the golden file, through the public classes, in float32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from engine import MovaPipeline
from engine.decode import decode_audio, decode_video
from engine.schedule import paired_steps, sigmas

FOLDER = Path(__file__).parents[1] / "data" / "mova-tiny"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden():
    with safe_open(FOLDER / "golden.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        return tensors, json.loads(file.metadata()["case"])


@pytest.fixture(scope="module")
def pipe():
    return MovaPipeline.from_pretrained(FOLDER / "checkpoint", torch_dtype=torch.float32)


def close(actual, expected, name):
    error = (torch.as_tensor(actual).float() - expected.float()).abs().max().item()
    print(f"{name}: {error:.2e}")
    assert actual.shape == expected.shape
    assert error <= TOLERANCE, f"{name}: {error}"


def test_text(pipe, golden):
    tensors, case = golden
    positive, negative = pipe.encode_prompt(case["prompt"]), pipe.encode_prompt(case["negative_prompt"])
    assert torch.equal(positive.token_ids, tensors["text.prompt_ids"])
    close(positive.embeds, tensors["text.prompt"], "text.prompt")
    close(negative.embeds, tensors["text.negative"], "text.negative")
    assert positive.truncated == [False]


def test_condition(pipe, golden):
    tensors, case = golden
    condition = pipe.encode_condition(
        Image.fromarray(tensors["image"].numpy()),
        num_frames=case["num_frames"],
        height=case["height"],
        width=case["width"],
    )
    close(condition, tensors["condition"], "condition")


@pytest.mark.parametrize("steps", [50, 25, 8, 4])
def test_schedule(pipe, golden, steps):
    tensors, _ = golden
    path = sigmas(steps, 5.0, pipe.schedule)
    close(path[:-1].float(), tensors[f"schedule.{steps}.sigmas"], "sigmas")
    close((path[:-1] * 1000).float(), tensors[f"schedule.{steps}.timesteps"], "timesteps")
    assert path[-1] == 0


def test_paired_schedule(pipe, golden):
    steps = paired_steps(8, 9.0, 3.0, pipe.schedule)
    pairs = torch.tensor([(s.video_timestep, s.audio_timestep) for s in steps])
    close(pairs, golden[0]["schedule.8.shift9_3.pairs"], "pairs")


@pytest.mark.parametrize(
    ("name", "timestep", "audio_timestep", "bridge"),
    [
        ("high", 950, None, 1),
        ("low", 412.5, None, 1),
        ("low_split_t", 412.5, 120, 1),
        ("low_no_bridge", 412.5, None, 0),
    ],
)
def test_velocity(pipe, golden, name, timestep, audio_timestep, bridge):
    tensors, case = golden
    video, audio = pipe.velocity(
        tensors["noise.video"],
        tensors["noise.audio"],
        tensors["condition"],
        tensors["text.prompt"],
        timestep,
        audio_timestep,
        fps=case["fps"],
        bridge_scale=bridge,
    )
    close(video, tensors[f"velocity.{name}.video"], f"{name}.video")
    close(audio, tensors[f"velocity.{name}.audio"], f"{name}.audio")


@pytest.mark.parametrize(("name", "bridge"), [("text_cfg5", 1.0), ("dual_cfg5_3.5", 3.5)])
def test_sampling_end_to_end(pipe, golden, name, bridge):
    tensors, case = golden
    out = pipe(
        case["prompt"],
        image=Image.fromarray(tensors["image"].numpy()),
        negative_prompt=case["negative_prompt"],
        height=case["height"],
        width=case["width"],
        num_frames=case["num_frames"],
        fps=case["fps"],
        num_inference_steps=case["steps"],
        guidance_scale=5.0,
        bridge_guidance_scale=bridge,
        video_latents=tensors["noise.video"],
        audio_latents=tensors["noise.audio"],
        output_type="latent",
    )
    close(out.video_latents, tensors[f"sample.{name}.video"], f"{name}.video")
    close(out.audio_latents, tensors[f"sample.{name}.audio"], f"{name}.audio")


def test_decode(pipe, golden):
    tensors, _ = golden
    video = decode_video(pipe.video_vae, tensors["sample.text_cfg5.video"])
    close(video, tensors["decode.video"].clamp(-1, 1), "decode.video")
    audio = decode_audio(pipe.audio_vae, tensors["sample.text_cfg5.audio"])
    close(audio[:, None], tensors["decode.audio"], "decode.audio")


def test_audio_encoding(pipe, golden):
    tensors, _ = golden
    mean, _ = pipe.audio_vae.encode(tensors["encode.audio_in"])
    close(mean, tensors["encode.audio_mean"], "encode.audio_mean")

"""Model folders: other sizes run end to end; every fault of a folder is one error that names it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import MovaPipeline
from engine.errors import CheckpointError, RequestError
from tests.make_checkpoint import SIZES, TINY, make_checkpoint

WEIGHTS = "diffusion_pytorch_model.safetensors"
TENSOR = "blocks.1.self_attn.q.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoints")
    return {name: make_checkpoint(place / name, sizes) for name, sizes in SIZES.items()}


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize("name", SIZES)
def test_other_sizes_run_end_to_end(made, name):
    sizes = SIZES[name]
    pipe = MovaPipeline.from_pretrained(made[name])
    width, height = 2 * pipe.rules.multiple, 3 * pipe.rules.multiple
    assert pipe.rules.multiple == sizes.spatial * math.lcm(*sizes.patch)
    frames = 3 * sizes.stride + 1
    arguments = {"num_frames": frames, "fps": sizes.fps, "num_inference_steps": 3}
    out = pipe("x", height=height, width=width, seed=1, bridge_guidance_scale=2.0, **arguments)
    assert out.frames.shape == (1, frames, height, width, 3)
    assert out.audio.shape == (1, round(frames / sizes.fps * sizes.sample_rate))
    assert out.video_latents.shape == (1, sizes.z_dim, 4, height // sizes.spatial, width // sizes.spatial)
    assert out.audio_latents.shape == (1, sizes.audio_latent, math.ceil(out.audio.shape[1] / sizes.hop))
    assert out.sample_rate == sizes.sample_rate
    assert float(out.audio.std()) > 0
    assert float(out.frames.std()) > 0
    latents = pipe.encode_video(out.frames)
    assert latents.shape == out.video_latents.shape
    sound = pipe("x", seed=1, given_video_latents=latents, **(arguments | {"output_type": "latent"}))
    assert torch.equal(sound.video_latents, latents)
    assert pipe.encode_audio(out.audio, out.sample_rate).shape == out.audio_latents.shape


@pytest.mark.parametrize("name", SIZES)
def test_the_clock_and_the_boundary_come_from_the_configs(made, name):
    sizes, pipe = SIZES[name], MovaPipeline.from_pretrained(made[name])
    assert pipe.high_noise.audio_fps == sizes.sample_rate / sizes.hop
    assert pipe.latent_fps(sizes.fps) == sizes.fps / sizes.stride
    assert pipe.expert_at(1000 * sizes.boundary_ratio) is pipe.high_noise
    assert pipe.expert_at(1000 * sizes.boundary_ratio - 1e-6) is pipe.low_noise
    assert pipe.schedule.shift == sizes.shift


def test_a_refused_size_of_another_model_names_one_that_it_accepts(made):
    pipe = MovaPipeline.from_pretrained(made["fine"])
    with pytest.raises(RequestError, match="nearest valid value is 64"):
        pipe("x", height=64, width=50, num_frames=13)
    with pytest.raises(RequestError, match=r"frames 12 .* nearest valid value is 13"):
        pipe("x", height=64, width=64, num_frames=12)


def test_encoding_keeps_every_frame_whatever_the_stride(tmp_path):
    """diffusers encodes in chunks of four frames: with a smaller stride the last ones must not be lost."""
    sizes = replace(SIZES["single"], down_time=(False, True))
    pipe = MovaPipeline.from_pretrained(make_checkpoint(tmp_path / "m", sizes))
    clip = torch.rand(1, 7, 64, 64, 3)
    short, long = pipe.encode_video(clip), pipe.encode_video(torch.cat((clip, torch.rand(1, 2, 64, 64, 3)), 1))
    assert (short.shape[2], long.shape[2]) == (4, 5)
    assert torch.allclose(short, long[:, :, :4], atol=1e-6)


@pytest.mark.parametrize("part", ["video_dit", "video_dit_2", "audio_dit"])
@pytest.mark.parametrize("fault", ["missing", "surplus", "wrong shape"])
def test_a_wrong_tensor_is_named(copy, part, fault):
    path = copy / part / WEIGHTS
    state = load_file(path)
    named = TENSOR
    if fault == "missing":
        del state[TENSOR]
    elif fault == "surplus":
        named = "blocks.1.extra.weight"
        state[named] = torch.zeros(2)
    else:
        state[TENSOR] = state[TENSOR][:-1].contiguous()
    save_file(state, path)
    with pytest.raises(CheckpointError, match=f"^{part}: .*{named}") as caught:
        MovaPipeline.from_pretrained(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["dual_tower_bridge", "video_vae", "audio_vae"])
def test_a_missing_tensor_of_the_other_networks_is_named(copy, part):
    state = load_file(copy / part / WEIGHTS)
    gone = sorted(state)[3]
    save_file({k: v for k, v in state.items() if k != gone}, copy / part / WEIGHTS)
    with pytest.raises(CheckpointError, match=f"^{part}: missing tensors: {gone}"):
        MovaPipeline.from_pretrained(copy)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_a_tensor_that_holds_no_weights_is_named(copy, dtype):
    state = load_file(copy / "audio_dit" / WEIGHTS)
    state[TENSOR] = state[TENSOR].to(dtype)
    save_file(state, copy / "audio_dit" / WEIGHTS)
    with pytest.raises(CheckpointError, match=f"audio_dit: .*{TENSOR}"):
        MovaPipeline.from_pretrained(copy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted(copy, dtype):
    state = load_file(copy / "audio_dit" / WEIGHTS)
    save_file({k: v.to(dtype) for k, v in state.items()}, copy / "audio_dit" / WEIGHTS)
    pipe = MovaPipeline.from_pretrained(copy)
    got = pipe.high_noise.blocks[1].audio.self_attn.q.weight
    assert got.dtype == torch.float32
    assert torch.equal(got, state[TENSOR].to(dtype).float())


def shard(folder: Path, count: int = 3) -> list[str]:
    """Splits a component's one file into shards with an index; returns their names."""
    state = load_file(folder / WEIGHTS)
    names = [f"diffusion_pytorch_model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    where = {key: names[i % count] for i, key in enumerate(sorted(state))}
    for name in names:
        save_file({k: v for k, v in state.items() if where[k] == name}, folder / name)
    (folder / WEIGHTS).unlink()
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return names


def test_shards_hold_the_same_weights(copy):
    whole = MovaPipeline.from_pretrained(copy).high_noise.state_dict()
    shard(copy / "video_dit")
    parts = MovaPipeline.from_pretrained(copy).high_noise.state_dict()
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_a_missing_shard_is_named(copy):
    names = shard(copy / "video_dit")
    (copy / "video_dit" / names[1]).unlink()
    with pytest.raises(CheckpointError, match=f"video_dit: shard missing: {names[1]}"):
        MovaPipeline.from_pretrained(copy)


def test_a_tensor_in_two_shards_is_named(copy):
    names = shard(copy / "video_dit")
    state = load_file(copy / "video_dit" / names[0])
    other = load_file(copy / "video_dit" / names[1])
    key = sorted(other)[0]
    save_file(state | {key: other[key]}, copy / "video_dit" / names[0])
    with pytest.raises(CheckpointError, match=f"tensor {key} is stored twice"):
        MovaPipeline.from_pretrained(copy)


def test_a_shard_outside_the_folder_is_refused(copy):
    shard(copy / "video_dit")
    index = copy / "video_dit" / f"{WEIGHTS}.index.json"
    edit_json(index, weight_map={"a": "../video_dit_2/" + WEIGHTS})
    with pytest.raises(CheckpointError, match="outside its folder"):
        MovaPipeline.from_pretrained(copy)


@pytest.mark.parametrize("cut", [4, 100, -1])
def test_a_cut_file_is_named(copy, cut):
    path = copy / "video_dit_2" / WEIGHTS
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=f"video_dit_2/{WEIGHTS} is damaged"):
        MovaPipeline.from_pretrained(copy)


@pytest.mark.parametrize("names", [("encoder.embed_tokens.weight",), ("shared.weight", "encoder.embed_tokens.weight")])
def test_the_text_embedding_may_carry_either_name(copy, names):
    plain = MovaPipeline.from_pretrained(copy).encode_prompt("a bell").embeds
    path = copy / "text_encoder" / "model.safetensors"
    state = load_file(path)
    table = state.pop("shared.weight") if "shared.weight" in state else state.pop("encoder.embed_tokens.weight")
    save_file(state | {n: table.clone() for n in names}, path)
    assert torch.equal(MovaPipeline.from_pretrained(copy).encode_prompt("a bell").embeds, plain)


def test_a_missing_text_embedding_is_named(copy):
    path = copy / "text_encoder" / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if k not in ("shared.weight", "encoder.embed_tokens.weight")}, path)
    with pytest.raises(CheckpointError, match=r"text_encoder: missing tensors: shared\.weight"):
        MovaPipeline.from_pretrained(copy)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"z_dim": 8, "down_time": (False, True, True)}, "video_vae"),
        ({"audio_latent": 8}, "audio_vae"),
        ({"text_dim": 16}, "text_encoder"),
        ({"video_dim": 32, "video_heads": 1}, "video_dit"),
        ({"audio_layers": 2}, "audio_dit"),
    ],
)
def test_a_component_of_another_model_is_refused_by_name(copy, tmp_path, changes, named):
    other = make_checkpoint(tmp_path / "other", replace(SIZES["single"], **({"video_layers": 4} | changes)))
    shutil.rmtree(copy / named)
    shutil.copytree(other / named, copy / named)
    option = {"video_vae": "in_dim", "audio_vae": "in_dim", "text_encoder": "text_dim",
              "video_dit": "visual_hidden_dim", "audio_dit": "audio_layers"}[named]  # fmt: skip
    with pytest.raises(CheckpointError, match=option):
        MovaPipeline.from_pretrained(copy)


def test_experts_of_different_shape_are_refused_by_name(copy, tmp_path):
    other = make_checkpoint(tmp_path / "other", replace(SIZES["single"], video_layers=4, audio_layers=3, z_dim=8))
    shutil.rmtree(copy / "video_dit_2")
    shutil.copytree(other / "video_dit", copy / "video_dit_2")
    with pytest.raises(CheckpointError, match=r"video_dit_2 .*dim"):
        MovaPipeline.from_pretrained(copy)


@pytest.mark.parametrize(
    ("part", "changes", "named"),
    [
        ("video_dit", {"has_ref_conv": True}, "has_ref_conv"),
        ("video_dit", {"some_new_option": True}, "some_new_option"),
        ("video_dit", {"num_heads": 5}, "num_heads 5"),
        ("video_dit", {"num_heads": 0}, "num_heads"),
        ("video_dit", {"patch_size": [2, 2, 2]}, "first must be 1"),
        ("video_dit", {"patch_size": 2}, "patch_size"),
        ("video_dit", {"dim": "64"}, "dim"),
        ("video_dit", {"num_layers": -1}, "num_layers"),
        ("audio_dit", {"vae_type": "oobleck"}, "vae_type 'oobleck'"),
        ("audio_dit", {"patch_size": [2]}, "patch_size"),
        ("dual_tower_bridge", {"pooled_adaln": True}, "pooled_adaln"),
        ("dual_tower_bridge", {"interaction_strategy": "shallow"}, "interaction_strategy 'shallow'"),
        ("dual_tower_bridge", {"head_dim": 0}, "head_dim"),
        ("audio_vae", {"continuous": False}, "continuous"),
        ("audio_vae", {"encoder_rates": [2, 2]}, "encoder_rates"),
        (
            "video_vae",
            {"temperal_downsample": [True, True, True], "scale_factor_temporal": 8},
            "scale_factor_temporal 8",
        ),
        ("video_vae", {"scale_factor_temporal": 2}, "scale_factor_temporal"),
        ("video_vae", {"scale_factor_spatial": 16}, "scale_factor_spatial"),
        ("video_vae", {"latents_mean": [0.0]}, "latents_mean"),
        ("text_encoder", {"model_type": "t5"}, "'t5'"),
        ("scheduler", {"reverse_sigmas": True}, "reverse_sigmas"),
    ],
)
def test_an_option_that_is_not_built_is_named(copy, part, changes, named):
    file = "scheduler_config.json" if part == "scheduler" else "config.json"
    edit_json(copy / part / file, **changes)
    with pytest.raises(CheckpointError, match=named) as caught:
        MovaPipeline.from_pretrained(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["video_dit", "scheduler", "tokenizer", "text_encoder"])
def test_a_missing_folder_is_named(copy, part):
    shutil.rmtree(copy / part)
    with pytest.raises(CheckpointError, match=f"folder missing: {part}"):
        MovaPipeline.from_pretrained(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
@pytest.mark.parametrize("file", ["model_index.json", "video_dit/config.json", "text_encoder/config.json"])
def test_a_broken_config_is_named(copy, file, text):
    (copy / file).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=Path(file).name):
        MovaPipeline.from_pretrained(copy)

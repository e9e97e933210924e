"""LoRA files of every maker, read to one form and placed in a model."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import LoraError
from engine.lora.about import from_metadata, from_sidecar
from engine.lora.fit import fit, folder_shapes, needs_tower
from engine.lora.formats import read_lora
from engine.lora.header import ITEM_BYTES, read_header
from engine.lora.keys import tower_from_file_name
from engine.lora.values import as_float32, check_finite, load
from tests import lora_files as makers

MODEL = Path(__file__).parents[1] / "data" / "mova-tiny" / "checkpoint"
SHAPES = folder_shapes(MODEL)
FORMS = {
    "native": makers.native,
    "kohya": makers.kohya,
    "diffusers": makers.diffusers,
    "peft": makers.peft_folder,
    "diffsynth": makers.diffsynth,
    "diffsynth-pipe": makers.diffsynth_pipe,
    "lightx2v": makers.lightx2v,
    "mova": makers.mova,
}


def products(path: Path) -> dict[tuple[str, str], torch.Tensor]:
    """What a file adds to each weight of the model, float64; every key of the file must be in the report."""
    file = read_lora(path)
    placed = fit(file, SHAPES, None if not needs_tower(file) else "high")
    assert {line.key for line in placed.report if line.status != "missing"} == set(file.header.tensors)
    check_finite(file.header)
    result = {}
    for part, pair in placed.pairs:
        down, up = load(file.header, pair.down), load(file.header, pair.up)
        result[part, pair.module] = pair.scale * (up.double() @ down.double())
    return result


@pytest.mark.parametrize("form", FORMS)
def test_one_lora_in_every_form_gives_the_same_weights(form: str, tmp_path: Path) -> None:
    for seed in range(25):
        lora = makers.draw(SHAPES, seed)
        ending = "" if form == "peft" else ".safetensors"
        path = tmp_path / f"{seed}-high_noise{ending}"
        FORMS[form](lora, path)
        found = products(path)
        assert set(found) == {("high", m) for m in lora.pairs}
        for module, (down, up, _) in lora.pairs.items():
            wanted = lora.scale(module) * (up.double() @ down.double())
            torch.testing.assert_close(found["high", module], wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("stem", "tower"),
    [
        ("wan2.2_i2v_high_noise_r64", "high"),
        ("LOW-noise-model", "low"),
        ("Wan22-HIGH-Lightning", "high"),
        ("style_low_rank_64", None),
        ("high_quality_cats", None),
        ("highlander", None),
        ("both_high_and_low", None),
        ("rain_audio_dit", "sound"),
        ("lowres-highres", None),
    ],
)
def test_the_file_name_says_the_tower(stem: str, tower: str | None) -> None:
    assert tower_from_file_name(stem) == tower


def test_the_tower_is_asked_for_and_never_guessed_from_shapes(tmp_path: Path) -> None:
    lora = makers.draw(SHAPES, 3, "audio")  # as Wan 1.3B: fits the audio tower by its shapes
    makers.native(lora, tmp_path / "cat.safetensors")
    file = read_lora(tmp_path / "cat.safetensors")
    assert needs_tower(file)
    with pytest.raises(LoraError, match="which tower"):
        fit(file, SHAPES)
    assert fit(file, SHAPES, "sound").parts == {"audio"}
    with pytest.raises(LoraError, match="other sizes"):
        fit(file, SHAPES, "high")


def test_one_file_for_both_experts(tmp_path: Path) -> None:
    lora = makers.draw(SHAPES, 4)
    makers.native(lora, tmp_path / "cat.safetensors")
    placed = fit(read_lora(tmp_path / "cat.safetensors"), SHAPES, "both")
    assert placed.parts == {"high", "low"}
    assert len(placed.pairs) == 2 * len(lora.pairs)
    assert placed.count("applied") == len(placed.file.header.tensors)


def test_transformer_and_its_second_are_the_two_experts(tmp_path: Path) -> None:
    lora, path = makers.draw(SHAPES, 5), tmp_path / "pair.safetensors"
    tensors = {}
    for component in ("transformer", "transformer_2"):
        for module, (down, up, _) in lora.pairs.items():
            name = f"{component}.{makers.diffusers_name(module)}"
            tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = down.clone(), up.clone()
    meta = {"transformer.lora_alpha": 2.0, "transformer_2.lora_alpha": 3.0}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(meta)})
    placed = fit(read_lora(path), SHAPES)
    assert {(part, pair.alpha) for part, pair in placed.pairs} == {("high", 2.0), ("low", 3.0)}


@pytest.mark.parametrize("part", ["low", "audio", "bridge"])
def test_every_tower_by_prefix(part: str, tmp_path: Path) -> None:
    name = next(n for n, s in SHAPES[part].items() if n.endswith("q.weight") and len(s) == 2)
    out, inputs = SHAPES[part][name]
    base = f"{makers.PREFIX[part]}.{name[: -len('.weight')]}"
    tensors = {f"{base}.lora_A.weight": torch.ones(2, inputs), f"{base}.lora_B.weight": torch.ones(out, 2)}
    save_file(tensors, tmp_path / "any_high_noise.safetensors")  # the prefix wins over the file's name
    assert fit(read_lora(tmp_path / "any_high_noise.safetensors"), SHAPES).parts == {part}


def test_differences_find_their_parameters(tmp_path: Path) -> None:
    lora = makers.draw(SHAPES, 6)
    lora.deltas = {
        "blocks.0.norm3.weight": torch.ones(64),
        "blocks.1.self_attn.q.bias": torch.ones(64),
        "blocks.1.modulation": torch.ones(1, 6, 64),
        "head.modulation": torch.ones(2, 64),
    }
    makers.lightx2v(lora, tmp_path / "low_noise.safetensors")
    placed = fit(read_lora(tmp_path / "low_noise.safetensors"), SHAPES)
    assert {d.parameter for _, d in placed.deltas} == set(lora.deltas)
    ignored = [line for line in placed.report if line.status == "ignored"]
    assert len(ignored) == 3
    assert all("image embedding" in line.text for line in ignored)
    assert any("have no place" in w for w in placed.warnings)


def test_diffusers_norm2_is_our_norm3(tmp_path: Path) -> None:
    makers.diffusers(makers.draw(SHAPES, 7), tmp_path / "a.safetensors")
    tensors = {
        name: load(header, name) for header in [read_header(tmp_path / "a.safetensors")] for name in header.tensors
    }
    save_file(tensors | {"transformer.blocks.0.norm2.diff": torch.ones(64)}, tmp_path / "b.safetensors")
    placed = fit(read_lora(tmp_path / "b.safetensors"), SHAPES, "high")
    assert [d.parameter for _, d in placed.deltas] == ["blocks.0.norm3.weight"]


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("lora_unet_blocks_0_self_attn_q.hada_w1_a", "LoHa"),
        ("lora_unet_blocks_0_self_attn_q.lokr_w1", "LoKr"),
        ("diffusion_model.blocks.0.self_attn.q.dora_scale", "DoRA"),
        ("diffusion_model.blocks.0.self_attn.q.oft_blocks", "OFT"),
        ("lora_unet_blocks_0_self_attn_q.lora_mid.weight", "LoCon"),
        ("diffusion_model.blocks.0.self_attn.q.set_weight", "replaced"),
        ("diffusion_model.blocks.0.self_attn.q.lora_B.bias", "bias"),
        ("diffusion_model.blocks.0.self_attn.q.gate", "no known kind"),
        ("diffusion_model.blocks.0.self_attn.q.weight", "no known kind"),
    ],
)
def test_other_kinds_are_refused_by_name(key: str, says: str, tmp_path: Path) -> None:
    save_file({key: torch.ones(4, 64)}, tmp_path / "x.safetensors")
    with pytest.raises(LoraError, match=says):
        read_lora(tmp_path / "x.safetensors")


def _pair(module: str = "blocks.0.self_attn.q", r: int = 4, out: int = 64, inputs: int = 64) -> dict[str, torch.Tensor]:
    base = f"video_dit.{module}"
    return {f"{base}.lora_A.weight": torch.ones(r, inputs), f"{base}.lora_B.weight": torch.ones(out, r)}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (_pair() | {"video_dit.blocks.0.self_attn.q.lora_B.weight": torch.ones(64, 5)}, "do not belong together"),
        (_pair(out=32), "other sizes"),
        (_pair(inputs=32), "other sizes"),
        (_pair("blocks.7.self_attn.q"), "does not fit this model"),
        (_pair() | {"video_dit.blocks.0.self_attn.q.alpha": torch.tensor(float("nan"))}, "alpha"),
        (_pair() | {"video_dit.blocks.0.self_attn.q.alpha": torch.ones(3)}, "one number"),
        (_pair() | {"video_dit.blocks.0.self_attn.q.lora_A.weight": torch.ones(4, 64, dtype=torch.int32)}, "I32"),
        (_pair() | {"video_dit.blocks.0.self_attn.q.lora_A.other.weight": torch.ones(4, 64)}, "two adapters"),
        ({"lora_te1_x.lora_down.weight": torch.ones(4, 64)}, "nothing that could be applied"),
    ],
)
def test_what_does_not_fit_is_refused(tensors: dict[str, torch.Tensor], says: str, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(LoraError, match=says):
        fit(read_lora(tmp_path / "x.safetensors"), SHAPES)


def test_a_half_pair_is_reported(tmp_path: Path) -> None:
    tensors = _pair() | _pair("blocks.1.self_attn.q")
    del tensors["video_dit.blocks.1.self_attn.q.lora_B.weight"]
    save_file(tensors, tmp_path / "x.safetensors")
    placed = fit(read_lora(tmp_path / "x.safetensors"), SHAPES)
    status = {line.key: line.status for line in placed.report}
    assert status["video_dit.blocks.1.self_attn.q.lora_A.weight"] == "ignored"
    assert status["video_dit.blocks.1.self_attn.q.lora_B.weight"] == "missing"


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2):
        tensors = {k: v.to(dtype) for k, v in _pair().items()}
        tensors["video_dit.blocks.0.self_attn.q.lora_B.weight"][63, 3] = float("nan")
        save_file(tensors, tmp_path / "x.safetensors")
        file = read_lora(tmp_path / "x.safetensors")
        with pytest.raises(LoraError, match="NaN"):
            check_finite(file.header)
        with pytest.raises(LoraError, match="NaN"):
            load(file.header, file.pairs[0].up)


def test_headers_of_every_length_are_read_and_pickles_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    low_bytes = set()
    for n in range(64):  # one of 32 lengths begins with the byte that pickles begin with
        save_file(_pair(), path, {"note": "x" * 8 * n})
        low_bytes.add(path.read_bytes()[0])
        assert len(read_lora(path).pairs) == 1
    assert 0x80 in low_bytes
    for protocol in range(2, 6):
        path.write_bytes(pickle.dumps({"a": list(range(50))}, protocol))
        with pytest.raises(LoraError, match="pickle"):
            read_lora(path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_eight_bit_float_as_torch_reads_it(dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    name = {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}[dtype]
    ours = torch.from_numpy(as_float32(codes.numpy(), name))
    torch.testing.assert_close(ours, codes.view(dtype).float(), rtol=0, atol=0, equal_nan=True)
    assert set(ITEM_BYTES.values()) == {1, 2, 4, 8}


def test_a_peft_setting_that_changes_results_is_not_passed_over(tmp_path: Path) -> None:
    lora = makers.draw(SHAPES, 8)
    for n, (name, value, says) in enumerate(
        [
            ("use_dora", True, "use_dora"),
            ("peft_type", "LOHA", "LOHA"),
            ("bias", "all", "bias"),
            ("alpha_pattern", {"(a+)+b": 3}, "regular expression"),
            ("lora_alpha", float("inf"), "alpha"),
        ]
    ):
        folder = tmp_path / str(n)
        makers.peft_folder(lora, folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {name: value}))
        with pytest.raises(LoraError, match=says):
            read_lora(folder)
    makers.peft_folder(lora, tmp_path / "rs")
    config = json.loads((tmp_path / "rs" / "adapter_config.json").read_text())
    config |= {"use_rslora": True, "lora_alpha": 6.0, "alpha_pattern": {}}
    (tmp_path / "rs" / "adapter_config.json").write_text(json.dumps(config))
    for pair in read_lora(tmp_path / "rs").pairs:
        assert pair.scale == pytest.approx(6.0 / pair.rank**0.5)


def test_trigger_words_from_metadata_and_sidecars(tmp_path: Path) -> None:
    about = from_metadata({"modelspec.trigger_phrase": "zxq cat, \u202eplush", "modelspec.license": "CC0\n"})
    assert about.triggers == ("zxq cat", "plush")
    assert about.licence == "CC0"
    counts = {"ss_tag_frequency": json.dumps({"10_x": {"ohwx": 40, "a cat": 12, "sky": 3}})}
    assert from_metadata(counts).triggers == ("ohwx",)
    for bad in ("[", "[" * 100_000, json.dumps({"a": [1]}), json.dumps([{"b": 1}])):
        assert from_metadata({"ss_tag_frequency": bad}).triggers == ()
    side = tmp_path / "a.civitai.info"
    side.write_text(json.dumps({"trainedWords": ["one, two"], "baseModel": "Wan", "model": {"name": "Cats"}}))
    assert from_sidecar(side).triggers == ("one", "two")
    assert from_sidecar(side).title == "Cats"
    side.write_text("[" * 100_000)
    assert from_sidecar(side).title == ""

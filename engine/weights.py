"""Opening a model folder in the released MOVA layout, strictly.

Only headers are read to decide: every tensor that a component's config promises must be there, with its shape, and
nothing else. Classes named in `model_index.json` are mapped to ours; nothing named there is ever imported.
"""

from __future__ import annotations

import inspect
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from engine.errors import CheckpointError
from engine.models import AudioTower, AudioVAE, Bridge, DualTower, VideoTower
from engine.models.towers import known_options
from engine.schedule import ScheduleConfig

log = logging.getLogger(__name__)

COMPONENTS: dict[str, type[ModelMixin]] = {
    "video_dit": VideoTower,  # high-noise expert
    "video_dit_2": VideoTower,  # low-noise expert
    "audio_dit": AudioTower,
    "dual_tower_bridge": Bridge,
    "video_vae": AutoencoderKLWan,
    "audio_vae": AudioVAE,
}
WEIGHT_STEM = "diffusion_pytorch_model"
TIED = {"encoder.embed_tokens.weight": "shared.weight"}  # of the text encoder: two names of one tensor
NAMED_AT_MOST = 6  # tensors named in an error before "and n more"

Shapes = dict[str, tuple[int, ...]]
Model = TypeVar("Model", bound=torch.nn.Module)


@dataclass(frozen=True)
class ModelIndex:
    """`model_index.json`: which expert takes over below which share of the noise."""

    folder: Path
    boundary_ratio: float


def read_index(folder: str | Path) -> ModelIndex:
    """Checks that `folder` is a model in the released layout.

    Raises:
        CheckpointError: no such folder, not a MOVA model, or a component's folder is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"model folder {str(folder)!r} does not exist")
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") != "MOVA":
        raise CheckpointError(f"{folder.name}/model_index.json describes {index.get('_class_name')!r}, not 'MOVA'")
    if index.get("audio_vae_type", "dac") != "dac":
        raise CheckpointError(f"audio_vae_type {index['audio_vae_type']!r} is not built; only 'dac'")
    missing = [n for n in (*COMPONENTS, "scheduler", "tokenizer", "text_encoder") if not (folder / n).is_dir()]
    if missing:
        raise CheckpointError(f"model {folder.name}: folder missing: {', '.join(missing)}")
    ratio = index.get("boundary_ratio")
    if not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise CheckpointError(f"model_index.json: boundary_ratio {ratio!r} is not between 0 and 1")
    return ModelIndex(folder, float(ratio))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; anything else is a `CheckpointError` that names the file."""
    name = f"{path.parent.name}/{path.name}"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name} cannot be read: {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} does not hold a JSON object")
    return value


def load_component(folder: str | Path, name: str, dtype: torch.dtype | None, device: torch.device) -> Any:
    """One network of the layout, in evaluation mode.

    Args:
        folder: the model folder.
        name: a key of `COMPONENTS`.
        dtype: of the weights in memory; None keeps them as stored, on the CPU mapped from their file.
        device: where they go.

    Raises:
        CheckpointError: missing, unexpected or wrongly shaped tensors, all named; an option that is not built.
    """
    folder = Path(folder)
    cls = COMPONENTS[name]
    config = known_options(cls, read_json(folder / name / "config.json"))
    check_counts(cls, name, config)
    if cls is AutoencoderKLWan:
        check_video_vae(config)
    try:
        with init_empty_weights(include_buffers=False):
            model = cls.from_config(config)
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise CheckpointError(f"{name}/config.json: {_first_line(error)}") from error
    return _fill(model, name, weight_files(folder / name, WEIGHT_STEM), dtype, device)


def check_counts(cls: type[ModelMixin], name: str, config: dict[str, Any]) -> None:
    """Raises `CheckpointError` for an option that must be a whole number above 0 (or a list of such) and is not."""
    for option, parameter in inspect.signature(cls.__init__).parameters.items():
        kind = str(getattr(parameter.annotation, "__name__", parameter.annotation))
        if (
            option not in config
            or kind.split("[")[0] not in ("int", "tuple", "list")
            or "int" not in str(parameter.annotation)
        ):
            continue
        value = config[option]
        if kind == "int | None" and value is None:
            continue
        items = [value] if kind.startswith("int") else value
        if not isinstance(items, list | tuple) or not all(type(i) is int and i > 0 for i in items):
            wanted = "a whole number above 0" if kind.startswith("int") else "a list of whole numbers above 0"
            raise CheckpointError(f"{name}/config.json: {option} is {value!r}; it must be {wanted}")


def check_video_vae(config: dict[str, Any]) -> None:
    """Raises `CheckpointError` where the strides that the video VAE's config states are not those of its network."""
    down = config.get("temperal_downsample", [False, True, True])
    temporal = 2 ** sum(map(bool, down))
    spatial = 2 ** (len(config.get("dim_mult", [1, 2, 4, 4])) - 1) * (config.get("patch_size") or 1)
    for option, default, actual in (("scale_factor_temporal", 4, temporal), ("scale_factor_spatial", 8, spatial)):
        said = config.get(option, default)
        if said != actual:
            raise CheckpointError(f"video_vae: {option} is {said}, but its network has {actual}")
    if temporal > 4:
        raise CheckpointError(f"video_vae: scale_factor_temporal {temporal} is not built; at most 4")
    for option in ("latents_mean", "latents_std"):
        count = len(config[option]) if option in config else 16
        if count != config.get("z_dim", 16):
            raise CheckpointError(f"video_vae: {option} has {count} numbers, but z_dim is {config.get('z_dim', 16)}")


def load_text_encoder(folder: str | Path, dtype: torch.dtype | None, device: torch.device) -> UMT5EncoderModel:
    """The UMT5 encoder, as strictly as `load_component`. Its embedding may be stored under either of its two names."""
    model = _empty_text_encoder(folder)
    files = weight_files(Path(folder) / "text_encoder", "model")
    return _fill(model, "text_encoder", files, dtype, device, tied=TIED)


def check_text_encoder(folder: str | Path) -> int:
    """What `load_text_encoder` would find wrong, by the headers of the files alone; returns the embeddings' width."""
    model = _empty_text_encoder(folder)
    _checked(model, "text_encoder", weight_files(Path(folder) / "text_encoder", "model"), TIED)
    return int(model.config.d_model)


def _empty_text_encoder(folder: str | Path) -> UMT5EncoderModel:
    config = read_json(Path(folder) / "text_encoder" / "config.json")
    if config.get("model_type") != "umt5":
        raise CheckpointError(f"text_encoder is {config.get('model_type')!r}; only 'umt5' is built")
    with init_empty_weights(include_buffers=False):
        return UMT5EncoderModel(UMT5Config.from_dict(config))


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer exactly as `tokenizer.json` describes it."""
    path = Path(folder) / "tokenizer"
    config = read_json(path / "tokenizer_config.json")
    if not (path / "tokenizer.json").is_file():
        raise CheckpointError("tokenizer/tokenizer.json is missing")
    defaults = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # T5's own
    special = {k: _token(config.get(k)) or default for k, default in defaults.items()}
    try:
        return PreTrainedTokenizerFast(
            tokenizer_file=str(path / "tokenizer.json"), padding_side="right", truncation_side="right", **special
        )
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"tokenizer/tokenizer.json cannot be read: {_first_line(error)}") from error


def load_schedule(folder: str | Path) -> ScheduleConfig:
    """The noise schedule's config."""
    return ScheduleConfig.from_config(read_json(Path(folder) / "scheduler" / "scheduler_config.json"))


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files of a component: one file, or the shards that its index names."""
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{folder.name}/{index.name} has no weight_map")
        names = sorted(set(map(str, shards.values())))
        if any(Path(n).name != n for n in names):
            raise CheckpointError(f"{folder.name}/{index.name} names files outside its folder")
        missing = [n for n in names if not (folder / n).is_file()]
        if missing:
            raise CheckpointError(f"{folder.name}: shard missing: {', '.join(missing)}")
        return [folder / n for n in names]
    if not single.is_file():
        raise CheckpointError(f"{folder.name}/{single.name} is missing")
    return [single]


def stored_shapes(files: list[Path]) -> Shapes:
    """Names and shapes of all tensors in `files`, from their headers alone."""
    shapes: Shapes = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for key in tensors.keys():
                    if key in shapes:
                        raise CheckpointError(f"{file.parent.name}: tensor {key} is stored twice")
                    entry = tensors.get_slice(key)
                    if not entry.get_dtype().startswith(("F", "BF")):
                        raise CheckpointError(
                            f"{file.parent.name}: tensor {key} holds {entry.get_dtype()} numbers, not weights"
                        )
                    shapes[key] = tuple(entry.get_shape())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file.parent.name}/{file.name} is damaged: {_first_line(error)}") from error
    return shapes


def stored_bytes(files: list[Path]) -> int:
    """Bytes that a weight takes in `files`, by the first tensor."""
    with safe_open(files[0], framework="pt") as tensors:
        kind = str(tensors.get_slice(next(iter(tensors.keys()))).get_dtype())
    return int("".join(c for c in kind.split("_")[0] if c.isdigit())) // 8


def check_tensors(name: str, expected: Shapes, stored: Shapes) -> None:
    """Raises `CheckpointError` naming the missing, unexpected and misshapen tensors of component `name`."""
    faults = []
    missing, extra = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    if missing:
        faults.append("missing tensors: " + _listed(missing))
    if extra:
        faults.append("unexpected tensors: " + _listed(extra))
    wrong = [
        f"{k} is {list(stored[k])}, config says {list(expected[k])}"
        for k in sorted(expected.keys() & stored.keys())
        if expected[k] != stored[k]
    ]
    if wrong:
        faults.append("wrong shapes: " + _listed(wrong))
    if faults:
        raise CheckpointError(f"{name}: " + "; ".join(faults))


def _fill(
    model: Model,
    name: str,
    files: list[Path],
    dtype: torch.dtype | None,
    device: torch.device,
    tied: dict[str, str] | None = None,
) -> Model:
    """Gives a model built on the meta device its tensors, after the check of names and shapes."""
    expected, names = _checked(model, name, files, tied or {})
    for file in files:
        state = {names[k]: v if dtype is None else v.to(dtype) for k, v in load_file(file, device=str(device)).items()}
        model.load_state_dict({k: v for k, v in state.items() if k in expected}, strict=False, assign=True)
    if isinstance(model, UMT5EncoderModel):
        model.tie_weights()
    return model.to(device).eval().requires_grad_(False)


def _checked(
    model: torch.nn.Module, name: str, files: list[Path], tied: dict[str, str]
) -> tuple[Shapes, dict[str, str]]:
    """Checks names and shapes; returns the model's tensors, and for each stored one the model's name of it."""
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items() if k not in tied}
    stored = stored_shapes(files)
    names = {k: tied.get(k, k) if tied.get(k, k) not in stored else k for k in stored}
    check_tensors(name, expected, {names[k]: v for k, v in stored.items() if k not in tied or names[k] != k})
    return expected, names


def _token(value: Any) -> str | None:
    """A special token's text; older files wrap it in an object."""
    return value.get("content") if isinstance(value, dict) else value


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def check_channels(
    high_noise: DualTower, low_noise: DualTower, video_vae: AutoencoderKLWan, audio_vae: AudioVAE, text_width: int
) -> None:
    """Towers, VAEs and text encoder must fit each other.

    Raises:
        CheckpointError: two do not; the message names what and both numbers.
    """
    z, stride = int(video_vae.config.z_dim), int(video_vae.config.scale_factor_temporal)
    video, audio, other = high_noise.config.video, high_noise.config.audio, low_noise.config.video
    wanted: list[tuple[str, Any, Any]] = [
        ("video_dit in_dim", video["in_dim"], 2 * z + stride),
        ("video_dit out_dim", video["out_dim"], z),
        ("audio_dit in_dim", audio["in_dim"], audio_vae.config.latent_dim),
        ("audio_dit out_dim", audio["out_dim"], audio_vae.config.latent_dim),
        ("video_dit text_dim", video["text_dim"], text_width),
        ("audio_dit text_dim", audio["text_dim"], text_width),
    ]
    wanted += [(f"video_dit_2 {name}", other[name], video[name]) for name in ("in_dim", "out_dim", "text_dim")]
    wanted.append(("video_dit_2 patch_size", list(other["patch_size"]), list(video["patch_size"])))
    for name, found, needed in wanted:
        if found != needed:
            raise CheckpointError(f"{name} is {found}, but the other components need {needed}")

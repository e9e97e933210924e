"""Any LoRA file to one canonical form, with a report of every key.

Canonical is: module (native Wan name) -> (down (r, in), up (out, r), alpha or none), plus differences of whole weights,
biases and modulations. Only headers are read here, and the few bytes of alphas; what is refused is never loaded.

| source | a key |
|---|---|
| ComfyUI-native, diffusion-pipe, ai-toolkit | diffusion_model.blocks.0.self_attn.q.lora_A.weight |
| musubi, kohya | lora_unet_blocks_0_self_attn_q.lora_down.weight, .alpha |
| diffusers | transformer.blocks.0.attn1.to_q.lora_A.weight, transformer_2. |
| PEFT folder | base_model.model.blocks.0.self_attn.q.lora_A.weight, adapter_config.json |
| DiffSynth | blocks.0.self_attn.q.lora_A.default.weight, pipe.dit. |
| lightx2v | native, with .diff, .diff_b, .diff_m, and k_img, v_img |
| MOVA, and what we train | video_dit.blocks.0.self_attn.q.lora_A.weight, .alpha |
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import LoraError
from engine.lora import keys
from engine.lora.header import FLOATS, Header, Stored, read_header
from engine.lora.keys import Key

MAX_RANK = 4096
MAX_ALPHA = 1e6
MAX_CONFIG = 2**20  # bytes of adapter_config.json and of a diffusers metadata text
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
SCALAR_BYTES = 8
TOWER_NOTE = "mova.tower"  # metadata that we write where names of keys say no tower
TOWER_NAMES = ("both", "high", "low", "sound")


@dataclass(frozen=True)
class Pair:
    """The two factors of one module.

    Attributes:
        part: keys.HIGH, LOW, AUDIO, BRIDGE, or None where it is not known yet.
        down, up: names of the tensors in the file. rank: from their shapes.
        alpha: None or 0 means the rank, that is a scale of 1.
        rslora: the scale is alpha / sqrt(rank).
        alpha_key: the tensor that alpha came from, if one.
    """

    part: str | None
    module: str
    down: str
    up: str
    rank: int
    alpha: float | None = None
    rslora: bool = False
    alpha_key: str | None = None

    @property
    def scale(self) -> float:
        """What up @ down is multiplied with, before any strength."""
        if not self.alpha:
            return 1.0
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.down, self.up) if self.alpha_key is None else (self.down, self.up, self.alpha_key)


@dataclass(frozen=True)
class Delta:
    """A difference to one whole parameter, for instance "blocks.0.norm3.weight" or "blocks.0.modulation"."""

    part: str | None
    parameter: str
    tensor: str


@dataclass(frozen=True)
class LoraFile:
    """A file in canonical form, tensors not loaded.

    Attributes:
        source: which maker's naming it is in.
        pairs, deltas: what it holds.
        ignored: key -> why, for keys that can have no home in any MOVA model.
        missing: keys that would complete a half pair.
        hint: the tower that a note of ours in the file, or else the file's name, points to ("both", "high", ...).
        notes: things worth knowing, a line each.
    """

    header: Header
    source: str
    pairs: tuple[Pair, ...]
    deltas: tuple[Delta, ...]
    ignored: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    hint: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        path = self.header.path
        return path.parent.name if path.name == WEIGHTS else path.stem

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted({p.rank for p in self.pairs}))

    @property
    def parts(self) -> frozenset[str | None]:
        return frozenset(p.part for p in self.pairs) | frozenset(d.part for d in self.deltas)


def read_lora(path: str | Path) -> LoraFile:
    """Opens a LoRA file, or a PEFT folder.

    Raises:
        LoraError: not a LoRA that can be used; the message names the tensor or the setting.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            binary = " (adapter_model.bin is a pickle)" if (path / "adapter_model.bin").exists() else ""
            raise LoraError(f"folder {path.name}: there is no {WEIGHTS} in it{binary}")
        path = path / WEIGHTS
    header = read_header(path)
    try:
        return _canonical(header, _adapter_config(header))
    except LoraError as error:
        raise LoraError(f"{path.name}: {error}") from error


def _canonical(header: Header, config: _Config | None) -> LoraFile:
    if not header.tensors:
        raise LoraError("there is no tensor in it")
    names = list(header.tensors)
    diffusers = keys.is_diffusers(names)
    understood: dict[str, Key] = {}
    ignored: dict[str, str] = {}
    for name in names:
        key = keys.read_key(name, diffusers)
        if key is None:
            ignored[name] = "for a text encoder; MOVA's is left as it is"
        else:
            understood[name] = key
    understood = _experts(understood)
    _check_dtypes(header, understood)
    pairs, deltas, lone = _gather(header, understood, ignored, config)
    if not pairs and not deltas:
        raise LoraError("holds nothing that could be applied: " + _first_reason(ignored))
    styles = {k.style for k in understood.values()}
    if any(k.role in (keys.WEIGHT, keys.BIAS, keys.MODULATION) for k in understood.values()):
        styles.add("lightx2v")
    stem = header.path.parent.name if header.path.name == WEIGHTS else header.path.stem
    notes = []
    zeros = sum(p.alpha == 0 for p in pairs)
    if zeros:
        notes.append(f"alpha is 0 in {zeros} modules and read as the rank, as its makers mean it")
    return LoraFile(header, "+".join(sorted(styles)), pairs, deltas, ignored, lone, _hint(header, stem), tuple(notes))


def _hint(header: Header, stem: str) -> str | None:
    noted = header.metadata.get(TOWER_NOTE)
    return noted if noted in TOWER_NAMES else keys.tower_from_file_name(stem)


def _experts(understood: dict[str, Key]) -> dict[str, Key]:
    """ "transformer." and "pipe.dit." name the high-noise expert only where their second stands in the file too."""
    both = any(k.part == keys.SECOND for k in understood.values())
    meant = {keys.FIRST: keys.HIGH if both else None, keys.SECOND: keys.LOW}
    return {
        name: Key(k.module, k.role, meant.get(k.part or "", k.part), k.style, k.source)
        for name, k in understood.items()
    }


def _check_dtypes(header: Header, understood: dict[str, Key]) -> None:
    for name, key in understood.items():
        stored = header.tensors[name]
        if key.role == keys.ALPHA:
            if math.prod(stored.shape) != 1 or stored.dtype == "BOOL":
                raise LoraError(f"{name} has shape {list(stored.shape)}; an alpha is one number")
        elif stored.dtype not in FLOATS:
            raise LoraError(f"{name} holds {stored.dtype}, not floating-point numbers")


def _gather(
    header: Header, understood: dict[str, Key], ignored: dict[str, str], config: _Config | None
) -> tuple[tuple[Pair, ...], tuple[Delta, ...], tuple[str, ...]]:
    """Puts the factors of each module together. Adds to `ignored` what has no partner."""
    modules: dict[tuple[str | None, str], dict[str, str]] = {}
    for name, key in understood.items():
        roles = modules.setdefault((key.part, key.module), {})
        if key.role in roles:
            raise LoraError(f"{name} and {roles[key.role]} are for the same place; is it two adapters in one file?")
        roles[key.role] = name
    settings = _file_settings(header, config)
    pairs, deltas, missing = [], [], []
    for (part, module), roles in modules.items():
        down, up, alpha = (roles.get(r) for r in (keys.DOWN, keys.UP, keys.ALPHA))
        if down is not None and up is not None:
            rank = _rank(header.tensors[down], header.tensors[up], down, up)
            value, rslora = settings.for_module(understood[down])
            if alpha is not None:
                value, rslora = _scalar(header, alpha), False
            pairs.append(Pair(part, module, down, up, rank, value, rslora, alpha))
        elif down is not None or up is not None:
            one = down or up or ""
            other = one.replace("lora_A", "lora_B") if down else one.replace("lora_B", "lora_A")
            if other == one:
                other = one.replace("down", "up") if down else one.replace("up", "down")
            ignored[one] = f"its other half {other} is missing"
            missing.append(other)
            if alpha is not None:
                ignored[alpha] = "its module is incomplete"
        elif alpha is not None:
            ignored[alpha] = "an alpha without factors"
        for role in (keys.WEIGHT, keys.BIAS, keys.MODULATION):
            if role in roles:
                deltas.append(Delta(part, _parameter(module, role), roles[role]))
    return tuple(pairs), tuple(deltas), tuple(missing)


def _parameter(module: str, role: str) -> str:
    if role == keys.MODULATION:
        return f"{module}.modulation"
    if module.endswith("modulation"):
        return module
    return f"{module}.{'weight' if role == keys.WEIGHT else 'bias'}"


def _rank(down: Stored, up: Stored, down_name: str, up_name: str) -> int:
    if len(down.shape) < 2 or len(up.shape) < 2:
        raise LoraError(f"{down_name} {list(down.shape)} and {up_name} {list(up.shape)} are no pair of matrices")
    if down.shape[0] != up.shape[1]:
        raise LoraError(
            f"the rank of {down_name} is {down.shape[0]}, of {up_name} {up.shape[1]}; they do not belong together"
        )
    if not 1 <= down.shape[0] <= MAX_RANK:
        raise LoraError(f"{down_name} has rank {down.shape[0]}; from 1 to {MAX_RANK} is accepted")
    return down.shape[0]


def _scalar(header: Header, name: str) -> float:
    """The one number of an alpha tensor."""
    import numpy as np

    from engine.lora.values import as_float32

    stored = header.tensors[name]
    try:
        with header.path.open("rb") as file:
            file.seek(stored.start)
            raw = file.read(SCALAR_BYTES)[: stored.end - stored.start]
    except OSError as error:
        raise LoraError(f"{name} cannot be read") from error
    if len(raw) != stored.end - stored.start:
        raise LoraError(f"{name}: the file was cut off")
    return checked_alpha(float(as_float32(np.frombuffer(raw, np.uint8), stored.dtype)[0]), name)


def checked_alpha(value: Any, name: str) -> float:
    """A finite number from 0 to MAX_ALPHA."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_ALPHA:
        raise LoraError(f"{name} is {str(value)[:40]}; an alpha lies between 0 and {MAX_ALPHA:g}")
    return float(value)


@dataclass(frozen=True)
class _Config:
    """Alpha as PEFT and diffusers keep it beside the tensors; `components` where two experts' settings differ."""

    alpha: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False
    components: Mapping[str, _Config] = field(default_factory=dict)

    def for_module(self, key: Key) -> tuple[float | None, bool]:
        """Alpha and rslora of one module."""
        if self.components:
            second = key.part == keys.LOW and "transformer_2" in self.components
            own = self.components.get("transformer_2" if second else "transformer")
            return own.for_module(key) if own else (None, False)
        for pattern, alpha in self.alphas.items():
            if any(n == pattern or n.endswith("." + pattern) for n in (key.source, key.module)):
                return alpha, self.rslora
        return self.alpha, self.rslora


def _adapter_config(header: Header) -> _Config | None:
    """adapter_config.json beside a PEFT folder's weights."""
    if header.path.name != WEIGHTS:
        return None
    path = header.path.parent / CONFIG
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise LoraError(f"{CONFIG} is over {MAX_CONFIG // 2**20} MiB")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LoraError(f"{CONFIG} cannot be read") from error
    if not isinstance(value, dict):
        raise LoraError(f"{CONFIG} does not hold a JSON object")
    return _config(value, CONFIG)


def _file_settings(header: Header, config: _Config | None) -> _Config:
    """The settings that hold for tensors without an alpha of their own."""
    if config is not None:
        return config
    text = header.metadata.get("lora_adapter_metadata")
    if text is None:
        return _Config()
    if len(text) > MAX_CONFIG:
        raise LoraError("lora_adapter_metadata is over 1 MiB")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoraError("lora_adapter_metadata is not valid JSON") from error
    if not isinstance(value, dict):
        raise LoraError("lora_adapter_metadata is not a JSON object")
    return _by_component(value)


def _by_component(value: dict[str, Any]) -> _Config:
    """ "transformer.lora_alpha" and the like -> settings by component; names without a prefix hold for all."""
    groups: dict[str, dict[str, Any]] = {}
    for name, setting in value.items():
        for component in ("transformer_2", "transformer"):
            if name.startswith(component + "."):
                groups.setdefault(component, {})[name[len(component) + 1 :]] = setting
                break
        else:
            groups.setdefault("", {})[name] = setting
    if set(groups) <= {""}:
        return _config(groups.get("", {}), "lora_adapter_metadata")
    return _Config(components={c: _config(g, f"lora_adapter_metadata of {c}") for c, g in groups.items() if c})


def _config(value: dict[str, Any], where: str) -> _Config:
    """PEFT's settings, those that change the result; one that we cannot honour is refused."""
    kind = value.get("peft_type")
    if kind is not None and str(kind).upper().split(".")[-1] != "LORA":
        raise LoraError(f"{where}: peft_type {str(kind)[:40]!r} is not supported, only LORA")
    for name in ("use_dora", "fan_in_fan_out", "use_qalora", "lora_bias"):
        if value.get(name):
            raise LoraError(f"{where}: {name} is not supported")
    if value.get("bias", "none") not in ("none", None):
        raise LoraError(f"{where}: bias {str(value['bias'])[:40]!r} is not supported, only 'none'")
    alpha = value.get("lora_alpha")
    patterns = value.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise LoraError(f"{where}: alpha_pattern is not a JSON object")
    alphas = {_literal(name, where): checked_alpha(a, f"{where}: alpha of {name[:80]}") for name, a in patterns.items()}
    return _Config(
        None if alpha is None else checked_alpha(alpha, f"{where}: lora_alpha"), alphas, bool(value.get("use_rslora"))
    )


def _literal(pattern: str, where: str) -> str:
    """A pattern that is only a name. Patterns are regular expressions in PEFT; those of strangers are not run."""
    name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not name or not all(c.isalnum() or c in "._-" for c in name):
        raise LoraError(f"{where}: alpha_pattern {pattern[:80]!r} is a regular expression; only names are supported")
    return name


def _first_reason(ignored: Mapping[str, str]) -> str:
    return next((f"{name[:120]}: {why}" for name, why in ignored.items()), "no key")

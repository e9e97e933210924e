"""Files of other kinds to files of our own form: safetensors, native names with a tower's prefix, an alpha per module.

A .pt file is opened in a child process alone (see unpickle.py); its result is read as strictly as any foreign file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import LoraError
from engine.lora.fit import TOWERS
from engine.lora.formats import TOWER_NOTE, LoraFile, checked_alpha, read_lora
from engine.lora.header import MAX_FILE
from engine.lora.keys import PART_FOLDERS
from engine.lora.values import load
from engine.media.publish import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
CHILD_SECONDS = 600.0


@dataclass(frozen=True)
class Factors:
    """One module's factors, to be written. part: a key of PART_FOLDERS, or None for either expert."""

    part: str | None
    module: str
    down: Tensor
    up: Tensor
    alpha: float | None


@dataclass(frozen=True)
class Converted:
    """Attributes: path of the new file; notes, a line each, on what the user should check."""

    path: Path
    notes: tuple[str, ...]


def convert(
    source: Path, target: Path | None = None, alpha: float | None = None, tower: str | None = None
) -> Converted:
    """Writes `source` in our own form.

    Args:
        source: a .pt file, a safetensors file of any form, or a PEFT folder.
        target: None writes beside the source, under its name and ".mova.safetensors".
        alpha: for every module, where the file does not say it, or says it wrongly.
        tower: a key of TOWERS, where names do not say it.

    Raises:
        LoraError: the file cannot be used. OutputError: the target cannot be written.
    """
    if alpha is not None:
        checked_alpha(alpha, "--alpha")
    if tower is not None and tower not in TOWERS:
        raise LoraError(f"tower {tower!r} is not one of {', '.join(TOWERS)}")
    target = target or source.with_name(f"{source.stem}.mova.safetensors")
    if target.suffix != ".safetensors":
        raise LoraError(f"{target.name} does not end in .safetensors")
    if source.suffix.lower() not in PICKLES:
        return _write_form(read_lora(source), target, alpha, tower)
    with tempfile.TemporaryDirectory(prefix="mova-lora-") as folder:
        middle = Path(folder) / f"{source.stem}.safetensors"
        _open_in_child(source, middle)
        return _write_form(_with_pickled_alpha(read_lora(middle), alpha), target, alpha, tower)


def _open_in_child(source: Path, target: Path) -> None:
    if not source.is_file():
        raise LoraError(f"{source.name}: there is no such file")
    if source.stat().st_size > MAX_FILE:
        raise LoraError(f"{source.name}: over {MAX_FILE // 2**30} GiB")
    script = Path(__file__).with_name("unpickle.py")
    command = [sys.executable, "-I", str(script), str(source.resolve()), str(target)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=CHILD_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise LoraError(f"{source.name}: not read within {CHILD_SECONDS:.0f} s") from error
    if done.returncode == 3:
        raise LoraError(f"{source.name}: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}")
    if done.returncode != 0 or not target.is_file():
        raise LoraError(f"{source.name}: the process that read it ended with {done.returncode}; it is not usable")


def _with_pickled_alpha(file: LoraFile, given: float | None) -> LoraFile:
    """MOVA's low-resource trainer writes the alpha it used; its FSDP trainer writes 16 whatever was used."""
    said = file.header.metadata.get("alpha")
    form = file.header.metadata.get("form")
    if given is not None or any(p.alpha for p in file.pairs):
        return file
    if form == "mova-low-resource" and said is not None:
        value = checked_alpha(float(said), "alpha")
        return replace(file, pairs=tuple(replace(p, alpha=value) for p in file.pairs))
    note = "the file does not say its alpha (what is written beside it is always 16); taken as the rank. "
    return replace(file, notes=(*file.notes, note + "If it looks too weak or too strong, convert again with --alpha N"))


def _write_form(file: LoraFile, target: Path, alpha: float | None, tower: str | None) -> Converted:
    factors, deltas = [], {}
    for pair in file.pairs:
        value = alpha if alpha is not None else pair.scale * pair.rank
        down, up = load(file.header, pair.down), load(file.header, pair.up)
        factors.append(Factors(pair.part, pair.module, down, up, value))
    for delta in file.deltas:
        deltas[_delta_name(delta.part, delta.parameter)] = load(file.header, delta.tensor)
    metadata = {k: v for k, v in file.header.metadata.items() if k not in ("form", "rank", "alpha", "others")}
    metadata.pop("lora_adapter_metadata", None)  # said anew, module by module
    wanted = tower or file.hint
    if wanted is not None and None in file.parts:
        metadata[TOWER_NOTE] = wanted
    write(target, factors, metadata, deltas)
    notes = list(file.notes)
    if None in file.parts and wanted is None:
        notes.append("its keys do not say which tower they are for; give --tower both, high, low or sound")
    if file.ignored:
        notes.append(f"{len(file.ignored)} keys were left out: {', '.join(list(file.ignored)[:3])}")
    return Converted(target, tuple(notes))


def write(
    path: Path, factors: list[Factors], metadata: Mapping[str, str], deltas: Mapping[str, Tensor] | None = None
) -> None:
    """A LoRA in our own form; the file appears whole or not at all.

    Args:
        deltas: more tensors by their full names (".diff", ".diff_b", ".diff_m").

    Raises:
        OutputError: it cannot be written.
    """
    import torch
    from safetensors.torch import save

    tensors: dict[str, Tensor] = dict(deltas or {})
    for f in factors:
        name = f"{_prefix(f.part)}.{f.module}"
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = f.down, f.up
        tensors[f"{name}.alpha"] = torch.tensor(float(f.down.shape[0]) if f.alpha is None else float(f.alpha))
    ready = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with atomic_file(path) as part:
        part.write_bytes(save(ready, {"format": "pt", **metadata}))


def _prefix(part: str | None) -> str:
    return PART_FOLDERS[part] if part else "diffusion_model"


def _delta_name(part: str | None, parameter: str) -> str:
    module, _, kind = parameter.rpartition(".")
    return f"{_prefix(part)}.{module}." + {"weight": "diff", "bias": "diff_b", "modulation": "diff_m"}[kind]

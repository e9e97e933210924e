"""Does a LoRA fit a model? Which tower, which keys, and what becomes of each.

The tower follows from the names, then from the file's name, then it is asked for. Never from shapes: the audio tower
has the shape of Wan 1.3B. Nothing is loaded; shapes of a model come from its headers, or from the model in memory.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import LoraError
from engine.lora.formats import Delta, LoraFile, Pair
from engine.lora.header import read_header
from engine.lora.keys import AUDIO, BRIDGE, HIGH, LOW, NO_HOME, PART_FOLDERS

TOWERS: dict[str, tuple[str, ...]] = {"both": (HIGH, LOW), "high": (HIGH,), "low": (LOW,), "sound": (AUDIO,)}
ENOUGH = 0.5  # share of keys that must find their place
NAMED_AT_MOST = 4
MAX_COMPONENT = 200 * 2**30  # bytes of one weights file of a model

Shape = tuple[int, ...]
ModelShapes = Mapping[str, Mapping[str, Shape]]  # part -> parameter -> shape


@dataclass(frozen=True)
class KeyReport:
    """What became of one key. status: "applied", "ignored" or "missing"."""

    key: str
    status: str
    text: str


@dataclass(frozen=True)
class Fit:
    """A LoRA with its place in a model.

    Attributes:
        pairs, deltas: (part, entry), once for each expert that it goes to.
        report: a line for every key of the file, and for every missing one.
        warnings: what the user should know, a line each.
    """

    file: LoraFile
    pairs: tuple[tuple[str, Pair], ...]
    deltas: tuple[tuple[str, Delta], ...]
    report: tuple[KeyReport, ...]
    warnings: tuple[str, ...]

    @property
    def parts(self) -> frozenset[str]:
        return frozenset(part for part, _ in (*self.pairs, *self.deltas))

    def count(self, status: str) -> int:
        return sum(line.status == status for line in self.report)

    def summary(self) -> str:
        """One line."""
        words = {HIGH: "high noise", LOW: "low noise", AUDIO: "sound", BRIDGE: "bridge"}
        towers = ", ".join(words[p] for p in words if p in self.parts)
        ranks = ", ".join(map(str, self.file.ranks)) or "none"
        parts = [f"{self.count(s)} {s}" for s in ("applied", "ignored", "missing") if self.count(s)]
        return f"{self.file.name}: {towers}; rank {ranks}; keys: {', '.join(parts)}"


def fit(file: LoraFile, shapes: ModelShapes, tower: str | None = None) -> Fit:
    """Places every key of `file` in a model.

    Args:
        shapes: of the model's parameters, by part; see `folder_shapes`.
        tower: a key of TOWERS, for keys whose names do not say where they belong.

    Raises:
        LoraError: the tower is not known and must be said; a shape does not fit; under half of the keys find a place.
    """
    targets = _targets(file, tower)
    known = {name: dict(parameters) for name, parameters in shapes.items()}
    report: dict[str, KeyReport] = {}
    misfits: list[str] = []
    pairs, deltas = [], []
    for pair in file.pairs:
        for part in targets[pair.part]:
            fault, why = _pair_fault(file, pair, known.get(part, {}))
            _note(report, misfits, pair.names, part, pair.module, fault, why)
            if why is None and not fault:
                pairs.append((part, pair))
    for delta in file.deltas:
        for part in targets[delta.part]:
            fault, why = _delta_fault(file, delta, known.get(part, {}))
            _note(report, misfits, (delta.tensor,), part, delta.parameter, fault, why)
            if why is None and not fault:
                deltas.append((part, delta))
    places = Counter([(part, pair.module) for part, pair in pairs] + [(part, d.parameter) for part, d in deltas])
    for (part, place), count in places.most_common(1):
        if count > 1:
            raise LoraError(f"{file.name} holds {count} entries for {PART_FOLDERS[part]}.{place}")
    if misfits:
        raise LoraError(f"{file.name} was made for a model of other sizes: {_listed(misfits)}")
    for name, why in file.ignored.items():
        report[name] = KeyReport(name, "ignored", why)
    lines = [report[name] for name in file.header.tensors]
    applied = sum(line.status == "applied" for line in lines)
    if applied < ENOUGH * len(lines):
        first = next(line for line in lines if line.status != "applied")
        raise LoraError(
            f"{file.name} does not fit this model: only {applied} of {len(lines)} keys find a place ({first.key}: "
            f"{first.text})"
        )
    warnings = list(file.notes)
    if applied < len(lines):
        left_out = [line.key for line in lines if line.status != "applied"]
        warnings.append(f"{len(left_out)} of {len(lines)} keys have no place in this model: {_listed(left_out)}")
    gaps = _gaps(pairs, known)
    if gaps:
        warnings.append(f"not in the file: {gaps}")
    lines += [KeyReport(name, "missing", "would complete a half pair") for name in file.missing]
    return Fit(file, tuple(pairs), tuple(deltas), tuple(lines), tuple(warnings))


def needs_tower(file: LoraFile) -> bool:
    """Whether neither the names of the keys nor the file's name say which tower is meant."""
    return None in file.parts and file.hint is None


def _targets(file: LoraFile, tower: str | None) -> dict[str | None, tuple[str, ...]]:
    """Where the keys of each part go; None stands for keys that name no tower."""
    if tower is not None and tower not in TOWERS:
        raise LoraError(f"tower {tower!r} is not one of {', '.join(TOWERS)}")
    targets: dict[str | None, tuple[str, ...]] = {p: (p,) for p in PART_FOLDERS}
    if tower is not None:
        targets[None] = TOWERS[tower]
    elif file.hint is not None:
        targets[None] = TOWERS[file.hint]
    elif None in file.parts:
        raise LoraError(
            f"{file.name} does not say which tower it is for; say both (the picture's two experts), high, low or sound"
        )
    return targets


def _pair_fault(file: LoraFile, pair: Pair, parameters: Mapping[str, Shape]) -> tuple[str | None, str | None]:
    """(misfit or None, reason without a home or None)."""
    wanted = parameters.get(f"{pair.module}.weight")
    if wanted is None or len(wanted) < 2:
        return None, _no_home(pair.module)
    down, up = file.header.tensors[pair.down].shape, file.header.tensors[pair.up].shape
    inputs = down[1:] if len(wanted) > 2 else (math.prod(down[1:]),)
    fits = inputs == wanted[1:] and up[0] == wanted[0] and math.prod(up[2:]) == 1
    if len(wanted) == 2:
        fits = fits and math.prod(down[2:]) == 1
    found = f"{pair.module} takes {up[0]} x {'x'.join(map(str, down[1:]))}"
    return (None, None) if fits else (f"{found}, the model's is {'x'.join(map(str, wanted))}", None)


def _delta_fault(file: LoraFile, delta: Delta, parameters: Mapping[str, Shape]) -> tuple[str | None, str | None]:
    wanted = parameters.get(delta.parameter)
    if wanted is None:
        return None, _no_home(delta.parameter.rsplit(".", 1)[0])
    found = file.header.tensors[delta.tensor].shape
    if tuple(n for n in found if n > 1) != tuple(n for n in wanted if n > 1):
        return f"{delta.parameter} is {list(found)}, the model's is {list(wanted)}", None
    return None, None


def _no_home(module: str) -> str:
    if NO_HOME.search(module):
        return "MOVA looks at the picture through its latents and has no attention to an image embedding"
    return f"this model has no {module}"


def _note(
    report: dict[str, KeyReport],
    misfits: list[str],
    names: Iterable[str],
    part: str,
    place: str,
    fault: str | None,
    why: str | None,
) -> None:
    if fault:
        misfits.append(fault)
    for name in names:
        before = report.get(name)
        target = f"{PART_FOLDERS[part]}.{place}"
        if why is not None:
            if before is None or before.status != "applied":
                report[name] = KeyReport(name, "ignored", why)
        elif before is not None and before.status == "applied":
            report[name] = KeyReport(name, "applied", f"{before.text} and {target}")
        else:
            report[name] = KeyReport(name, "applied", target)


def _gaps(pairs: list[tuple[str, Pair]], known: Mapping[str, Mapping[str, Shape]]) -> str:
    """Blocks that the file leaves out although it has the same module in others."""
    have: dict[tuple[str, str], set[int]] = {}
    for part, pair in pairs:
        words = pair.module.split(".")
        if words[0] == "blocks" and words[1].isdigit():
            have.setdefault((part, ".".join(words[2:])), set()).add(int(words[1]))
    gaps = []
    for (part, rest), blocks in have.items():
        count = sum(f"blocks.{i}.{rest}.weight" in known[part] for i in range(len(known[part])))
        left = sorted(set(range(count)) - blocks)
        if left:
            gaps.append(f"{rest} of {len(left)} of {count} blocks of {PART_FOLDERS[part]}")
    return _listed(gaps)


def folder_shapes(folder: str | Path) -> dict[str, dict[str, Shape]]:
    """Parameters' shapes of a model folder in the released layout, from its headers.

    Raises:
        LoraError: a component is missing or damaged.
    """
    shapes: dict[str, dict[str, Shape]] = {}
    for part, name in PART_FOLDERS.items():
        place = Path(folder) / name
        shapes[part] = {}
        for path in _weight_files(place):
            shapes[part] |= {k: v.shape for k, v in read_header(path, MAX_COMPONENT).tensors.items()}
    return shapes


def _weight_files(place: Path) -> list[Path]:
    index = place / "diffusion_pytorch_model.safetensors.index.json"
    if not index.is_file():
        return [place / "diffusion_pytorch_model.safetensors"]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise LoraError(f"{place.name}/{index.name} cannot be read") from error
    return [place / Path(str(name)).name for name in sorted(names, key=str)]


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED_AT_MOST
    return ", ".join(n[:160] for n in names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")

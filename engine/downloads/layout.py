"""Whether a folder holds a whole model in the released layout, judged from headers, without loading anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.errors import CheckpointError

LARGEST_HEADER = 100 * 2**20  # the limit of the format


def describe_folder(folder: Path) -> list[tuple[str, int]]:
    """(path, size) of the files that make up a model folder, sorted.

    Raises:
        CheckpointError: it is not a MOVA model, a shard that an index names is missing, or a file is cut short.
    """
    index = _json(folder / "model_index.json")
    if index.get("_class_name") != "MOVA":
        raise CheckpointError(f"{folder} is not a MOVA model: its model_index.json says {index.get('_class_name')!r}")
    parts = [name for name, value in index.items() if isinstance(value, list) and not name.startswith("_")]
    absent = [name for name in parts if not (folder / name).is_dir()]
    if absent:
        raise CheckpointError(f"{folder} is not whole: {', '.join(absent)} missing")
    for path in sorted(folder.rglob("*.safetensors.index.json")):
        shards = _json(path).get("weight_map")
        names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
        gone = [name for name in names if not (path.parent / Path(name).name).is_file()]
        if gone or not names:
            raise CheckpointError(f"{folder} is not whole: {path.parent.name} lacks {', '.join(gone) or 'its shards'}")
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix in (".json", ".safetensors", ".model")]
    for path in files:
        if path.suffix == ".safetensors":
            _check_length(path)
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in files]


def _check_length(path: Path) -> None:
    """A safetensors file is as long as its header says."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= LARGEST_HEADER:
            raise CheckpointError(f"{path} is damaged: its header cannot be read")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            ends = [int(value["data_offsets"][1]) for name, value in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise CheckpointError(f"{path} is damaged: its header cannot be read") from None
    if path.stat().st_size != 8 + length + max(ends, default=0):
        raise CheckpointError(f"{path} is cut short or has bytes too many")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{path} cannot be read") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return value

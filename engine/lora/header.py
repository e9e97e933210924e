"""The header of a safetensors file, believed only after every check.

A file is eight bytes (length of the header, little-endian), the header (JSON: name -> dtype, shape, data_offsets;
`__metadata__` -> texts), then the tensors' bytes. https://github.com/huggingface/safetensors. Nothing of the tensors is
read here, and a header cannot make us spend memory: its size and its number of objects are bounded before it is parsed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import LoraError

MAX_FILE = 4 * 2**30  # bytes; the largest LoRAs of 14 B models take about 1.5 GB
MAX_HEADER = 8 * 2**20  # bytes; 20,000 tensors with long names take 4 MB
MAX_OBJECTS = 500_000  # brackets in a header; a tensor needs three, metadata texts may hold more
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8
MAX_NAME = 512  # characters

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class Stored:
    """One tensor as the header describes it; `start` and `end` are positions in the file, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A checked header: every tensor lies in the file, none overlaps another, no byte is left over.

    Attributes:
        stamp: size in bytes and time of the last change in nanoseconds, to tell a file from its successor.
    """

    path: Path
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]
    stamp: tuple[int, int] = (0, 0)


def read_header(path: str | Path, max_file: int = MAX_FILE) -> Header:
    """Reads and checks the header of `path`.

    Raises:
        LoraError: the file is missing, too large, or not a safetensors file in every respect.
    """
    path = Path(path)
    try:
        if not path.is_file():  # a pipe would block, a device never end
            raise LoraError(f"{path.name}: there is no such file")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            raw = _header_bytes(path.name, file.read(8), size, max_file, file)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise LoraError(f"{path.name}: cannot be read: {_why(error)}") from error
    tensors, metadata = parse_header(path.name, raw, size)
    return Header(path, tensors, metadata, (size, status.st_mtime_ns))


def _header_bytes(name: str, first: bytes, size: int, max_file: int, file: Any) -> bytes:
    if first[:4] == b"GGUF":
        raise LoraError(f"{name}: a GGUF file, not safetensors")
    if size > max_file:
        raise LoraError(f"{name}: {size / 2**30:.1f} GiB; at most {max_file / 2**30:.0f} GiB are accepted")
    if len(first) < 8:
        raise LoraError(f"{name}: {size} bytes are too few for a safetensors file")
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER and (first[:4] in (b"PK\x03\x04", b"PK\x05\x06") or first[:1] == b"\x80"):
        raise LoraError(  # any zip or pickle reads as such a length; the first byte of a safetensors file may be \x80
            f"{name}: a pickle or zip archive, not safetensors, whatever its name says. It was not opened. "
            "Files of trust can be converted: python launch.py lora convert FILE.pt"
        )
    if length > MAX_HEADER:
        raise LoraError(f"{name}: not a safetensors file, or its header is over {MAX_HEADER // 2**20} MiB")
    if length > size - 8:
        raise LoraError(f"{name}: cut off: the header of {length} bytes is longer than the file")
    raw: bytes = file.read(length)
    if len(raw) != length:
        raise LoraError(f"{name}: cut off within the header")
    return raw


def parse_header(name: str, raw: bytes, size: int) -> tuple[dict[str, Stored], dict[str, str]]:
    """Header bytes of a file of `size` bytes -> tensors and metadata. Raises `LoraError` on any fault."""
    if not raw.startswith(b"{"):
        raise LoraError(f"{name}: not a safetensors file: its header does not begin with a brace")
    if raw.count(b"{") + raw.count(b"[") > MAX_OBJECTS:
        raise LoraError(f"{name}: the header holds over {MAX_OBJECTS} objects")
    try:
        top = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise LoraError(f"{name}: the header is not valid JSON: {_why(error)}") from error
    metadata = top.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise LoraError(f"{name}: __metadata__ in the header is not a set of texts")
    if len(top) > MAX_TENSORS:
        raise LoraError(f"{name}: {len(top)} tensors; at most {MAX_TENSORS} are accepted")
    begin = 8 + len(raw)
    tensors = {key: _stored(name, key, value, begin, size) for key, value in top.items()}
    position = begin
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != position:
            fault = "overlaps another" if tensor.start < position else "leaves a gap before it"
            raise LoraError(f"{name}: tensor {_short(key)} {fault}")
        position = tensor.end
    if position != size:
        raise LoraError(f"{name}: {size - position} bytes belong to no tensor")
    return tensors, metadata


def _stored(name: str, key: str, value: Any, begin: int, size: int) -> Stored:
    """One entry of the header; `begin` is where the tensors' bytes begin."""

    def wrong(what: str) -> LoraError:
        return LoraError(f"{name}: tensor {_short(key)}: {what}")

    if len(key) > MAX_NAME or not key.isprintable():
        raise wrong(f"its name is over {MAX_NAME} characters or not printable")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise wrong("is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise wrong(f"dtype {_short(str(dtype))} is not known")
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise wrong("its shape is not a list of sizes")
    if not _whole_numbers(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size - begin:
        raise wrong("its data_offsets lie outside the file")
    wanted = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != wanted:
        raise wrong(f"its shape needs another number of bytes than the {offsets[1] - offsets[0]} stored")
    return Stored(dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**48 for v in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _short(text: str) -> str:
    """A foreign text for a message: one line, at most 80 characters."""
    shown = text if len(text) <= 80 else text[:77] + "..."
    return repr(shown)


def _why(error: BaseException) -> str:
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return _short(str(error).split("\n")[0])

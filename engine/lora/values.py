"""The tensors of a checked file: read piece by piece, judged finite, given as float arrays.

numpy alone, so that the page's process can judge a file; `load` gives torch tensors and imports torch itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import LoraError
from engine.lora.header import Header, Stored

if TYPE_CHECKING:
    import torch

PIECE = 8 * 2**20  # bytes read at once
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}  # fmt: skip
Array = np.ndarray[Any, Any]


def as_float32(raw: Array, dtype: str) -> Array:
    """Stored bytes (uint8) as numbers: float32, or float64 where stored so (not F8, which torch reads)."""
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype.startswith("F8"):
        return _float8(raw, exponent=4 if dtype == "F8_E4M3" else 5)
    values = raw.view(_NUMPY[dtype])
    return values if dtype == "F64" else values.astype(np.float32)


def _float8(raw: Array, exponent: int) -> Array:
    """E4M3 (no infinities, NaN is all ones) and E5M2 by their definition, through a table of 256 values."""
    code = np.arange(256)
    mantissa_bits = 7 - exponent
    bias = 2 ** (exponent - 1) - 1
    power, mantissa = (code >> mantissa_bits) & (2**exponent - 1), code & (2**mantissa_bits - 1)
    normal = np.ldexp(1.0 + mantissa / 2**mantissa_bits, power - bias)
    table = np.where(power == 0, np.ldexp(mantissa / 2**mantissa_bits, 1 - bias), normal)
    if exponent == 4:
        table[(code & 0x7F) == 0x7F] = np.nan
    else:
        top = power == 31
        table[top] = np.where(mantissa[top] == 0, np.inf, np.nan)
    table[code >= 128] *= -1
    return table.astype(np.float32)[raw]


def check_finite(header: Header) -> frozenset[str]:
    """Reads every tensor once, in pieces.

    Returns:
        Names of the floating-point tensors that are zero throughout.

    Raises:
        LoraError: a value is NaN or infinite, or the file became shorter.
    """
    zero = set()
    for name, stored in header.tensors.items():
        if stored.dtype[0] not in "FB" or stored.dtype == "BOOL":
            continue
        empty = True
        for piece in _pieces(header, name, stored):
            values = as_float32(piece, stored.dtype)
            if not np.isfinite(values).all():
                raise LoraError(f"{header.path.name}: tensor {name!r} holds NaN or infinite values")
            empty = empty and not values.any()
        if empty:
            zero.add(name)
    return frozenset(zero)


def _pieces(header: Header, name: str, stored: Stored) -> Iterator[Array]:
    try:
        with header.path.open("rb") as file:
            file.seek(stored.start)
            left = stored.end - stored.start
            while left:
                raw = file.read(min(PIECE, left))
                if not raw:
                    raise LoraError(f"{header.path.name}: cut off within tensor {name!r}")
                left -= len(raw)
                if len(raw) % 8 and left:  # keep pieces whole numbers of items
                    raise LoraError(f"{header.path.name}: reading stopped within tensor {name!r}")
                yield np.frombuffer(raw, np.uint8)
    except OSError as error:
        raise LoraError(f"{header.path.name}: cannot be read") from error


def load(header: Header, name: str) -> torch.Tensor:
    """One tensor on the CPU, in its stored dtype (F8 as float32).

    Raises:
        LoraError: the file became shorter, or the tensor holds a value that is not finite.
    """
    import torch

    stored = header.tensors[name]
    raw = bytearray(stored.end - stored.start)
    try:
        with header.path.open("rb") as file:
            file.seek(stored.start)
            if file.readinto(raw) != len(raw):
                raise LoraError(f"{header.path.name}: cut off within tensor {name!r}")
    except OSError as error:
        raise LoraError(f"{header.path.name}: cannot be read") from error
    if stored.dtype.startswith("F8"):
        tensor = torch.from_numpy(as_float32(np.frombuffer(raw, np.uint8), stored.dtype))
    else:
        dtypes = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
        tensor = torch.frombuffer(raw, dtype=dtypes[stored.dtype])
    if not bool(torch.isfinite(tensor).all()):
        raise LoraError(f"{header.path.name}: tensor {name!r} holds NaN or infinite values")
    return tensor.reshape(stored.shape)

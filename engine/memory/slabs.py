"""Parameters that travel together: where their values live, and how they get into a slab of bytes.

A part keeps the parameters of some modules at rest on their source: what was read from the model folder (mapped from
the file, so it takes no memory until it is read) or a packed slab in main memory. On the device they lie in a buffer
that is lent to them for a while. Values are never copied back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from engine.memory.eight_bit import KINDS, EightBitLinear, pack

ALIGN = 256  # bytes; the planner counts on slabs without gaps worth counting


@dataclass
class Entry:
    """One parameter: where it belongs, where it lies in the slab, and its value at rest."""

    owner: nn.Module
    name: str
    start: int
    shape: torch.Size
    dtype: torch.dtype
    source: torch.Tensor

    @property
    def size(self) -> int:
        return self.shape.numel() * self.dtype.itemsize

    @property
    def parameter(self) -> torch.Tensor:
        value = getattr(self.owner, self.name)
        assert isinstance(value, torch.Tensor)
        return value

    def view(self, buffer: torch.Tensor) -> torch.Tensor:
        """This parameter's place in a buffer of bytes."""
        return buffer[self.start : self.start + self.size].view(self.dtype).view(self.shape)

    @property
    def is_packed_weight(self) -> bool:
        return isinstance(self.owner, EightBitLinear) and self.name == "weight"

    @property
    def is_scale(self) -> bool:
        return isinstance(self.owner, EightBitLinear) and self.name == "scale"


class Part:
    """The parameters of `modules`, without those of adapters.

    Args:
        modules: their own trees; a parameter in several counts once.
        dtype: of floating-point parameters on the device. 8-bit layers keep their own.
        adapters: take the adapters' parameters, and only those.
    """

    def __init__(self, modules: Iterable[nn.Module], dtype: torch.dtype, adapters: bool = False) -> None:
        self.entries: list[Entry] = []
        start, seen = 0, set()
        for owner, name, value in _parameters(modules, adapters):
            if id(value) in seen:
                continue
            seen.add(id(value))
            kind = dtype
            if isinstance(owner, EightBitLinear) and name in ("weight", "scale"):
                kind = KINDS[owner.kind][0] if name == "weight" else torch.float32
            entry = Entry(owner, name, start, value.shape, kind, value.data)
            self.entries.append(entry)
            start += -(-entry.size // ALIGN) * ALIGN
        self.size = start
        self.slab: torch.Tensor | None = None  # bytes in main memory that hold the values now
        self.owned = False  # the slab is the source itself, not a copy for a while

    def fill(self, buffer: torch.Tensor) -> None:
        """Writes the values into a buffer of at least `size` bytes, on any device."""
        if self.slab is not None:
            buffer[: self.size].copy_(self.slab[: self.size], non_blocking=True)
            return
        for entry in self.entries:
            if entry.is_packed_weight and entry.source.dtype != entry.dtype:
                assert isinstance(entry.owner, EightBitLinear)
                weight, scale = pack(entry.source, entry.owner.kind)
                entry.view(buffer).copy_(weight, non_blocking=True)
                self._scale_of(entry).view(buffer).copy_(scale, non_blocking=True)
            elif not (entry.is_scale and self._weight_of(entry).source.dtype != self._weight_of(entry).dtype):
                entry.view(buffer).copy_(entry.source, non_blocking=True)

    def keep(self, slab: torch.Tensor) -> None:
        """Packs the values into a slab in main memory that is their source from now on; what they lay on is let go."""
        self.fill(slab)
        for entry in self.entries:
            entry.source = entry.view(slab)
        self.slab, self.owned = slab, True
        self.rest()

    def adopt(self, slab: torch.Tensor) -> None:
        """The values lie in this slab already, as `fill` would write them; it is their source from now on."""
        for entry in self.entries:
            entry.source = entry.view(slab)
        self.slab, self.owned = None, False
        self.rest()

    def borrow(self, slab: torch.Tensor) -> None:
        """Packs the values into a slab for a while; `forget` ends it."""
        self.slab = None
        self.fill(slab)
        self.slab = slab

    def forget(self) -> None:
        """The borrowed slab holds something else now."""
        if not self.owned:
            self.slab = None

    def look_again(self) -> None:
        """Takes values that were put in place of parameters at rest (by adapters) as their source."""
        for entry in self.entries:
            value = entry.parameter.data
            if value.data_ptr() != entry.source.data_ptr() or value.dtype != entry.source.dtype:
                entry.source, self.owned, self.slab = value, False, None

    def place(self, buffer: torch.Tensor) -> None:
        """Lets the parameters be what lies in `buffer`."""
        for entry in self.entries:
            entry.parameter.data = entry.view(buffer)

    def rest(self) -> None:
        """Back to their source."""
        for entry in self.entries:
            entry.parameter.data = entry.source

    def _scale_of(self, weight: Entry) -> Entry:
        return next(e for e in self.entries if e.owner is weight.owner and e.is_scale)

    def _weight_of(self, scale: Entry) -> Entry:
        return next(e for e in self.entries if e.owner is scale.owner and e.is_packed_weight)


def _parameters(modules: Iterable[nn.Module], adapters: bool) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for tree in modules:
        for path, module in tree.named_modules():
            if any(step.startswith("lora_") for step in path.split(".")) != adapters:
                continue
            for name, value in module.named_parameters(recurse=False):
                yield module, name, value


def host_slab(size: int, pinned: bool) -> torch.Tensor:
    """`size` bytes of main memory, page-locked where asked for.

    They are locked in place: torch's own pinned allocations are rounded up to a power of two.
    """
    slab = torch.empty(size, dtype=torch.uint8)
    if pinned and size and torch.cuda.is_available():
        code = int(torch.cuda.cudart().cudaHostRegister(slab.data_ptr(), size, 0))
        if code == 0:
            weak_unlock(slab)
    return slab


def weak_unlock(slab: torch.Tensor) -> None:
    """Unlocks the pages when the slab's storage dies."""
    import weakref

    address = slab.data_ptr()
    weakref.finalize(slab.untyped_storage(), lambda: torch.cuda.cudart().cudaHostUnregister(address))

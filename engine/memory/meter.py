"""Counts the bytes of tensors that are alive, on any device, the meta device included.

The meter sees every storage that torch makes while it is on, so that the peak of a computation is exact and does not
depend on an allocator. On the meta device nothing is computed or allocated: the memory of a full-size network can be
measured on a machine that could never hold it.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Meter(TorchDispatchMode):
    """Within the `with` block: `live` bytes of storages made since its start, and their `peak`.

    What existed before (weights, inputs) is not counted. Views share their base's storage and count once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}
        self._before: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf, made=False)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf, made=True)
        return out

    def _see(self, tensor: torch.Tensor, made: bool) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes() if made else 0

        def gone(_: Any, key: int = key, size: int = size) -> None:
            del self._known[key]
            self.live -= size

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)

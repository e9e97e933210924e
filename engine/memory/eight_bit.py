"""Linear layers whose weights are stored in 8 bits, one scale a row, and unpacked for each product.

The product itself is computed in the activations' dtype, so that a layer is bit for bit the linear layer of its
unpacked weights; only the rounding of the weights themselves is lost. "int8" keeps 255 even steps, "fp8" (e4m3) 8 bits
of floating point.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

KINDS: dict[str, tuple[torch.dtype, float]] = {
    "int8": (torch.int8, 127.0),
    "fp8": (torch.float8_e4m3fn, 448.0),
}


def pack(weight: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, columns) -> the same in 8 bits, and scales (rows, 1) in float32. Rows of zeros stay zeros."""
    dtype, top = KINDS[kind]
    wide = weight.float()
    scale = wide.abs().amax(1, keepdim=True) / top
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    steps = wide.div_(scale) if wide is not weight else wide / scale
    steps = steps.clamp_(-top, top)
    return (steps.round_() if dtype == torch.int8 else steps).to(dtype), scale


def unpack(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What `pack` stored, in `dtype`; the product with the scale is taken in float32 and rounded once."""
    return (weight.float() * scale).to(dtype)


class EightBitLinear(nn.Linear):
    """A linear layer that computes with `unpack(weight, scale)` while its weight is packed, else as any other.

    Made around the layer it replaces: weight and bias are taken over as they are, and packed when a plan is carried
    out or by `pack_now`.
    """

    def __init__(self, layer: nn.Linear, kind: str) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.kind = layer.in_features, layer.out_features, kind
        self.weight = layer.weight
        self.bias = layer.bias
        self.scale = nn.Parameter(torch.ones(layer.out_features, 1), requires_grad=False)
        self.train(layer.training)

    @property
    def packed(self) -> bool:
        return self.weight.dtype == KINDS[self.kind][0]

    def pack_now(self) -> None:
        """Packs the weight where it lies."""
        self.weight.data, self.scale.data = pack(self.weight.data, self.kind)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = unpack(self.weight, self.scale, x.dtype) if self.packed else self.weight
        return F.linear(x, weight, self.bias)


def make_eight_bit(blocks: nn.ModuleList, kind: str) -> int:
    """Replaces every linear layer within `blocks`, also below adapters; returns how many. Nothing is packed yet."""
    count = 0
    for module in list(blocks.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and not _is_adapter(module):
                setattr(module, name, EightBitLinear(child, kind))
                count += 1
    return count


def _is_adapter(module: nn.Module) -> bool:
    """Adapters keep their factors in dictionaries of small linear layers."""
    return isinstance(module, nn.ModuleDict)

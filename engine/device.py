"""The one place that chooses device and precision."""

from __future__ import annotations

import torch

from engine.errors import RequestError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device(name: str = "auto") -> torch.device:
    """`name` as a device; "auto" takes CUDA (or ROCm), then Apple's MPS, then the CPU.

    Raises:
        RequestError: torch cannot use that device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RequestError(f"device {name!r} cannot be used here; use auto or cpu") from error
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """`name` as a dtype; "auto" is bfloat16 where the card computes in it, float32 elsewhere."""
    if name in PRECISIONS:
        return PRECISIONS[name]
    if name != "auto":
        raise RequestError(f"precision {name!r} is not one of auto, {', '.join(PRECISIONS)}")
    return torch.bfloat16 if device.type == "cuda" and multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are the device's own.

    A processor without them takes a convolution five times as long as in float32.
    """
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)

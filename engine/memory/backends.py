"""Which attention kernels a card is given, and the proof that they compute attention here.

A choice is made by the card and by what is installed (`preferred`, a pure function), and checked when a model is
loaded: on its own widths of heads, against plain products in float32. What fails is not used. Kernels that round more
than their inputs do (SageAttention: 8 bits) are taken only where they are asked for.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from functools import lru_cache

import torch

from engine.attention import attention, product_attention, use_backend
from engine.errors import RequestError
from engine.memory.machine import Machine

log = logging.getLogger(__name__)

# Our name: (diffusers' name, the module that has to be installed, how it is called in a sentence).
KERNELS: dict[str, tuple[str, str, str]] = {
    "native": ("native", "", "torch's own choice"),
    "flash": ("_native_flash", "", "torch's flash kernel"),
    "cudnn": ("_native_cudnn", "", "cuDNN"),
    "efficient": ("_native_efficient", "", "torch's memory-efficient kernel"),
    "math": ("_native_math", "", "plain products"),
    "flash-attn": ("flash", "flash_attn", "FlashAttention 2"),
    "flash-attn-3": ("_flash_3", "flash_attn_interface", "FlashAttention 3"),
    "sage": ("sage", "sageattention", "SageAttention"),
}
CHOICES = ("auto", *KERNELS)
INEXACT = {"sage": 0.1}  # relative error that is expected of it
BOUND = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
SHAPES = ((403, 403), (512, 403), (403, 1024))  # queries and keys: sound, picture to sound, sound to picture


def installed() -> frozenset[str]:
    """Kernels whose library is here."""
    return frozenset(n for n, (_, module, _) in KERNELS.items() if not module or importlib.util.find_spec(module))


def preferred(machine: Machine, there: frozenset[str], dtype: str) -> tuple[str, ...]:
    """Exact kernels for a card, best first; the last one always works.

    Flash kernels need half precision, and a card of at least capability 8; FlashAttention 3 is for 9.0 only, where
    cuDNN comes next to it. What torch chooses by itself is right everywhere else, on AMD cards and newer ones too.
    """
    wanted: tuple[str, ...] = ()
    if machine.kind == "cuda" and dtype in ("bfloat16", "float16"):
        if machine.capability[0] == 9:
            wanted = ("flash-attn-3", "cudnn", "flash-attn", "flash")
        elif machine.capability[0] == 8:
            wanted = ("flash-attn", "flash")
    return (*(name for name in wanted if name in there), "native")


@lru_cache(maxsize=64)
def fault(name: str, device: torch.device, dtype: torch.dtype, widths: tuple[int, ...] = (128,)) -> str:
    """Why a kernel cannot be used for heads of these widths; "" where it computes attention within rounding."""
    backend, module, words = KERNELS[name]
    if name not in installed():
        return f"{words} is not installed ({module})"
    bound = INEXACT.get(name, BOUND.get(dtype, 1e-2))
    generator = torch.Generator().manual_seed(0)
    for width in widths:
        for rows, keys in SHAPES:
            q, k, v = (torch.randn(1, n, 2, width, generator=generator).to(device, dtype) for n in (rows, keys, keys))
            try:
                with torch.inference_mode(), warnings.catch_warnings(), use_backend(backend):
                    warnings.simplefilter("ignore")  # torch warns of each kernel that it leaves out
                    got = attention(q, k, v).float()
                exact = product_attention(q.float(), k.float(), v.float())
            except (RuntimeError, ImportError, ValueError, NotImplementedError, AssertionError, TypeError) as error:
                return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            error_now = float((got - exact).norm() / exact.norm())
            if not error_now <= bound:  # NaN is not
                return f"its result is off by {error_now:.1e} with heads of {width}, more than {bound:.0e}"
    return ""


def choose_attention(machine: Machine, dtype: str, asked: str = "auto") -> str:
    """A name of `KERNELS` for this card; what is asked for where it works.

    Raises:
        RequestError: `asked` is not one of `CHOICES`, or cannot be used here; the message says why.
    """
    if asked == "auto":
        return preferred(machine, installed(), dtype)[0]
    if asked not in KERNELS:
        raise RequestError(f"attention {asked!r} is not one of {', '.join(CHOICES)}")
    device = torch.device("cuda" if machine.kind == "rocm" else machine.kind)
    if reason := fault(asked, device, getattr(torch, dtype)):
        raise RequestError(f"attention {asked!r} cannot be used here: {reason}; use auto")
    return asked


def settled(name: str, device: torch.device, dtype: torch.dtype, widths: tuple[int, ...]) -> str:
    """`name` where it computes attention for these heads on this device, else what torch chooses by itself."""
    if name == "native":
        return name
    reason = fault(name, device, dtype, widths)
    if not reason:
        return name
    log.warning("attention by %s is left out: %s", KERNELS[name][2], reason)
    return "native"


def backend_of(name: str) -> str:
    """diffusers' name of a kernel."""
    return KERNELS[name][0]


def words_of(name: str) -> str:
    """As a sentence calls it."""
    return KERNELS[name][2]

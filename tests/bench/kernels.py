"""What a card's own kernels reach: attention backends, linear layers, and the ways of weights to the device.

    python -m tests.bench.kernels [--tokens 43120] [--device auto] [--json]

Attention: one layer of the picture (40 heads of 128), each backend against the native one in speed and difference.
Linears: the feed-forward product in the compute dtype, and with weights stored in 8 bits. Rates: as the planner takes
them. A backend whose library is not installed says so and is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from engine.attention import attention, use_backend
from engine.device import choose_device
from engine.memory.eight_bit import EightBitLinear
from engine.memory.machine import detect, measure_rates

BACKENDS = ("native", "_native_flash", "_native_cudnn", "flash", "_flash_3", "sage")
WIDTH, FFN, HEADS = 5120, 13824, 40


def seconds(action: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    """The median of `repeats` runs after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def attentions(tokens: int, device: torch.device, dtype: torch.dtype, heads: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, tokens, heads, 128, generator=generator).to(device, dtype) for _ in range(3))
    exact = attention(q, k, v)
    work = 4.0 * tokens * tokens * heads * 128
    rows = []
    for name in BACKENDS:
        try:
            with use_backend(name):
                got = attention(q, k, v)
                took = seconds(lambda: attention(q, k, v), device)
        except (RuntimeError, ImportError, ValueError, NotImplementedError) as error:
            rows.append({"attention": name, "why not": str(error).splitlines()[0][:120]})
            continue
        difference = float((got.float() - exact.float()).norm() / exact.float().norm())
        rows.append({"attention": name, "seconds": took, "tflops": work / took / 1e12, "difference": difference})
    return rows


def linears(tokens: int, device: torch.device, dtype: torch.dtype, width: int, ffn: int) -> list[dict[str, Any]]:
    x = torch.randn(tokens, width).to(device, dtype)
    plain = nn.Linear(width, ffn, device=device, dtype=dtype).requires_grad_(False)
    exact, work = plain(x), 2.0 * tokens * width * ffn
    rows = []
    for kind in (str(dtype).removeprefix("torch."), "int8", "fp8"):
        layer: nn.Module = plain
        if kind in ("int8", "fp8"):
            twin = nn.Linear(width, ffn, device=device, dtype=dtype).requires_grad_(False)
            twin.load_state_dict(plain.state_dict())
            layer = EightBitLinear(twin, kind)
            layer.pack_now()
        got = layer(x)
        took = seconds(lambda layer=layer: layer(x), device)  # type: ignore[misc]
        difference = float((got.float() - exact.float()).norm() / exact.float().norm())
        rows.append({"linear": kind, "seconds": took, "tflops": work / took / 1e12, "difference": difference})
    return rows


@torch.inference_mode()
def measure(tokens: int, device: torch.device) -> list[dict[str, Any]]:
    small = device.type == "cpu"
    dtype = torch.float32 if small else torch.bfloat16
    rows = attentions(tokens, device, dtype, 2 if small else HEADS)
    rows += linears(tokens, device, dtype, 256 if small else WIDTH, 704 if small else FFN)
    rates = measure_rates(detect(str(device)), str(device))
    return [*rows, {"rates": asdict(rates)}]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.kernels", description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=43_120)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    rows = measure(args.tokens, choose_device(args.device))
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

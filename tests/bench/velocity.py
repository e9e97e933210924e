"""One velocity call with guidance against the same mathematics written naively, side by side in one run.

    python -m tests.bench.velocity [--repeats N] [--compile] [--json]

The naive twin rotates with complex numbers in float64 and runs the guidance branches one after the other. Both use
the same weights and the same attention kernel. Figures are ratios of medians, naive over ours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any
from unittest import mock

import torch
from torch import nn

from engine.models import AudioTower, Bridge, DualTower, VideoTower
from engine.models import bridge as bridge_module
from engine.models import towers as towers_module

GRID = (5, 36, 36)  # latent frames, height, width: 5 x 18 x 18 = 1,620 video tokens
AUDIO_TOKENS = 40
TEXT = (512, 64)


def build(layers: tuple[int, int] = (8, 6)) -> DualTower:
    """A joint network of widths 512 and 256 with seeded random weights."""
    torch.manual_seed(0)
    common: dict[str, Any] = {"freq_dim": 256, "text_dim": TEXT[1], "eps": 1e-6}
    video = VideoTower(
        dim=512, in_dim=36, ffn_dim=1408, out_dim=16, patch_size=(1, 2, 2), num_heads=4, num_layers=layers[0], **common
    )
    audio = AudioTower(
        dim=256, in_dim=32, ffn_dim=704, out_dim=32, patch_size=(1,), num_heads=2, num_layers=layers[1], **common
    )
    bridge = Bridge(layers[0], layers[1], 512, 256, 50.0, 128)
    network = DualTower(video, audio, bridge).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return network


def inputs() -> dict[str, torch.Tensor]:
    """Latents of one clip and the two texts of text guidance."""
    generator = torch.Generator().manual_seed(1)
    return {
        "video": torch.randn(1, 36, *GRID, generator=generator),
        "audio": torch.randn(1, 32, AUDIO_TOKENS, generator=generator),
        "text": torch.randn(2, *TEXT, generator=generator),
    }


def ours(network: DualTower, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Both branches in one batch."""
    t = torch.full((2,), 500.0, dtype=torch.float64)
    video, audio = network(
        given["video"].repeat(2, 1, 1, 1, 1), given["audio"].repeat(2, 1, 1), t, t, given["text"], 6.0
    )
    return _guided(video[:1], video[1:]), _guided(audio[:1], audio[1:])


def naive(network: DualTower, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """One branch after the other, positions as complex float64."""
    t = torch.full((1,), 500.0, dtype=torch.float64)
    with (
        mock.patch.object(towers_module, "rotate_pairs", complex_pairs),
        mock.patch.object(bridge_module, "rotate_halves", complex_halves),
    ):
        passes = [network(given["video"], given["audio"], t, t, text[None], 6.0) for text in given["text"]]
    return _guided(passes[0][0], passes[1][0]), _guided(passes[0][1], passes[1][1])


def complex_pairs(x: torch.Tensor, table: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Neighbouring pairs as one complex float64 number each, turned by multiplication."""
    turn = torch.complex(table[0].double(), table[1].double())[:, None]
    number = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(number * turn).flatten(-2).to(x.dtype)


def complex_halves(x: torch.Tensor, table: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """First half as real, second half as imaginary part, in float64."""
    turn = torch.complex(table[0].double(), table[1].double())[:, None]
    first, second = x.double().chunk(2, -1)
    turned = torch.complex(first, second) * turn
    return torch.cat((turned.real, turned.imag), -1).to(x.dtype)


def _guided(negative: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    return negative + 5.0 * (positive - negative)


@torch.inference_mode()
def measure(repeats: int = 5, compiled: bool = False) -> dict[str, Any]:
    """Medians of interleaved runs, their ratio, and the largest difference of the results."""
    network, given = build(), inputs()
    slow = naive(network, given)
    if compiled:
        network.compile_repeated_blocks(dynamic=False)
    fast = ours(network, given)  # warm-up, and compilation where asked for
    difference = max(float((a - b).abs().max()) for a, b in zip(fast, slow, strict=True))
    twin = build() if compiled else network  # the naive path is never compiled
    times: dict[str, list[float]] = {"ours": [], "naive": []}
    for _ in range(repeats):
        for name, function, net in (("ours", ours, network), ("naive", naive, twin)):
            begun = time.perf_counter()
            function(net, given)
            times[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "compiled": compiled,
        "threads": torch.get_num_threads(),
        "ratio_naive_over_ours": medians["naive"] / medians["ours"],
        "max_abs_difference": difference,
    }


def main(argv: list[str] | None = None) -> int:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(prog="tests.bench.velocity", description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="also with regional compile (needs a C++ compiler)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    rows = [measure(args.repeats)] + ([measure(args.repeats, compiled=True)] if args.compile else [])
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(
            f"{'compiled' if row['compiled'] else 'eager':>8}: naive / ours = {row['ratio_naive_over_ours']:.2f}, "
            f"max abs difference {row['max_abs_difference']:.1e}, {row['threads']} threads"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a joint block takes while its gradient is computed: run once without values, under a meter; nothing is computed.

The block is the real one, with factors on every linear layer, at the sizes of the clips, on torch's meta device: a
full-size block is metered on a machine that could never hold it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from engine.attention import use_attention, use_products
from engine.memory.meter import Meter
from engine.models import AudioTower, Bridge, DualTower, VideoTower
from engine.models.dual_tower import JointBlock
from engine.models.rope import audio_table, clock_table, video_table
from engine.models.towers import known_options
from engine.training.flow import joint_blocks
from engine.training.lora.streamed import STATES, lean_blocks
from engine.weights import read_json

Grid = tuple[int, int, int]
KINDS = ((VideoTower, "video_dit"), (AudioTower, "audio_dit"), (Bridge, "dual_tower_bridge"))


def read_configs(folder: Path) -> str:
    """The configs of a model's networks, as JSON."""
    found = [known_options(kind, read_json(folder / name / "config.json")) for kind, name in KINDS]
    return json.dumps(found, sort_keys=True)


@lru_cache(maxsize=32)
def graph_bytes(
    configs: str, tokens: tuple[int, int], grid: Grid, rank: int, text: int, products: bool, dtype: str, in_parts: bool
) -> int:
    """Bytes that the gradient of one joint block takes at its peak, for one clip, without its input and its gradient.

    Args:
        configs: as `read_configs` gives them.
        tokens: of picture and sound. grid: latent frames, and rows and columns of patches.
        rank: of factors on every linear layer.
        text: tokens of it that are computed.
        products: attention as training on a processor computes it.
        dtype: of weights and states.
        in_parts: as engine/training/lora/parts.py computes it.
    """
    kind = getattr(torch, dtype)
    with torch.device("meta"):
        network, block = _bare_block(configs, rank, kind)
        widths = network.config.video["dim"], network.config.audio["dim"]

        def made(*sizes: tuple[int, ...], learns: bool = False) -> list[Tensor]:
            return [torch.empty(1, *size, dtype=kind, requires_grad=learns) for size in sizes]

        states = made(*zip(tokens, widths, strict=True), learns=True)
        rest = made(*((6, w) for w in widths), *((text, w) for w in widths))
        slopes = made(*zip(tokens, widths, strict=True))
        factors = [p for p in block.parameters() if p.requires_grad]
        tables = _tables(network, tokens, grid)
        keeps = use_products(torch.empty(text)) if products else use_attention(_fused)
        lean = partial(lean_blocks, [network], in_parts=True, again=products) if in_parts else contextlib.nullcontext
        with keeps, lean(), Meter() as meter:
            outputs = block(*states, *rest, *tables, 1.0, 1.0)
            torch.autograd.grad(outputs, [*states, *factors], slopes)
            assert len(states) + len(rest) == STATES
    return meter.peak


def _tables(network: DualTower, tokens: tuple[int, int], grid: Grid) -> tuple[Any, ...]:
    """Positions; those of the lists that are kept for real ones are not touched."""
    kinds = (
        (video_table, (*grid, network.video_head_dim)), (audio_table, (tokens[1], network.audio_head_dim)),
        (clock_table, (grid[0], grid[1] * grid[2], 1.0, network.bridge_head_dim)),
        (audio_table, (tokens[1], network.bridge_head_dim)),
    )  # fmt: skip
    return tuple(table.__wrapped__(*sizes, torch.device("meta")) for table, sizes in kinds)


def _fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Keeps what fused attention keeps (all three and its result), never a matrix of all pairs; not its values."""
    return query * (key * value).mean(1, keepdim=True)


def _bare_block(configs: str, rank: int, dtype: torch.dtype) -> tuple[DualTower, JointBlock]:
    """A network of one joint block, with factors (float32) on every linear layer of it."""
    video, audio, bridge = json.loads(configs)
    one = {"num_layers": 1}
    towers = VideoTower(**{**video, **one}), AudioTower(**{**audio, **one})
    network = DualTower(*towers, Bridge(**{**bridge, "visual_layers": 1, "audio_layers": 1}))
    network.requires_grad_(False)
    block = next(joint_blocks(network)).to(dtype)
    for parent, name, layer in list(_linear(block)):
        config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=False)
        grown = LoraLinear(layer, "grown", config, r=rank, lora_alpha=rank)
        grown.lora_A.float()
        grown.lora_B.float()
        setattr(parent, name, grown)
    return network, block


def _linear(block: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in list(block.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                yield parent, name, layer

"""What tests of the enhancer's model share."""

from __future__ import annotations

import os
from pathlib import Path

import gguf
import numpy as np
import pytest

from prompt_enhancer.catalogue import BUNDLED_FILE
from prompt_enhancer.writer import missing

WIDTH = 128  # numbers a token of the bundled model has


def need_llama() -> None:
    """Skips where llama.cpp could not be built; on CI that is a failure, because there it must run."""
    assert BUNDLED_FILE.is_file()
    if reason := missing():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def write_projector(path: Path, width: int = WIDTH) -> None:
    """LLaVA's kind of projector, two layers of random weights for pictures of 28 pixels."""
    rng = np.random.default_rng(3)
    inner, patch, side = 32, 14, 28
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", False)
    writer.add_uint32("clip.vision.image_size", side)
    writer.add_uint32("clip.vision.patch_size", patch)
    writer.add_uint32("clip.vision.embedding_length", inner)
    writer.add_uint32("clip.vision.feed_forward_length", 2 * inner)
    writer.add_uint32("clip.vision.projection_dim", width)
    writer.add_uint32("clip.vision.block_count", 2)
    writer.add_uint32("clip.vision.attention.head_count", 2)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def add(name: str, *shape: int) -> None:
        values = rng.standard_normal(shape) * (0.5 if len(shape) > 1 else 0.1)
        writer.add_tensor(name, (values + (name.endswith("ln.weight") or "ln1.w" in name)).astype(np.float32))

    add("v.class_embd", inner)
    add("v.patch_embd.weight", inner, 3, patch, patch)
    add("v.position_embd.weight", (side // patch) ** 2 + 1, inner)
    for name in ("v.pre_ln", "v.post_ln"):
        add(f"{name}.weight", inner)
        add(f"{name}.bias", inner)
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            add(f"v.blk.{layer}.{name}.weight", inner, inner)
            add(f"v.blk.{layer}.{name}.bias", inner)
        for name in ("ln1", "ln2"):
            add(f"v.blk.{layer}.{name}.weight", inner)
            add(f"v.blk.{layer}.{name}.bias", inner)
        for name, rows, columns in (("ffn_down", 2 * inner, inner), ("ffn_up", inner, 2 * inner)):
            add(f"v.blk.{layer}.{name}.weight", rows, columns)
            add(f"v.blk.{layer}.{name}.bias", rows)
    for number, columns in ((0, inner), (2, width)):
        add(f"mm.{number}.weight", width, columns)
        add(f"mm.{number}.bias", width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

"""The trained network as a GGUF file: `python -m prompt_enhancer.training.export FOLDER FILE.gguf`.

Weights stay in float32, so that llama.cpp computes what was trained. Its rotary code turns neighbouring pairs of a
head's numbers, transformers' turns the two halves: rows of q and k change places accordingly. `difference` checks it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from prompt_enhancer.training.ideas import example
from prompt_enhancer.training.train import END, PAD, SPECIALS, Recipe, encoded, make_model

log = logging.getLogger(__name__)

NAME = "MOVA Studio demo enhancer"
TOLERANCE = 1e-3


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """q or k weights [heads * d, width] with each head's halves woven together: 0, d/2, 1, d/2 + 1, ..."""
    width = rows.shape[1]
    return rows.reshape(heads, 2, -1, width).swapaxes(1, 2).reshape(-1, width)


def trained(folder: Path) -> tuple[Recipe, Tokenizer, LlamaForCausalLM]:
    """What `train` left in a folder, at its newest state."""
    recipe = Recipe(**json.loads((folder / "recipe.json").read_text()))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = make_model(recipe, tokenizer.get_vocab_size())
    model.load_state_dict(torch.load(folder / "state.pt", weights_only=True)["model"])
    return recipe, tokenizer, model.eval()


def write_gguf(recipe: Recipe, tokenizer: Tokenizer, model: LlamaForCausalLM, path: Path) -> None:
    """Writes the file; whole or not at all."""
    temporary = path.with_suffix(".part")
    writer = gguf.GGUFWriter(str(temporary), "llama")
    writer.add_name(NAME)
    writer.add_license("apache-2.0")
    writer.add_description("Rewrites ideas for the bundled demo model. Made from grammars, without anybody's texts.")
    writer.add_context_length(recipe.context)
    writer.add_embedding_length(recipe.width)
    writer.add_block_count(recipe.layers)
    writer.add_feed_forward_length(recipe.inner)
    writer.add_head_count(recipe.heads)
    writer.add_head_count_kv(recipe.heads)
    writer.add_rope_dimension_count(recipe.width // recipe.heads)
    writer.add_rope_freq_base(float(model.config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokens(writer, tokenizer)
    for name, weight in _tensors(recipe, model).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(temporary, path)


def _add_tokens(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Byte-level BPE as GPT-2's: tokens, kinds and merges."""
    parts = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(parts["vocab"], key=parts["vocab"].__getitem__)
    kinds = [gguf.TokenType.CONTROL if token in SPECIALS else gguf.TokenType.NORMAL for token in vocabulary]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in parts["merges"]])
    writer.add_eos_token_id(vocabulary.index(END))
    writer.add_pad_token_id(vocabulary.index(PAD))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _tensors(recipe: Recipe, model: LlamaForCausalLM) -> dict[str, np.ndarray]:
    state = {name: weight.detach().float().numpy() for name, weight in model.state_dict().items()}
    tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    places = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(recipe.layers):
        for ours, theirs in places.items():
            weight = state[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                weight = interleaved(weight, recipe.heads)
            tensors[f"blk.{layer}.{theirs}.weight"] = np.ascontiguousarray(weight)
    return tensors


def difference(tokenizer: Tokenizer, model: LlamaForCausalLM, path: Path, texts: int = 20) -> float:
    """The largest difference between llama.cpp's logits and transformers', after whole examples and half ones."""
    from prompt_enhancer.writer import Writer

    writer = Writer(threads=1)
    rng = random.Random("logits")  # noqa: S311
    worst = 0.0
    try:
        writer.load(path, exact=True, deadline=time.monotonic() + 60)
        for _ in range(texts):
            ids, _ = encoded(tokenizer, example(rng, held_out=True))
            for part in (ids[: len(ids) // 2], ids[:-1]):
                with torch.no_grad():
                    expected = model(input_ids=torch.tensor([part])).logits[0, -1].numpy()
                worst = max(worst, float(np.abs(np.array(writer.logits(part)) - expected).max()))
    finally:
        writer.release()
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where the file does not compute what was trained."""
    parser = argparse.ArgumentParser(prog="export", description="Writes a trained enhancer as GGUF and checks it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe, tokenizer, model = trained(options.folder)
    options.file.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(recipe, tokenizer, model, options.file)
    worst = difference(tokenizer, model, options.file)
    digest = hashlib.sha256(options.file.read_bytes()).hexdigest()
    log.info("%s: %d bytes, sha256 %s", options.file.name, options.file.stat().st_size, digest)
    log.info("largest difference of logits: %.2e (at most %.0e)", worst, TOLERANCE)
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())

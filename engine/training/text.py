"""The demo model's tokenizer and text encoder.

The tokenizer knows the demo world's words whole; any other word falls apart into known pieces, at worst characters, so
that no English prompt is lost. The encoder is a small UMT5 that learns together with the towers.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from engine.training.demo_world import vocabulary

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
PREFIX = "##"  # before pieces that go on inside a word
FOLD = 16  # text lengths in training are multiples of this


def token_list() -> list[str]:
    """The tokenizer's vocabulary in order: special tokens, words and marks, characters, characters inside words."""
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = [w for w in vocabulary() if w not in characters]
    return [PAD, END, UNKNOWN, *words, *characters, *(PREFIX + c for c in characters)]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-cases, drops accents, splits at spaces and marks, takes the longest known pieces, ends with ``</s>``."""
    tokens = token_list()
    tokenizer = Tokenizer(
        models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token=UNKNOWN, continuing_subword_prefix=PREFIX)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, tokens.index(END))]
    )
    tokenizer.decoder = decoders.WordPiece(prefix=PREFIX, cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="right",
        truncation_side="right",
    )


def save_tokenizer(folder: Path) -> None:
    """The three files that released checkpoints have: the tokenizer, its config and its special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": END, "pad_token": PAD, "unk_token": UNKNOWN}
    plain = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    added = {str(i): {"content": t, **plain, "special": True} for i, t in enumerate((PAD, END, UNKNOWN))}
    config = {
        "added_tokens_decoder": added,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
    }
    for name, value in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def make_text_encoder(config: dict[str, Any]) -> UMT5EncoderModel:
    """A fresh UMT5 encoder without dropout; ``config`` as of ``UMT5Config``, the vocabulary's size filled in."""
    settings = {"dropout_rate": 0.0, "feed_forward_proj": "gated-gelu", "pad_token_id": 0, "eos_token_id": 1, **config}
    model = UMT5EncoderModel(UMT5Config(vocab_size=len(token_list()), is_encoder_decoder=False, **settings))
    torch.nn.init.normal_(model.shared.weight, std=0.5)
    return model.train()


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str], fold: int = FOLD) -> tuple[Tensor, Tensor]:
    """Token ids and mask, (B, S) each, S the next multiple of ``fold`` with room for at least one padding token."""
    rows = tokenizer(texts)["input_ids"]
    length = -(-(max(map(len, rows)) + 1) // fold) * fold
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def encode(model: UMT5EncoderModel, ids: Tensor, mask: Tensor) -> Tensor:
    """(B, S) -> embeddings (B, S, width), zero past each text's end, as the pipeline makes them."""
    hidden: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden * mask.to(hidden)[..., None]


def padding_counts(length: int, full: int) -> Tensor:
    """How often each of ``length`` text positions counts so that the last, padding, stands for all up to ``full``."""
    counts = torch.ones(length)
    counts[-1] = full - length + 1
    return counts

"""Trains the bundled model: `python -m prompt_enhancer.training.train FOLDER`.

A Llama of 1.2 million parameters and a byte-level BPE, both made from the texts of `ideas`. One processor thread; may
be stopped at any time and started again with the same folder: every batch follows from its step's number, so the
result is the same as without the stop. The folder holds tokenizer.json, state.pt, log.jsonl and, at the end, model/.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from prompt_enhancer.training.ideas import Example, example

PAD, IDEA, WRITE, END = "<|pad|>", "<|idea|>", "<|write|>", "<|end|>"
SPECIALS = (PAD, IDEA, WRITE, END)
IGNORED = -100  # label of tokens that are not learnt


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result."""

    seed: int = 5
    vocabulary: int = 1536
    width: int = 128
    layers: int = 5
    heads: int = 4
    inner: int = 352
    context: int = 512
    steps: int = 2600
    batch: int = 48
    rate: float = 4e-3
    warm_up: int = 120
    weight_decay: float = 0.05
    texts_for_tokenizer: int = 30000


def make_tokenizer(recipe: Recipe, path: Path) -> Tokenizer:
    """Byte-level BPE on the grammars' texts, as GPT-2 splits them; written to `path` and read back."""

    def texts() -> Iterator[str]:
        rng = random.Random(f"tokenizer {recipe.seed}")  # noqa: S311
        for _ in range(recipe.texts_for_tokenizer):
            one = example(rng)
            yield one.idea
            yield one.answer

    trainer = ByteLevelBPETokenizer(add_prefix_space=False)
    trainer.train_from_iterator(
        texts(), vocab_size=recipe.vocabulary, min_frequency=2, special_tokens=list(SPECIALS), show_progress=False
    )
    temporary = path.with_suffix(".part")
    trainer.save(str(temporary))
    os.replace(temporary, path)
    return Tokenizer.from_file(str(path))


def encoded(tokenizer: Tokenizer, one: Example) -> tuple[list[int], int]:
    """Token ids of a whole example and how many of them are given (not learnt)."""
    ids = {name: tokenizer.get_vocab()[name] for name in (IDEA, WRITE, END)}
    given = [ids[IDEA], *tokenizer.encode(one.idea).ids, ids[WRITE]]
    return [*given, *tokenizer.encode(one.answer).ids, ids[END]], len(given)


def batch_of(recipe: Recipe, tokenizer: Tokenizer, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels [batch, longest] of one step; the same for the same step, whatever came before."""
    rng = random.Random(f"batch {recipe.seed} {step}")  # noqa: S311
    rows = [encoded(tokenizer, example(rng)) for _ in range(recipe.batch)]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, (tokens, given) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, given : len(tokens)] = torch.tensor(tokens[given:])
    return ids, labels


def make_model(recipe: Recipe, tokens: int) -> LlamaForCausalLM:
    """The untrained network; its weights follow from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokens,
            hidden_size=recipe.width,
            intermediate_size=recipe.inner,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=recipe.context,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def train(recipe: Recipe, folder: Path) -> LlamaForCausalLM:
    """Runs the recipe from wherever the folder stands to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n")
    vocabulary = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(vocabulary)) if vocabulary.is_file() else make_tokenizer(recipe, vocabulary)
    model = make_model(recipe, tokenizer.get_vocab_size())
    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=recipe.steps, pct_start=recipe.warm_up / recipe.steps, cycle_momentum=False
    )
    done, spent = _resumed(folder, model, optimizer, schedule)
    model.train()
    losses: list[float] = []
    for step in range(done, recipe.steps):
        began = time.monotonic()
        ids, labels = batch_of(recipe, tokenizer, step)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        spent += time.monotonic() - began
        if (step + 1) % 50 == 0 or step + 1 == recipe.steps:
            line = {"step": step + 1, "loss": round(sum(losses) / len(losses), 5), "seconds": round(spent, 1)}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            losses = []
            parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
            _write(folder / "state.pt", step + 1, spent, parts)
    model.eval()
    model.save_pretrained(folder / "model")
    return model


def _write(path: Path, step: int, spent: float, parts: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    torch.save({"step": step, "spent": spent} | {name: part.state_dict() for name, part in parts.items()}, temporary)
    os.replace(temporary, path)


def _resumed(folder: Path, model: Any, optimizer: Any, schedule: Any) -> tuple[int, float]:
    """Takes up the last state, if there is one; the steps and seconds already done."""
    path = folder / "state.pt"
    if not path.is_file():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return int(state["step"]), float(state["spent"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="train", description="Trains the enhancer's bundled model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    options = parser.parse_args(argv)
    train(Recipe(steps=options.steps), options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

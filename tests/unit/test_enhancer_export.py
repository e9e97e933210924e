"""The bundled file against transformers' network: the same weights in another order, the same logits."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from prompt_enhancer.training.export import TOLERANCE, difference, interleaved, trained, write_gguf
from prompt_enhancer.training.train import Recipe, batch_of, train
from tests.enhancer_parts import need_llama

SMALL = Recipe(
    vocabulary=300, width=32, layers=2, heads=2, inner=48, steps=4, batch=4, warm_up=2, texts_for_tokenizer=300
)


def test_rows_of_q_and_k_change_places() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)  # two heads of four
    assert interleaved(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_training_export_and_llama_cpp_agree(tmp_path: Path) -> None:
    """A few steps of a smaller recipe, the same taken up at its end, then the file, then the logits."""
    need_llama()
    network = train(SMALL, tmp_path / "whole")
    whole = torch.load(tmp_path / "whole" / "state.pt", weights_only=True)
    assert whole["step"] == SMALL.steps
    again = train(SMALL, tmp_path / "whole")  # nothing is left to do
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    recipe, tokenizer, model = trained(tmp_path / "whole")
    assert recipe == SMALL
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, network.state_dict()[name])
    path = tmp_path / "small.gguf"
    write_gguf(recipe, tokenizer, model, path)
    assert difference(tokenizer, model, path, texts=3) < TOLERANCE
    assert not list(tmp_path.glob("*.part"))


def test_batches_follow_from_the_step(tmp_path: Path) -> None:
    from prompt_enhancer.training.train import make_tokenizer

    tokenizer: Tokenizer = make_tokenizer(SMALL, tmp_path / "tokenizer.json")
    random.seed(1)
    first = batch_of(SMALL, tokenizer, 3)
    random.seed(2)
    again, other = batch_of(SMALL, tokenizer, 3), batch_of(SMALL, tokenizer, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][:, :5], other[0][:, :5])

"""The text encoder's own lesson: what captions name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.training.demo_world import caption, sample_spec
from engine.training.naming import ATTRIBUTES, UNNAMED, Naming, named_in
from engine.training.text import encode, make_text_encoder, make_tokenizer, tokenize

CONFIG = {"d_model": 64, "d_kv": 16, "d_ff": 160, "num_layers": 2, "num_heads": 4}


def test_what_is_named() -> None:
    found = named_in(["A small red ball bounces quickly at night.", "a bell", ""])
    said = [[values[i] if i != UNNAMED else None for i, values in zip(row, ATTRIBUTES.values(), strict=True)]
            for row in found.tolist()]  # fmt: skip
    assert said == [["ball", "red", "night", "small", "fast", None], ["bell", *[None] * 5], [None] * 6]


def test_loss_is_the_mean_over_what_is_named() -> None:
    naming, named = Naming(8), named_in(["a red ball", "", "a bell rings slowly"])
    torch.nn.init.normal_(naming.heads.weight)
    text, mask = torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.long)
    text[:, 3:], mask[:, 3:] = 0.0, 0
    loss, _ = naming(text, mask, named)
    terms = []
    for logits, row in zip(naming.heads(text[:, :3].mean(1)), named, strict=True):
        for part, wanted in zip(Naming.split(logits[None]), row.tolist(), strict=True):
            if wanted != UNNAMED:
                terms.append(-part[0].log_softmax(0)[wanted])
    assert len(terms) == 4
    assert float(loss.detach()) == pytest.approx(float(torch.stack(terms).mean().detach()), rel=1e-5)
    assert [float(x.detach()) for x in naming(text, mask, torch.full_like(named, UNNAMED))] == [0.0, 0.0]


def test_synonyms_come_to_lie_together() -> None:
    """Trained by the lesson alone, on training sentences: held-out ones are read, and "quickly" means "fast"."""
    torch.manual_seed(3)
    tokenizer, encoder, naming = make_tokenizer(), make_text_encoder(CONFIG), Naming(64)
    rng = np.random.default_rng(7)

    def read(texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        ids, mask = tokenize(tokenizer, texts)
        return encode(encoder, ids, mask), mask, named_in(texts)

    optimizer = torch.optim.AdamW([*encoder.parameters(), *naming.parameters()], lr=3e-3)
    for _ in range(150):
        loss, _ = naming(*read([caption(sample_spec(rng), rng, thorough=0.5) for _ in range(32)]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        _, right = naming(*read([caption(sample_spec(rng), rng, held_out=True) for _ in range(200)]))
        assert float(right) > 0.95
        text, mask, _ = read([f"the white drum is hit {how}" for how in ("quickly", "fast", "steadily", "evenly")])
        quickly, fast, steadily, evenly = text.sum(1) / mask.sum(1, keepdim=True)
        assert (quickly - fast).norm() < 0.7 * (quickly - steadily).norm()
        assert (steadily - evenly).norm() < 0.7 * (quickly - steadily).norm()

"""Teaches the text encoder what captions name: a classifier of every attribute on top of it, used in training alone.

The towers' loss tells words apart only where a picture depends on them, and of a tempo little does: after 9,600 steps
"quickly" lay as near to "steadily" as "evenly" does, and of the clips that named it so none was fast. The text encoder
of the released MOVA knew language before it saw pictures; this is what stands for that here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.training.demo_world import parse_caption
from engine.training.demo_world.clip import BACKGROUNDS, COLOURS, FAMILIES, SIZES, TEMPI, VOICES

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "family": tuple(FAMILIES),
    "colour": tuple(COLOURS),
    "background": tuple(BACKGROUNDS),
    "size": tuple(SIZES),
    "tempo": tuple(TEMPI),
    "voice": tuple(VOICES),
}
UNNAMED = -1
"""Stands for an attribute that a caption says nothing about."""


def named_in(texts: list[str]) -> Tensor:
    """What captions name, (B, attributes): the number of each value in ATTRIBUTES, or UNNAMED."""
    rows = []
    for text in texts:
        promise = parse_caption(text)
        found = {name: getattr(promise, name) for name in ATTRIBUTES}
        rows.append([UNNAMED if found[n] is None else values.index(found[n]) for n, values in ATTRIBUTES.items()])
    return torch.tensor(rows)


class Naming(nn.Module):
    """A linear classifier of each attribute on the mean of a text's embeddings.

    Linear, and on the mean, so that all words for one thing have to lie on one side together.
    """

    def __init__(self, width: int) -> None:
        """``width`` is that of the embeddings."""
        super().__init__()
        self.heads = nn.Linear(width, sum(map(len, ATTRIBUTES.values())))
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    def forward(self, text: Tensor, mask: Tensor, named: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, S, width), mask (B, S) and what ``named_in`` gives -> loss, and the share named rightly.

        The loss is the mean cross-entropy of all that is named; both are 0 where nothing is.
        """
        mean = text.float().sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        losses, right = [], []
        for logits, wanted in zip(self.split(self.heads(mean)), named.T, strict=True):
            losses.append(functional.cross_entropy(logits, wanted, ignore_index=UNNAMED, reduction="sum"))
            right.append((logits.argmax(1) == wanted).sum())
        count = (named != UNNAMED).sum().clamp_min(1)
        return torch.stack(losses).sum() / count, torch.stack(right).sum() / count

    @staticmethod
    def split(logits: Tensor) -> tuple[Tensor, ...]:
        """(B, all values) -> (B, values) of each attribute."""
        return logits.split([len(values) for values in ATTRIBUTES.values()], 1)

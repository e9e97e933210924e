"""Leaves out most of a step where it would change little: picture and sound judged together, or not at all.

Source of the idea: the first block tells how much the others would change (First Block Cache, after TeaCache,
arXiv 2411.19108). After the first joint block, what it added is compared with what it added at the last full
evaluation. Where the relative change of both picture and sound is below the threshold, the other blocks are left out,
and what they added then is added again, to both. Off by default: the result changes, and by how much is said in
docs/memory.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from engine.models import DualTower
from engine.request import STEP_CACHE

FIRST_STEPS, LAST_STEPS = 2, 1  # always computed in full: composition, and the finest detail


@dataclass
class _Kept:
    """Of the last full evaluation of one network: what its first block added, and what the others added."""

    first: tuple[torch.Tensor, torch.Tensor]
    rest: tuple[torch.Tensor, torch.Tensor]


@dataclass
class StepCache:
    """One run's cache. `computed` and `skipped` count evaluations.

    Attributes:
        threshold: mean relative change of the first block's contribution up to which the others are left out.
    """

    threshold: float = STEP_CACHE
    computed: int = 0
    skipped: int = 0
    _kept: dict[int, _Kept] = field(default_factory=dict)
    _before: tuple[torch.Tensor, torch.Tensor] | None = None
    _after: tuple[torch.Tensor, torch.Tensor] | None = None
    _full: bool = True

    def step(self, index: int, steps: int) -> None:
        """Step `index` of `steps` comes."""
        self._full = index < FIRST_STEPS or index >= steps - LAST_STEPS

    def begin(self, video: torch.Tensor, audio: torch.Tensor) -> None:
        """The states before the first block; long ones are changed in place, so they are copied."""
        self._before = video.clone(), audio.clone()

    def first(self, network: int, video: torch.Tensor, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The states after the first block -> those after the last one, or None where it has to be computed."""
        assert self._before is not None
        added = video - self._before[0], audio - self._before[1]
        kept = self._kept.get(network)
        self._before = None
        if kept is not None and not self._full and kept.first[0].shape == added[0].shape:
            change = max(_change(a, b) for a, b in zip(added, kept.first, strict=True))
            if change < self.threshold:
                self.skipped += 1
                return video + kept.rest[0], audio + kept.rest[1]
        self._kept.pop(network, None)
        self._kept[network] = _Kept(added, (video.clone(), audio.clone()))
        return None

    def last(self, network: int, video: torch.Tensor, audio: torch.Tensor) -> None:
        """The states after the last block of a full evaluation."""
        kept = self._kept[network]
        kept.rest = video - kept.rest[0], audio - kept.rest[1]
        self.computed += 1

    @contextmanager
    def on(self, *networks: DualTower) -> Iterator[StepCache]:
        """Within the block these networks use this cache; it is empty before and after."""
        self._kept, self.computed, self.skipped = {}, 0, 0
        for network in networks:
            network.step_cache = self
        try:
            yield self
        finally:
            for network in networks:
                network.step_cache = None
            self._kept = {}


def _change(now: torch.Tensor, then: torch.Tensor) -> float:
    """Mean absolute difference, relative to the mean absolute value then; of the branch that changed most."""
    difference = (now - then).abs().flatten(1).mean(1, dtype=torch.float32)
    return float((difference / then.abs().flatten(1).mean(1, dtype=torch.float32).clamp_min(1e-12)).max())

"""Guidance branches on several devices: each computes its own, and all get all velocities. Exact.

A branch is computed by the same operations as alone in one process, so the result is bit for bit that of one process
which computes its branches one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class GuidanceSplit:
    """Which branches of a step this process computes.

    Attributes:
        group: the processes that share the branches; None is all of them.
    """

    group: dist.ProcessGroup | None = None

    @property
    def rank(self) -> int:
        return dist.get_rank(self.group)

    @property
    def count(self) -> int:
        return dist.get_world_size(self.group)

    def mine(self, branches: int) -> list[int]:
        """Indices of the branches that are computed here; where there are more processes than branches, a double."""
        return list(range(self.rank, branches, self.count)) or [self.rank % branches]

    def gather(self, mine: list[torch.Tensor], branches: int) -> list[torch.Tensor]:
        """The velocities of all branches, in order, from those computed here."""
        rounds = -(-branches // self.count)
        found: dict[int, torch.Tensor] = {}
        for n in range(rounds):
            own = mine[min(n, len(mine) - 1)].contiguous()
            all_of_round = [torch.empty_like(own) for _ in range(self.count)]
            dist.all_gather(all_of_round, own, group=self.group)
            for rank, velocity in enumerate(all_of_round):
                found.setdefault(n * self.count + rank, velocity)
        return [found[i] for i in range(branches)]

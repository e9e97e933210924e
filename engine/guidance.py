"""Text guidance and bridge guidance as branches of one batch. MOVA (arXiv 2602.08794), equation 6.

    v = v(neg, off) + g_B [v(neg, on) - v(neg, off)] + g_T [v(pos, on) - v(neg, on)]

g_B = 1 is plain text guidance, g_B = g_T = 1 a single pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Branch:
    """One evaluation of the network: which text it sees, and whether the bridge is on."""

    positive: bool
    bridged: bool


def branches(guidance_scale: float, bridge_guidance_scale: float) -> list[Branch]:
    """The branches that these scales need, the fully conditioned one last."""
    if bridge_guidance_scale != 1:
        return [Branch(False, False), Branch(False, True), Branch(True, True)]
    if guidance_scale != 1:
        return [Branch(False, True), Branch(True, True)]
    return [Branch(True, True)]


def combine(velocities: list[torch.Tensor], guidance_scale: float, bridge_guidance_scale: float) -> torch.Tensor:
    """Velocities of `branches(...)`, in that order, to the guided velocity, in float32."""
    parts = [v.float() for v in velocities]
    guided = parts[-1] if len(parts) == 1 else parts[-2] + guidance_scale * (parts[-1] - parts[-2])
    if len(parts) == 3:
        # parts[1] + g_T (parts[2] - parts[1]) stands in `guided`; what is left is the bridge's own term.
        guided = guided + (bridge_guidance_scale - 1) * (parts[1] - parts[0])
    return guided

"""The picture's tokens shared out over several devices. DeepSpeed Ulysses (arXiv 2309.14509), from outside the network.

    before the first block   each process keeps its part of the picture's tokens; the sound's tokens stay whole
    self-attention           parts of all heads -> all tokens of some heads -> attention -> parts of all heads
    sound to picture         each part of the picture looks at the whole sound: nothing to exchange
    picture to sound         the picture is gathered before the sound looks at it
    after the last block     the picture is gathered

The sound (403 tokens for 8 s) is replicated: it does not divide, and it costs a thousandth of the work. Tokens that do
not divide are filled up to equal parts, and what fills up never takes part in attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from engine.attention import attention, use_attention
from engine.errors import RequestError
from engine.models import DualTower


class Ulysses:
    """Shares the work of networks with the other processes of a group, while it is `on` them.

    Args:
        group: None is all processes.

    Raises:
        RequestError: the picture's attention heads do not divide by the number of processes.
    """

    def __init__(self, heads: int, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.count = dist.get_rank(group), dist.get_world_size(group)
        if heads % self.count:
            fitting = max(n for n in range(1, self.count + 1) if heads % n == 0)
            raise RequestError(f"{heads} attention heads do not divide by {self.count} devices; use {fitting}")
        self.tokens = 0
        self.exchanges = 0  # so many times this process spoke with all others
        self._whole: Any = None  # the picture's clock, of all tokens

    @contextmanager
    def on(self, *networks: DualTower) -> Iterator[None]:
        """Within the block these networks compute their part; all processes must call them alike."""
        hooks, bridged = [], set()
        for network in networks:
            last = len(network.blocks) - 1
            for i, block in enumerate(network.blocks):
                hooks.append(block.register_forward_pre_hook(self._entering(first=i == 0)))
                if i == last:
                    hooks.append(block.register_forward_hook(self._leaving))
                if isinstance(block.v2a, nn.Module) and block.v2a not in bridged:
                    bridged.add(block.v2a)  # both experts have the same bridge
                    hooks.append(block.v2a.register_forward_pre_hook(self._looked_at))
                own = block.get_submodule("video.self_attn")
                hooks += self._around(own)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _entering(self, first: bool) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            if args[0].shape[1] == 0:
                return args  # the sound alone: every process computes it
            video, audio, v_mod, a_mod, v_text, a_text, v_rope, a_rope, v_clock, *rest = args
            if first:
                self.tokens = video.shape[1]
                video = self.part(video, 1)
            self._whole = v_clock
            rope = tuple(self.part(x, 0) for x in v_rope)
            clock = tuple(self.part(x, 0) for x in v_clock)
            return video, audio, v_mod, a_mod, v_text, a_text, rope, a_rope, clock, *rest

        return hook

    def _leaving(self, _: nn.Module, __: Any, out: tuple[torch.Tensor, torch.Tensor]) -> Any:
        return (self.whole(out[0]) if out[0].shape[1] else out[0]), out[1]

    def _looked_at(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Sound looks at the picture: at all of it, on its whole clock."""
        x, other, clock, _ = args
        return x, self.whole(other), clock, self._whole

    def _around(self, module: nn.Module) -> list[Any]:
        held: list[Any] = []

        def enter(*_: Any) -> None:
            held.append(use_attention(self.attention))
            held[-1].__enter__()

        def leave(*_: Any) -> None:
            held.pop().__exit__(None, None, None)

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, always_call=True)]

    def part(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """This process's tokens of x along `dim`, filled up with zeros where they do not divide."""
        size = -(-x.shape[dim] // self.count)
        start = min(self.rank * size, x.shape[dim])
        own = x.narrow(dim, start, min(size, x.shape[dim] - start))
        missing = size - own.shape[dim]
        if missing:
            shape = list(own.shape)
            shape[dim] = missing
            own = torch.cat((own, own.new_zeros(shape)), dim)
        return own.contiguous()

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """(B, tokens of a part, D) of every process -> (B, all tokens, D)."""
        self.exchanges += 1
        parts = [torch.empty_like(x) for _ in range(self.count)]
        dist.all_gather(parts, x.contiguous(), group=self.group)
        return torch.cat(parts, 1)[:, : self.tokens].contiguous()

    def attention(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """`engine.attention.attention` of all tokens, of which each process holds a part: (B, part, heads, width)."""
        q, k, v = (self._to_heads(x) for x in (query, key, value))
        mixed = attention(q, k, v)  # (B, tokens, some heads, width)
        filled = query.shape[1] * self.count - self.tokens
        if filled:
            mixed = torch.cat((mixed, mixed.new_zeros(mixed.shape[0], filled, *mixed.shape[2:])), 1)
        batch, _, heads, width = mixed.shape
        out = mixed.view(batch, self.count, -1, heads, width).transpose(0, 1).contiguous()
        back = self._exchange(out)  # (heads of each process, B, part, some heads, width)
        return back.permute(1, 2, 0, 3, 4).reshape(query.shape)

    def _to_heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, part, heads, width) -> (B, all tokens, heads / count, width)."""
        batch, part, heads, width = x.shape
        out = x.view(batch, part, self.count, heads // self.count, width).permute(2, 0, 1, 3, 4).contiguous()
        parts = self._exchange(out)  # (part of each process, B, part, some heads, width)
        return parts.transpose(0, 1).reshape(batch, part * self.count, heads // self.count, width)[:, : self.tokens]

    def _exchange(self, x: torch.Tensor) -> torch.Tensor:
        """The i-th entry goes to process i; what comes back is ordered by who sent it."""
        self.exchanges += 1
        received = torch.empty_like(x)
        dist.all_to_all_single(received, x, group=self.group)
        return received

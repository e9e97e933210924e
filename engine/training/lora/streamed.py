"""Training on a frozen base whose blocks stream: forwards for the loss, backwards for its gradient.

    forward   0 1 2 ... n        a block computes from a slot; of it only its inputs are kept
    backward  n ... 2 1 0        the block comes again, is computed again, and its gradient is taken at once

Only factors get gradients, so that weights travel towards the device alone. The two ends of the order, where the
direction turns, find their blocks still in the ring. Numbers are bit for bit those of a base that stands on the device,
or, where a block is computed in parts (parts.py), the same within rounding.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.memory.carry import PlannedCarrier
from engine.memory.slabs import Part
from engine.memory.streaming import Key, Layout, Network, Slot, Streamer
from engine.models.dual_tower import JointBlock
from engine.training.lora.parts import autocast_of, joint_in_parts
from engine.training.lora.waiting import HostStates

if TYPE_CHECKING:
    from engine.pipeline import MovaPipeline
    from engine.training.lora.memory import TrainPlan

STATES = 6  # tensors that a joint block takes first: picture, sound, two modulations, two texts


class BareNetwork(Network):
    """A network whose adapters stay where the optimizer has them."""

    def around(self) -> tuple[Part, ...]:
        return (self.ends,)


class TwoWayStreamer(Streamer):
    """Carries blocks in either direction; a slot keeps its block until another one needs the place."""

    def __init__(
        self, networks: Sequence[Network], shared: Sequence[Part | None], layout: Layout, device: torch.device
    ) -> None:
        bare = [BareNetwork(n.whole, n.blocks, n.own, n.ends, n.dtype) for n in networks]
        super().__init__(bare, shared, layout, device)
        self.backwards = False
        self._turns = False  # the pass that is under way will be followed by one backwards
        self._busy: Slot | None = None

    def end(self) -> None:
        super().end()
        self._busy, self.backwards, self._turns = None, False, False

    @contextlib.contextmanager
    def held(self, key: Key) -> Iterator[None]:
        """Within the block this layer's weights are there, for its gradient."""
        self.backwards = True
        super()._before(*key)
        self._busy = self._slot_of(key)
        try:
            yield
        finally:
            self._after(*key)
            self.backwards = False

    def _begins(self, layer: int) -> bool:
        return layer == (len(self.shared) - 1 if self.backwards else 0)

    def _before(self, network: int, layer: int) -> None:
        self.backwards, self._turns = False, torch.is_grad_enabled()
        super()._before(network, layer)
        self._busy = self._slot_of((network, layer))

    def _after(self, network: int, layer: int) -> None:
        slot, self._busy = self._slot_of((network, layer)), None
        if slot is None:
            return  # a resident
        for part in self._parts((network, layer)):
            part.rest()
        if self.device.type == "cuda":
            slot.free = torch.cuda.Event()
            slot.free.record(torch.cuda.current_stream(self.device))
        self._prefetch(self.order.index(layer))

    def _slot_of(self, key: Key) -> Slot | None:
        return next((s for s in self._slots if s.key == key), None)

    def _prefetch(self, position: int) -> None:
        """Fills slots whose blocks are not among the next ones."""
        ahead = list(self._ahead(position))
        for key in ahead:
            if self._slot_of(key) is not None:
                continue
            slot = next((s for s in self._slots if s is not self._busy and s.key not in ahead), None)
            if slot is None:
                return
            self._load(key, slot)

    def _ahead(self, position: int) -> Iterator[Key]:
        """The next different blocks, as many as there are slots, through the turns of direction."""
        if self.backwards:
            layers = [*reversed(self.order[:position]), *self.order]
        elif self._turns:
            layers = [*self.order[position + 1 :], *reversed(self.order)]
        else:
            layers = [*self.order[position + 1 :], *self.order]
        for layer in list(dict.fromkeys(layers))[: len(self._slots)]:
            yield self.active, layer


@dataclass(frozen=True)
class _Run:
    """One call of one block: its forward, what it takes besides states, where its weights come from.

    Attributes:
        slope: the forward whose gradient is taken; of what it returns nothing else is looked at.
        waiting: where the picture's state waits; None where it is.
        in_parts: `forward` and `slope` are those of parts.py.
    """

    forward: Callable[..., tuple[Tensor, Tensor]]
    slope: Callable[..., tuple[Tensor, Tensor]]
    rest: tuple[Any, ...]
    factors: tuple[nn.Parameter, ...]
    held: Callable[[], contextlib.AbstractContextManager[None]]
    waiting: HostStates | None
    in_parts: bool


class _StreamedBlock(torch.autograd.Function):
    """A block of which only the inputs are kept. Its inputs are states and factors, so that both get gradients."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        states = tensors[:STATES]
        ctx.set_materialize_grads(False)
        ctx.run, ctx.surroundings = run, contextvars.copy_context()
        ctx.autocast = autocast_of(states[0])
        ctx.host = None if run.waiting is None else run.waiting.take(states[0])
        ctx.device = states[0].device
        ctx.save_for_backward(*(states if ctx.host is None else states[1:]))
        if run.in_parts:
            return run.forward(*states, *run.rest)
        # Computed as with a gradient, which chooses the same kernels as in the second time, and kept nothing of.
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda _: None, _never):
            video, audio = run.forward(*_leaves(states), *run.rest)
        return video.detach(), audio.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        run: _Run = ctx.run
        states = ctx.saved_tensors
        if ctx.host is not None:
            assert run.waiting is not None
            states = (run.waiting.bring(ctx.host, ctx.device), *states)
            ctx.host = None
        leaves = _leaves(states, ctx.needs_input_grad[1 : 1 + STATES])
        with run.held():
            with torch.enable_grad(), torch.autocast(**ctx.autocast):
                # Autocast keeps its casts of leaves, and gradients would be summed in the lower precision.
                inner = [t.view_as(t) for t in leaves]
                outputs = ctx.surroundings.run(run.slope, *inner, *run.rest)
                del inner
            pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None and o.requires_grad]
            wanted = [t for t in (*leaves, *run.factors) if t.requires_grad]
            if not pairs or not wanted:
                return (None,) * (1 + len(leaves) + len(run.factors))
            found = iter(torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True))
            del outputs, pairs
        return None, *(next(found) if t.requires_grad else None for t in (*leaves, *run.factors))


def _never(_: Any) -> Tensor:
    raise AssertionError("nothing is kept of the first computation")


def _leaves(states: Sequence[Tensor], needs: Sequence[bool] | None = None) -> list[Tensor]:
    wanted = [t.requires_grad for t in states] if needs is None else needs
    return [t.detach().requires_grad_(need) for t, need in zip(states, wanted, strict=True)]


@contextlib.contextmanager
def lean_blocks(
    networks: Sequence[nn.Module],
    streamer: TwoWayStreamer | None = None,
    waiting: HostStates | None = None,
    in_parts: bool = False,
    again: bool | None = None,
) -> Iterator[None]:
    """Within the `with` block, the joint blocks of `networks` keep only their inputs for the gradient.

    Args:
        networks: the experts, in the streamer's order.
        streamer: brings their weights, while it is running; None where they stand on the device.
        waiting: keeps the pictures' states in main memory instead of on the device.
        in_parts: compute them as parts.py does.
        again: attention is computed again for its gradient, in parts; None where a processor does it.
    """
    changed: list[nn.Module] = []

    def streamed(plain: Callable[..., Any], block: nn.Module, key: Key, *args: Any) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled():
            result: tuple[Tensor, Tensor] = plain(*args)
            return result
        factors = tuple(p for p in block.parameters() if p.requires_grad)
        held = contextlib.nullcontext if streamer is None else partial(streamer.held, key)
        forward = slope = plain
        if in_parts:
            assert isinstance(block, JointBlock)
            twice = args[0].device.type == "cpu" if again is None else again
            forward = partial(joint_in_parts, block, twice)
            slope = partial(forward, blank=True)
        run = _Run(forward, slope, args[STATES:], factors, held, waiting, in_parts)
        made: tuple[Tensor, Tensor] = _StreamedBlock.apply(run, *args[:STATES], *factors)
        return made

    try:
        for n, network in enumerate(networks):
            for layer, block in enumerate(network.get_submodule("blocks").children()):
                block.__dict__["forward"] = partial(streamed, block.forward, block, (n, layer))
                changed.append(block)
        yield
    finally:
        for block in changed:
            del block.__dict__["forward"]


class Frozen:
    """The frozen networks of a pipeline while factors learn on them, held as a plan says.

    Args:
        way: None is where they were loaded.

    Attributes:
        streamer: while they stream; its counters say what was moved.
        waiting: keeps states in main memory, where the plan says so.
    """

    def __init__(self, pipe: MovaPipeline, way: TrainPlan | None) -> None:
        self.pipe, self.way = pipe, way
        self.streamer: TwoWayStreamer | None = None
        self.waiting = HostStates() if way is not None and way.to_host else None
        carrier = pipe.carrier
        if isinstance(carrier, PlannedCarrier) and carrier.streamer is not None:
            layout = carrier.streamer.layout
            self.streamer = TwoWayStreamer(carrier.networks, carrier.shared, layout, carrier.device)

    @property
    def lean(self) -> bool:
        """Blocks keep only their inputs, by this module's own means."""
        if self.way is None or self.way.shards > 1:  # FSDP needs whole blocks, called as modules
            return False
        return self.way.lean and (not self.way.plain or self.pipe.device.type == "cpu")

    @contextlib.contextmanager
    def carried(self) -> Iterator[None]:
        """Within the block the experts can be called and differentiated."""
        experts = (self.pipe.high_noise, self.pipe.low_noise)
        blocks = lean_blocks(experts, self.streamer, self.waiting, self.way is not None and self.way.in_parts)
        with blocks if self.lean else contextlib.nullcontext():
            if self.streamer is None:
                yield
                return
            self.streamer.begin()
            try:
                yield
            finally:
                self.streamer.end()

    @contextlib.contextmanager
    def left(self) -> Iterator[None]:
        """Within the block the pipeline itself may use the experts, to make a clip."""
        if self.streamer is None:
            yield
            return
        active = self.streamer.active
        self.streamer.end()
        try:
            yield
        finally:
            self.streamer.begin(active)

"""Carries a plan out on a loaded pipeline: who is where at each stage, and what happens when memory runs out.

A `Carrier` alone leaves everything where it was loaded. A `PlannedCarrier` keeps the networks on their sources in main
memory or in the model folder, and lends each stage what it needs on the device: the text encoder block by block, the
VAEs for the pictures, the experts through the streamer.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from engine.errors import OutOfMemory
from engine.memory.eight_bit import make_eight_bit
from engine.memory.packed import PackedStore, holds_packed
from engine.memory.plan import Plan, leaner, spread
from engine.memory.slabs import Part
from engine.memory.streaming import Layout, Network, Streamer
from engine.models.dual_tower import JointBlock

if TYPE_CHECKING:
    from engine.loaded import LoadedModel
    from engine.models import DualTower

log = logging.getLogger(__name__)
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class Carrier:
    """Everything is where it was loaded."""

    def __init__(self, pipe: LoadedModel, plan: Plan | None = None) -> None:
        self.pipe, self.plan = pipe, plan
        self._tiles = "none" if plan is None else plan.tiles
        self._swept = False
        self.short = False  # memory ran out in the last run

    @property
    def device(self) -> torch.device:
        return self.pipe.video_vae.device

    @property
    def text_device(self) -> torch.device:
        """Where texts are encoded."""
        return self.device

    @property
    def tiles(self) -> str:
        """How pictures go through their network; see `Plan`."""
        return self._tiles

    @contextlib.contextmanager
    def text(self) -> Iterator[None]:
        """The text encoder can be called."""
        yield

    @contextlib.contextmanager
    def pictures(self) -> Iterator[None]:
        """Both VAEs can be called."""
        yield

    @contextlib.contextmanager
    def experts(self, first: DualTower) -> Iterator[None]:
        """The experts can be called, `first` to begin with."""
        yield

    def step(self, network: DualTower, following: DualTower | None) -> None:
        """`network` computes now, and `following` in the next step."""

    def attempt(self, stage: str, action: Callable[[], Result]) -> Result:
        """`action()`; when memory runs out, once more after leaving some, where there is a leaner way.

        Raises:
            OutOfMemory: it ran out again; the message says what would help.
        """
        failed: BaseException | None = None
        for again in (False, True):
            if again and not self.lean(stage):
                break
            try:
                return action()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # The traceback holds every tensor of the failed attempt.
                failed = type(error)(str(error))
            self.short = True
            self.leave()
        raise OutOfMemory(advice(stage)) from failed

    def lean(self, stage: str) -> bool:
        """Takes the next leaner plan for what is left; False where there is none."""
        blocks = [*self.pipe.high_noise.blocks, *self.pipe.low_noise.blocks]
        if stage == "decode" and self._tiles == "none":
            self._tiles = "decode"
        elif stage == "picture" and self._tiles != "both":
            self._tiles = "both"
        elif stage == "denoise" and any(getattr(block, "at_once", 1) != 1 for block in blocks):
            set_at_once(blocks, 1)
        elif stage == "text" and not self._swept:
            self._swept = True  # what a failed attempt held has been given back; there is nothing else to leave
        else:
            return False
        log.warning("out of memory; trying once more in a way that takes less")
        return True

    def leave(self) -> None:
        """Gives back what a failed attempt left."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def set_at_once(blocks: Iterable[nn.Module], count: int) -> None:
    """How many guidance branches go through each joint block together."""
    for block in blocks:
        assert isinstance(block, JointBlock)
        block.at_once = count


def advice(stage: str) -> str:
    """What to do, by the stage that ran out of memory."""
    what = {
        "text": "reading the prompt",
        "picture": "reading the picture",
        "denoise": "making picture and sound",
        "decode": "decoding",
    }.get(stage, stage)
    return f"not enough memory for {what}, also with the leanest plan; make the clip shorter or smaller"


class PlannedCarrier(Carrier):
    """Carries `plan` out on a pipeline whose networks were loaded to main memory as they are stored.

    Attributes:
        streamer: of the experts; None where all of them stay on the device.
    """

    def __init__(self, pipe: LoadedModel, plan: Plan, packed: PackedStore | None = None) -> None:
        super().__init__(pipe, plan)
        self.plan: Plan = plan
        self._device = torch.device(plan.device)
        self._dtype = getattr(torch, plan.dtype)
        experts = (pipe.high_noise, pipe.low_noise)
        for expert in experts:
            expert.computes_in = self._dtype  # for what is put beside the weights, however they are stored
        if plan.weights != plan.dtype:
            for expert in experts:
                make_eight_bit(expert.blocks, plan.weights)
        self.shared = _shared_parts(pipe.high_noise, self._dtype)
        self.networks = [_network(expert, self._dtype) for expert in experts]
        if packed is not None and plan.weights != plan.dtype and plan.experts == "swap":
            packed.take([(name, part) for name, part in self._named_parts() if holds_packed(part)])
        self.vaes = Part([pipe.video_vae, pipe.audio_vae], torch.float32)
        self.streamer: Streamer | None = None
        self._all: list[torch.Tensor] = []
        self._text_device = self._device
        self._arrange()

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def text_device(self) -> torch.device:
        return self._text_device

    @property
    def tiles(self) -> str:
        return self.plan.tiles

    def _arrange(self) -> None:
        """Follows the plan as it is now."""
        plan = self.plan
        for network in self.networks:
            set_at_once(network.blocks, plan.at_once)
        if plan.experts == "device":
            self._seat_all()
            return
        layout = Layout(
            spread(len(self.shared), plan.residents), plan.ring, plan.pinned, plan.pageable, plan.experts == "swap"
        )
        self.streamer = Streamer(self.networks, self.shared, layout, self._device)

    def _seat_all(self) -> None:
        """Both experts on the device, for good."""
        with torch.inference_mode(False), torch.no_grad():
            for part in self._parts():
                buffer = torch.empty(part.size, dtype=torch.uint8, device=self._device)
                part.fill(buffer)
                part.place(buffer)
                self._all.append(buffer)

    def _named_parts(self) -> Iterator[tuple[str, Part]]:
        for n, network in enumerate(self.networks):
            yield from ((f"{n}-{layer}", part) for layer, part in enumerate(network.own))
        yield from ((f"shared-{layer}", part) for layer, part in enumerate(self.shared) if part is not None)

    def _parts(self) -> Iterator[Part]:
        for network in self.networks:
            yield from (*network.own, network.ends)
        yield from (part for part in self.shared if part is not None)

    @contextlib.contextmanager
    def text(self) -> Iterator[None]:
        encoder = self.pipe.text_encoder
        blocks = encoder.encoder.block
        rest = [m for name, m in encoder.encoder.named_children() if name not in ("block", "embed_tokens")]
        own = [Part([block], self._dtype) for block in blocks]
        network = Network(encoder, blocks, own, Part(rest, self._dtype), self._dtype)
        layout = Layout(ring=2, swap=True)  # each block is read once, from where it was loaded
        with Streamer([network], [None] * len(own), layout, self._text_device).running():
            yield

    @contextlib.contextmanager
    def pictures(self) -> Iterator[None]:
        with torch.inference_mode(False), torch.no_grad():
            buffer = torch.empty(self.vaes.size, dtype=torch.uint8, device=self._device)
            self.vaes.fill(buffer)
            self.vaes.place(buffer)
        try:
            yield
        finally:
            self.vaes.rest()

    @contextlib.contextmanager
    def experts(self, first: DualTower) -> Iterator[None]:
        if self.streamer is None:
            adapters = [Part([n.whole], self._dtype, adapters=True) for n in self.networks]
            with _lent(adapters, self._device):
                yield
            return
        with self.streamer.running(self._index(first)):
            yield

    def step(self, network: DualTower, following: DualTower | None) -> None:
        if self.streamer is not None:
            self.streamer.use(self._index(network), None if following is None else self._index(following))

    def _index(self, network: DualTower) -> int:
        return 0 if network is self.pipe.high_noise else 1

    def lean(self, stage: str) -> bool:
        if stage == "text":
            once, self._swept, self._text_device = self._swept, True, torch.device("cpu")
            log.warning("out of memory: the prompt is read on the processor")
            return not once
        fewer = leaner(self.plan, stage)
        if fewer is None:
            return False
        log.warning("%s", fewer.why)
        if stage != "denoise":
            self.plan = fewer
            return True
        if self.streamer is not None:
            self.streamer.close()
            self.streamer = None
        for part in self._parts():
            part.rest()
        self._all = []
        self.leave()
        self.plan = fewer
        self._arrange()
        return True


@contextlib.contextmanager
def _lent(parts: list[Part], device: torch.device) -> Iterator[None]:
    with torch.inference_mode(False), torch.no_grad():
        for part in parts:
            buffer = torch.empty(part.size, dtype=torch.uint8, device=device)
            part.fill(buffer)
            part.place(buffer)
    try:
        yield
    finally:
        for part in parts:
            part.rest()


def _network(expert: DualTower, dtype: torch.dtype) -> Network:
    own = [Part([block.get_submodule("video")], dtype) for block in expert.blocks]
    return Network(expert, list(expert.blocks), own, Part([expert.video_ends, expert.audio_ends], dtype), dtype)


def _shared_parts(expert: DualTower, dtype: torch.dtype) -> list[Part | None]:
    """Sound and bridge of every layer, which both experts have in common."""
    parts: list[Part | None] = []
    for block in expert.blocks:
        modules: list[Any] = [m for m in (block.audio, block.a2v, block.v2a) if isinstance(m, nn.Module)]
        parts.append(Part(modules, dtype) if modules else None)
    return parts

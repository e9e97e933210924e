"""Streams the blocks of a network through a ring of slots on the device, while other blocks compute.

    main memory or file  --copy stream-->  slot 0 | slot 1   <- the block that computes takes its weights from a slot
                                            resident blocks stay on the device

A slot is filled again as soon as its block is done, with the next block of the order, across the end of a step into
the next one and, where the next step is another expert's, into that expert. Weights only ever travel towards the
device. The same code runs where the device is the processor: slots are then main memory, and all counters hold.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from engine.memory.slabs import Part, host_slab

log = logging.getLogger(__name__)

Key = tuple[int, int]  # network, layer


@dataclass(frozen=True)
class Layout:
    """How many blocks stay, and where the others wait; see `engine.memory.plan.Plan`."""

    residents: tuple[int, ...] = ()
    ring: int = 2
    pinned: int = 0
    pageable: int = 0
    swap: bool = False


@dataclass
class Step:
    """What one pass over all blocks moved. `streamed` counts the bytes of blocks that were used from a slot."""

    blocks: int = 0
    prefetched: int = 0
    streamed: int = 0


@dataclass
class Counters:
    """Attributes:
    steps: one entry a pass. copied: bytes put into slots in all. copied_back: bytes of weights copied from the device.
    switched: bytes of residents and ends put on the device, at the start and with each change of expert.
    read: bytes read again from the model folder into main memory, for a change of expert.
    pinned: bytes of page-locked slabs. device: bytes that the streamer holds on the device; device_peak: at most.
    """

    steps: list[Step] = field(default_factory=list)
    copied: int = 0
    copied_back: int = 0
    switched: int = 0
    read: int = 0
    pinned: int = 0
    host: int = 0
    device: int = 0
    device_peak: int = 0


class Slot:
    """One place of the ring: a buffer, and which block's weights are in it or on their way."""

    def __init__(self, buffer: torch.Tensor) -> None:
        self.buffer = buffer
        self.key: Key | None = None
        self.filled: Future[None] | None = None
        self.ready: torch.cuda.Event | None = None  # the copy is done
        self.free: torch.cuda.Event | None = None  # the block that used it is done


class Network:
    """One network whose blocks stream: its own part of each layer, and what stays on the device around them.

    Args:
        whole: the network, of which adapters are looked for at the start of every run.
    """

    def __init__(
        self, whole: nn.Module, blocks: Sequence[nn.Module], own: Sequence[Part], ends: Part, dtype: torch.dtype
    ) -> None:
        self.whole, self.blocks, self.own, self.ends, self.dtype = whole, list(blocks), list(own), ends, dtype
        self.adapters = Part([whole], dtype, adapters=True)

    def around(self) -> tuple[Part, ...]:
        """What stays on the device while this network computes, besides residents."""
        return self.ends, self.adapters


class Streamer:
    """Carries one or several networks of the same layers, of which one computes at a time.

    Args:
        networks: the experts, or the text encoder alone.
        shared: each layer's part that all networks have in common; None where there is none.
        layout: what stays and what waits where.
    """

    def __init__(
        self, networks: Sequence[Network], shared: Sequence[Part | None], layout: Layout, device: torch.device
    ) -> None:
        self.networks, self.shared, self.layout, self.device = list(networks), list(shared), layout, device
        self.order = [i for i in range(len(self.shared)) if i not in set(layout.residents)]
        self.counters = Counters()
        self.active = 0
        self.following: int | None = None
        self._slots: list[Slot] = []
        self._resident: dict[Key, torch.Tensor] = {}
        self._working: dict[int, torch.Tensor] = {}  # layer -> slab that the active expert borrows
        self._refills: dict[Key, Future[None]] = {}
        self._hooks: list[Any] = []
        self._pools: list[ThreadPoolExecutor] = []
        self._streams: list[Any] = []
        self._keep_in_host()

    # -- before and after a run --------------------------------------------------------------------------------------

    def begin(self, network: int = 0, following: int | None = None) -> None:
        """Puts everything in place for `network` and starts to fill the ring."""
        assert not self._hooks, "the streamer is running"
        self.active, self.following = network, network if following is None else following
        self.counters.steps = []
        for one in self.networks:
            one.adapters = Part([one.whole], one.dtype, adapters=True)
            for part in (*one.own, one.ends):
                part.look_again()
        for common in self.shared:
            if common is not None:
                common.look_again()
        self._pools = [ThreadPoolExecutor(1, "copy"), ThreadPoolExecutor(1, "read")]
        with torch.inference_mode(False), torch.no_grad():
            if self.device.type == "cuda":
                self._streams = [torch.cuda.Stream(self.device)]
            if self.layout.swap:
                self._borrow(network)
            largest = max((self._size(n, i) for n in range(len(self.networks)) for i in self.order), default=0)
            for _ in range(min(self.layout.ring, len(self.order))):
                self._slots.append(Slot(self._on_device(largest)))
            self._seat(network)
        for n, one in enumerate(self.networks):
            for i, block in enumerate(one.blocks):
                self._hooks.append(block.register_forward_pre_hook(self._hook(self._before, n, i)))
                self._hooks.append(block.register_forward_hook(self._hook(self._after, n, i)))
        self._prefetch(-1)

    def use(self, network: int, following: int | None) -> None:
        """The step that comes is `network`'s, and the one after it `following`'s (None: there is none)."""
        self.following = following
        if network != self.active:
            self._switch(network)

    def end(self) -> None:
        """Takes everything off the device, in any state; parameters are back at their source."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)
        self._pools, self._refills = [], {}
        for one in self.networks:
            for part in (*one.own, *one.around()):
                part.rest()
        for common in self.shared:
            if common is not None:
                common.rest()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._slots, self._resident, self._streams = [], {}, []
        self.counters.device = 0

    def close(self) -> None:
        """Ends, and gives the working slabs back."""
        self.end()
        for one in self.networks:
            for part in one.own:
                part.forget()
        self._working = {}

    @contextlib.contextmanager
    def running(self, network: int = 0, following: int | None = None) -> Iterator[Streamer]:
        self.begin(network, following)
        try:
            yield self
        finally:
            self.end()

    # -- main memory -------------------------------------------------------------------------------------------------

    def _keep_in_host(self) -> None:
        """Makes slabs of what waits in main memory. Swapping experts share a slab a layer, filled at `begin`."""
        lay = self.layout
        waits = self.order if lay.swap else range(len(self.shared))
        places = {i: n for n, i in enumerate(self.order)}
        for i in waits:
            rank = places.get(i, lay.pinned)
            if lay.swap and rank >= lay.pinned + lay.pageable:
                continue  # read from its file each time
            pinned = rank < lay.pinned
            shared = self.shared[i]
            if shared is not None and not shared.owned:
                shared.keep(self._slab(shared.size, pinned))
            if lay.swap:
                self._working[i] = self._slab(max(n.own[i].size for n in self.networks), pinned)
            elif lay.pinned or lay.pageable or lay.residents:
                for one in self.networks:
                    if not one.own[i].owned:
                        one.own[i].keep(self._slab(one.own[i].size, pinned))

    def _slab(self, size: int, pinned: bool) -> torch.Tensor:
        with torch.inference_mode(False):
            slab = host_slab(size, pinned)
        self.counters.host += size
        self.counters.pinned += size if pinned else 0
        return slab

    def _borrow(self, network: int) -> None:
        """Fills every working slab with `network`'s layers."""
        for i in self._working:
            self._refill(network, i)

    def _refill(self, network: int, layer: int) -> None:
        for one in self.networks:
            one.own[layer].forget()
        self.networks[network].own[layer].borrow(self._working[layer])
        self.counters.read += self.networks[network].own[layer].size

    # -- the device --------------------------------------------------------------------------------------------------

    def _on_device(self, size: int) -> torch.Tensor:
        buffer = torch.empty(size, dtype=torch.uint8, device=self.device)
        self.counters.device += size
        self.counters.device_peak = max(self.counters.device_peak, self.counters.device)
        return buffer

    def _size(self, network: int, layer: int) -> int:
        shared = self.shared[layer]
        return self.networks[network].own[layer].size + (0 if shared is None else shared.size)

    def _parts(self, key: Key) -> list[Part]:
        shared = self.shared[key[1]]
        return [self.networks[key[0]].own[key[1]], *([] if shared is None else [shared])]

    def _fill(self, key: Key, buffer: torch.Tensor) -> int:
        start = 0
        for part in self._parts(key):
            part.fill(buffer[start:])
            start += part.size
        return start

    def _place(self, key: Key, buffer: torch.Tensor) -> None:
        start = 0
        for part in self._parts(key):
            part.place(buffer[start:])
            start += part.size

    def _seat(self, network: int) -> None:
        """Residents and ends of `network` to the device, into the places of those that were there."""
        for i in self.layout.residents:
            buffer = self._resident.get((0, i))
            if buffer is None:
                largest = max(self._size(n, i) for n in range(len(self.networks)))
                buffer = self._resident[0, i] = self._on_device(largest)
            self.counters.switched += self._fill((network, i), buffer)
            self._place((network, i), buffer)
        for n, part in enumerate(self.networks[network].around()):
            buffer = self._resident.get((1, n))
            if buffer is None:
                largest = max(one.around()[n].size for one in self.networks)
                buffer = self._resident[1, n] = self._on_device(largest)
            part.fill(buffer)
            part.place(buffer)
            self.counters.switched += part.size

    def _switch(self, network: int) -> None:
        """Another expert computes from here."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # residents are overwritten
        old = self.networks[self.active]
        for i in self.layout.residents:
            old.own[i].rest()
        for part in old.around():
            part.rest()
        self.active = network
        for slot in self._slots:
            if slot.key is not None and slot.key[0] != network:
                slot.key = None
        with torch.inference_mode(False), torch.no_grad():
            self._seat(network)
        if self.layout.swap:
            for i in self._working:
                if (network, i) not in self._refills:  # it was not announced
                    self._refills[network, i] = self._pools[1].submit(self._quietly(self._refill, network, i))
        self._prefetch(-1)

    # -- the ring ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _hook(action: Callable[[int, int], None], network: int, layer: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            action(network, layer)

        return hook

    def _begins(self, layer: int) -> bool:
        """Whether a pass over all blocks begins with this one."""
        return layer == 0

    def _before(self, network: int, layer: int) -> None:
        """The block is about to compute: its weights have to be there."""
        if network != self.active:
            self._switch(network)
        steps = self.counters.steps
        if self._begins(layer) or not steps:
            steps.append(Step())
        if layer in self.layout.residents:
            return
        slot = next((s for s in self._slots if s.key == (network, layer)), None)
        if slot is None:
            slot = next((s for s in self._slots if s.key is None), self._slots[-1])
            self._load((network, layer), slot)
        else:
            steps[-1].prefetched += 1
        assert slot.filled is not None
        slot.filled.result()
        if slot.ready is not None:
            torch.cuda.current_stream(self.device).wait_event(slot.ready)
        self._place((network, layer), slot.buffer)
        steps[-1].blocks += 1
        steps[-1].streamed += self._size(network, layer)

    def _after(self, network: int, layer: int) -> None:
        """The block is done: its slot takes the next one."""
        if layer in self.layout.residents:
            return
        slot = next(s for s in self._slots if s.key == (network, layer))
        for part in self._parts(slot.key or (network, layer)):
            part.rest()
        if self.device.type == "cuda":
            slot.free = torch.cuda.Event()
            slot.free.record(torch.cuda.current_stream(self.device))
        slot.key = None
        if layer in self._working and self.following is not None and self.following != network:
            # The last use of this slab by this expert: the other one is read into it.
            after, target = slot.free, self.following
            self._refills[target, layer] = self._pools[1].submit(
                self._quietly(self._refill_after, target, layer, after)
            )
        self._prefetch(self.order.index(layer))

    def _refill_after(self, network: int, layer: int, after: torch.cuda.Event | None) -> None:
        if after is not None:
            after.synchronize()
        self._refill(network, layer)

    def _prefetch(self, position: int) -> None:
        """Fills every free slot with the next blocks after `position` in the order."""
        for key in self._ahead(position):
            if any(s.key == key for s in self._slots):
                continue
            slot = next((s for s in self._slots if s.key is None), None)
            if slot is None:
                return
            self._load(key, slot)

    def _ahead(self, position: int) -> Iterator[Key]:
        """The blocks that are needed next, at most as many as there are slots."""
        keys: list[Key] = [(self.active, i) for i in self.order[position + 1 :]]
        if self.following is not None:
            keys += [(self.following, i) for i in self.order]
        yield from keys[: len(self._slots)]

    def _load(self, key: Key, slot: Slot) -> None:
        if slot.filled is not None and not slot.filled.done():
            slot.filled.cancel()
        slot.key, slot.ready = key, None
        if self.device.type == "cuda":
            slot.ready = torch.cuda.Event()
        slot.filled = self._pools[0].submit(self._quietly(self._copy, key, slot, slot.ready, slot.free))

    def _copy(self, key: Key, slot: Slot, ready: Any, free: Any) -> None:
        refill = self._refills.pop(key, None)
        if refill is not None:
            refill.result()
        if self.device.type != "cuda":
            self.counters.copied += self._fill(key, slot.buffer)
            return
        stream = self._streams[0]
        if free is not None:
            stream.wait_event(free)
        with torch.cuda.stream(stream):
            self.counters.copied += self._fill(key, slot.buffer)
            ready.record(stream)

    @staticmethod
    def _quietly(action: Callable[..., None], *args: Any) -> Callable[[], None]:
        """For a worker thread, where gradient modes are its own."""

        def run() -> None:
            with torch.no_grad():
                action(*args)

        return run

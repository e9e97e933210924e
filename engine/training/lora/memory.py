"""How a LoRA is trained in the memory there is: where the frozen model waits, in how many parts a batch is computed.

What a block takes while its gradient is computed is not guessed: it is metered, see graph.py. The rest is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine.lora.keys import HIGH, LOW, PART_FOLDERS
from engine.memory.machine import GIB, Machine
from engine.memory.plan import BASE_DEVICE, BASE_HOST, ITEMS, Plan, activations, room, slab_bytes, spread
from engine.memory.sizes import TEXT_TOKENS, ModelSizes, Work
from engine.training.lora.graph import graph_bytes, read_configs
from engine.training.lora.optimizer import MOMENTS
from engine.training.lora.settings import LoraSettings
from engine.weights import WEIGHT_STEM, stored_shapes, weight_files

FACTOR_BYTES = 8  # value and average, float32; the optimizer's moments come to it
MORE_BYTES = 4  # a gradient, of the expert whose turn it is; a copy, while the averages are looked at
PASSES = 4.0  # a step in forward passes: forward, once more, and a gradient that costs two
IN_PARTS = 0.1  # of a pass: in parts, what is before attention is computed a third time
MIXED = 0.75  # of what a block takes in float32, where products are in bfloat16 and norms are not; a processor's: 0.72
EIGHT_BIT_COST = 1.04
CALM = 0.85  # of the card, up to which layers stay there
ROOMY = 2.0  # times what is needed: then freed memory may be kept for the next step, which is faster
FOLDED = 128  # tokens of text that a processor computes, where padding is counted instead; captions rarely have more


Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class TrainPlan:
    """How one training runs.

    Attributes:
        base: where the frozen model is; `base.experts` "device" is all of it on the device, "host" streams.
        accumulate: parts of a batch, one after the other.
        lean: blocks keep only their inputs, and are computed again for the gradient.
        to_host: those inputs wait in main memory.
        in_parts: a block is computed in parts, see parts.py; rounding apart, the gradients are the same.
        why: one sentence.
        frames: the longest clips that fit, where the ones asked for do not; 0 where they do, or none would.
        tight: main memory has no room for what an allocator likes to keep.
        shards: processes among which the frozen model is shared out, see sharded.py.
    """

    base: Plan
    accumulate: int
    lean: bool
    to_host: bool = False
    in_parts: bool = False
    why: str = ""
    frames: int = 0
    tight: bool = False
    shards: int = 1
    optimizer: str = "adamw"

    @property
    def plain(self) -> bool:
        """The model is where it is loaded, blocks are computed whole, and nothing waits elsewhere."""
        return self.base.plain and not self.to_host and not self.in_parts


@dataclass(frozen=True)
class Load:
    """What is trained on one device.

    Attributes:
        work: one clip, one branch.
        batch: clips of a step.
        factors: numbers that learn. idle: those of the expert whose turn it is not.
        graph: bytes that the gradient of a joint block takes for one clip, float32; see `graph_bytes`.
        parts: the same where it is computed in parts, in the precision of the blocks.
        moments: bytes that the optimizer keeps for each number that learns.
    """

    work: Work
    batch: int
    factors: int
    graph: int
    parts: int = 0
    idle: int = 0
    moments: float = MOMENTS["adamw"]


def load_of(
    folder: Path,
    sizes: ModelSizes,
    clip: tuple[int, int, int, float],
    settings: LoraSettings,
    world: int,
    products: bool,
    dtype: str = "float32",
) -> Load:
    """What training on such clips is, for each of `world` devices.

    Args:
        clip: width, height, frames, frames a second.
        products: attention as training on a processor computes it.
        dtype: in which blocks compute.
    """
    work = Work(*clip, passes=1)
    shapes = {part: stored_shapes(weight_files(folder / PART_FOLDERS[part], WEIGHT_STEM)) for part in settings.parts}
    return load_from(read_configs(folder), shapes, sizes, work, settings, world, products, dtype)


def load_from(
    configs: str,
    shapes: dict[str, Shapes],
    sizes: ModelSizes,
    work: Work,
    settings: LoraSettings,
    world: int,
    products: bool,
    dtype: str,
) -> Load:
    """`load_of` a model without its files: its configs (see graph.py), and the shapes of the parts that learn."""
    tokens = work.tokens(sizes)
    rows, columns = (
        side // sizes.spatial // patch for side, patch in zip((work.height, work.width), sizes.patch[1:], strict=True)
    )
    grid, text = (tokens[0] // (rows * columns), rows, columns), FOLDED if products else TEXT_TOKENS
    whole = graph_bytes(configs, tokens, grid, settings.rank, text, products, "float32", False)
    parts = graph_bytes(configs, tokens, grid, settings.rank, text, products, dtype, True)
    factors = {part: count_factors(shapes[part], settings) for part in settings.parts}
    idle = min(factors.get(HIGH, 0), factors.get(LOW, 0))
    moments = MOMENTS.get(settings.optimizer, MOMENTS["adamw"])
    return Load(work, settings.batch // world, sum(factors.values()), whole, parts, idle, moments)


def count_factors(shapes: Shapes, settings: LoraSettings) -> int:
    """How many numbers the factors of a part have."""
    total = 0
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if module != name and len(shape) == 2 and settings.takes(module):
            total += settings.rank * sum(shape)
    return total


def make_train_plan(
    machine: Machine, sizes: ModelSizes, load: Load, settings: LoraSettings, device: str, dtype: str
) -> TrainPlan:
    """The fastest way that fits; 8-bit weights only where exact ones do not. Where none fits, the leanest."""
    ways = list(_ways(machine, sizes, load, settings, device, dtype))
    fitting = [w for w in ways if w.base.fits]
    exact = [w for w in fitting if w.base.weights == dtype]
    if fitting:
        best = min(exact or fitting, key=_order)
    else:
        best = min(ways, key=lambda w: (_excess(w.base, machine), *_order(w)))
    needed = best.base.vram + best.base.ram if machine.shared else best.base.ram
    return replace(best, why=sentence(best, machine, sizes, load), tight=ROOMY * needed > room(machine)[1])


def make_sharded_plan(
    machine: Machine, sizes: ModelSizes, load: Load, settings: LoraSettings, device: str, dtype: str, shards: int
) -> TrainPlan:
    """The same where the frozen model is shared out over `shards` processes; blocks are whole, weights exact."""
    counts = [n for n in range(1, load.batch + 1) if load.batch % n == 0]
    ways = [
        account(
            machine, sizes, load, replace(start(device, dtype, dtype, "device", n, not machine.shared), shards=shards)
        )
        for n in ([settings.accumulate] if settings.accumulate else counts)
    ]
    fitting = [w for w in ways if w.base.fits]
    best = min(fitting, key=_order) if fitting else min(ways, key=lambda w: _excess(w.base, machine))
    needed = best.base.vram + best.base.ram if machine.shared else best.base.ram
    return replace(best, why=sentence(best, machine, sizes, load), tight=ROOMY * needed > room(machine)[1])


def _order(way: TrainPlan) -> tuple[float, bool, int, bool, bool, bool]:
    return (
        way.base.seconds,
        way.in_parts,
        way.accumulate,
        way.to_host,
        way.base.experts != "device",
        way.base.mapped > 0,
    )


def _excess(plan: Plan, machine: Machine) -> int:
    vram, ram = room(machine)
    if machine.shared:
        return max(0, plan.vram + plan.ram - ram)
    return max(0, plan.vram - vram) + max(0, plan.ram - ram)


def _ways(
    machine: Machine, sizes: ModelSizes, load: Load, settings: LoraSettings, device: str, dtype: str
) -> Iterator[TrainPlan]:
    """Every way to train, each with the most residents that it has room for."""
    kinds = {"exact": (dtype,), "int8": ("int8",), "auto": (dtype, "int8")}[settings.frozen]
    divisors = [n for n in range(1, load.batch + 1) if load.batch % n == 0]
    for weights in kinds:
        for accumulate in [settings.accumulate] if settings.accumulate else divisors:
            for lean, to_host, in_parts in _kept(machine, settings):
                yield account(
                    machine, sizes, load, start(device, dtype, weights, "device", accumulate, lean, to_host, in_parts)
                )
                for ring in (2, 1) if lean else ():
                    waiting = start(device, dtype, weights, "host", accumulate, lean, to_host, in_parts, ring)
                    residents = (0,) if machine.shared else range(sizes.layers, -1, -1)
                    for mapped in (False, True) if weights == dtype else (False,):
                        found = (account(machine, sizes, load, waiting, r, mapped) for r in residents)
                        least = account(machine, sizes, load, waiting, mapped=mapped)
                        yield next((w for w in found if _calm(w.base, machine)), least)


def _calm(plan: Plan, machine: Machine) -> bool:
    """It fits, and layers stay only where they leave some of the card free: others stream beside the work."""
    return plan.fits and (machine.shared or not plan.residents or plan.vram <= CALM * room(machine)[0])


def _kept(machine: Machine, settings: LoraSettings) -> Iterator[tuple[bool, bool, bool]]:
    """What is kept for the gradient: (lean, to_host, in_parts)."""
    for in_parts in (False, True) if settings.in_parts == "auto" else (settings.in_parts == "yes",):
        if machine.shared:  # one memory has no other to wait in
            yield from ((lean, False, in_parts) for lean in ((True,) if in_parts else (False, True)))
        else:  # a card always computes blocks again
            yield from ((True, to_host, in_parts) for to_host in (False, True))


def start(
    device: str,
    dtype: str,
    weights: str,
    experts: str,
    accumulate: int,
    lean: bool = True,
    to_host: bool = False,
    in_parts: bool = False,
    ring: int = 2,
) -> TrainPlan:
    """A way before it is accounted for."""
    base = Plan(device, dtype, weights, experts, 0, ring, 0, 0, 0, 1, "none", 0.0, 0, 0)
    return TrainPlan(base, accumulate, lean, to_host, in_parts)


def account(
    machine: Machine, sizes: ModelSizes, load: Load, way: TrainPlan, residents: int = 0, mapped: bool = False
) -> TrainPlan:
    """A way with its predicted peaks and seconds a step.

    Args:
        residents: blocks that stay on the device.
        mapped: blocks wait in the model's files instead of in main memory.
    """
    base, item = replace(way.base, residents=residents), ITEMS[way.base.dtype]
    slabs = [slab_bytes(sizes, i, base.dtype, base.weights) for i in range(sizes.layers)]
    largest, both = sum(slabs[sizes.largest]), sum(2 * video + shared for video, shared in slabs)
    ends, streamed, host = item * (sizes.ends + sizes.audio_ends), 0, 0
    if base.experts == "device":
        base = replace(base, ring=0)
        on_device = both + ends + item * sizes.ends
        if way.shards > 1:  # and two blocks as a whole: the one that computes, and the next
            on_device += both // way.shards - both + 2 * largest
    else:
        stay = spread(sizes.layers, residents)
        streamed = sizes.layers - len(stay)
        on_device = sum(sum(slabs[i]) for i in stay) + min(base.ring, streamed) * largest + ends
        host = 0 if mapped else both
        pinned = 0 if mapped else min(streamed, machine.pin_limit // (largest + slabs[sizes.largest][0]))
        base = replace(base, pinned=pinned, pageable=0 if mapped else streamed - pinned)
        base = replace(base, mapped=streamed if mapped else 0)
    at_once = -(-load.batch // way.accumulate)
    states, made = working(sizes, load, way, at_once)
    host += sizes.layers * states if way.to_host else 0
    learned, looked = factor_bytes(load)
    training = learned + made
    looking = 0 if machine.shared else looked + activations(
        sizes, replace(load.work, passes=2), base.dtype, at_once=1
    )  # fmt: skip
    vram = BASE_DEVICE + on_device + max(training, looking)
    passes = (PASSES if way.lean else PASSES - 1) + (IN_PARTS if way.in_parts else 0)
    compute = passes * replace(load.work, passes=1, batch=load.batch).operations(sizes)
    compute *= (EIGHT_BIT_COST if base.weights != base.dtype else 1.0) / machine.rates.compute
    rates = machine.rates
    rate = min(rates.disk, rates.pageable) if mapped else rates.pageable if base.pageable else rates.pinned
    copies = 2 * way.accumulate * streamed * largest / rate
    if way.shards > 1:  # there and back again through every block of one expert, at the pace of the cards' link
        copies = 2 * way.accumulate * (both // 2) * (1 - 1 / way.shards) / rates.pinned
    seconds = max(compute, copies) if base.ring > 1 or not streamed else compute + copies
    seconds += 2 * way.accumulate * sizes.layers * states / rates.pinned if way.to_host else 0.0
    base = replace(base, vram=vram, ram=BASE_HOST + host, seconds=seconds)
    return replace(way, base=replace(base, fits=_excess(base, machine) == 0))


def factor_bytes(load: Load) -> tuple[int, int]:
    """What factors take in a step, and while the averages are looked at; by then there are gradients of all."""
    whole = int((FACTOR_BYTES + load.moments + MORE_BYTES) * load.factors)
    return whole - MORE_BYTES * load.idle, whole + MORE_BYTES * load.factors


def working(sizes: ModelSizes, load: Load, way: TrainPlan, at_once: int) -> tuple[int, int]:
    """Bytes of one block's states, and of all that is made in a step at its peak."""
    item = ITEMS[way.base.dtype]
    video, audio = load.work.tokens(sizes)
    states = at_once * item * (video * sizes.width + audio * sizes.audio_width)
    whole = load.graph * (1.0 if way.base.dtype == "float32" else MIXED)
    graph = int(at_once * (load.parts if way.in_parts else whole))
    if way.base.weights != way.base.dtype:
        graph += item * sizes.linear(sizes.largest)  # unpacked for the gradient, and kept until it is there
    text = at_once * 4 * TEXT_TOKENS * (sizes.text_width + sizes.width + sizes.audio_width)
    if not way.lean:
        return states, sizes.layers * graph + text
    return states, (3 if way.to_host else sizes.layers + 1) * states + graph + text


def sentence(way: TrainPlan, machine: Machine, sizes: ModelSizes, load: Load) -> str:
    """What was chosen, for the user."""
    base = way.base
    where = "main memory" if machine.shared else f"{machine.vram_free / GIB:.0f} GB of graphics memory"
    eight = " in 8 bits" if base.weights != base.dtype else ""
    need = f"about {(base.vram + base.ram if machine.shared else base.vram) / GIB:.1f} GB"
    if base.experts == "device":
        held = f"the frozen model{eight} stands in {where}"
        if way.shards > 1:
            held = f"the frozen model is shared out over {way.shards} processes, in {where} each"
    else:
        held = f"{base.residents} of {sizes.layers} layers of the frozen model{eight} stay in {where}"
        held += ", the others stream from its files" if base.mapped else ", the others stream"
    parts = f", a batch of {load.batch} in {way.accumulate} parts" if way.accumulate > 1 else ""
    kept = ", states wait in main memory" if way.to_host else ""
    kept += ", blocks are computed in parts" if way.in_parts else ""
    ram = "" if machine.shared else f"{base.ram / GIB:.0f} GB of main memory, "
    cost = f"; {ram}about {base.seconds:.3g} s a step"
    tried = "" if base.fits else "; that is more than there is, and is tried all the same"
    return f"training needs {need}: {held}{parts}{kept}{cost}{tried}"

"""How a LoRA is trained in the memory there is: where the frozen model waits, in how many parts a batch is computed.

What a block takes while its gradient is computed is not guessed: the block is run once without values (on torch's meta
device) under a meter, at the sizes of the clips. The rest is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from engine.attention import use_attention, use_products
from engine.lora.keys import PART_FOLDERS
from engine.memory.machine import GIB, Machine
from engine.memory.meter import Meter
from engine.memory.plan import BASE_DEVICE, BASE_HOST, ITEMS, Plan, room, slab_bytes, spread
from engine.memory.sizes import TEXT_TOKENS, ModelSizes, Work
from engine.models import AudioTower, Bridge, DualTower, VideoTower
from engine.models.dual_tower import JointBlock
from engine.models.rope import audio_table, clock_table, video_table
from engine.models.towers import known_options
from engine.training.flow import joint_blocks
from engine.training.lora.settings import LoraSettings
from engine.weights import WEIGHT_STEM, read_json, stored_shapes, weight_files

FACTOR_BYTES = 24  # value, gradient, two moments, average, and a copy while the averages are looked at; float32
PASSES = 4.0  # a step in forward passes: forward, once more, and a gradient that costs two
MIXED = 0.75  # of what a block takes in float32, where products are in bfloat16 and norms are not; not measured yet
EIGHT_BIT_COST = 1.04
ROOMY = 2.0  # times what is needed: then freed memory may be kept for the next step, which is faster
FOLDED = 128  # tokens of text that a processor computes, where padding is counted instead; captions rarely have more


@dataclass(frozen=True)
class TrainPlan:
    """How one training runs.

    Attributes:
        base: where the frozen model is; `base.experts` "device" is all of it on the device, "host" streams.
        accumulate: parts of a batch, one after the other.
        lean: blocks keep only their inputs, and are computed again for the gradient.
        to_host: those inputs wait in main memory.
        why: one sentence.
        tight: main memory has no room for what an allocator likes to keep.
    """

    base: Plan
    accumulate: int
    lean: bool
    to_host: bool = False
    why: str = ""
    tight: bool = False

    @property
    def plain(self) -> bool:
        """The model is where it is loaded, and nothing waits elsewhere."""
        return self.base.plain and not self.to_host


@dataclass(frozen=True)
class Load:
    """What is trained on one device.

    Attributes:
        work: one clip, one branch.
        batch: clips of a step.
        factors: numbers that learn.
        graph: bytes that the gradient of a joint block takes for one clip, float32; see `graph_bytes`.
    """

    work: Work
    batch: int
    factors: int
    graph: int


def load_of(
    folder: Path,
    sizes: ModelSizes,
    clip: tuple[int, int, int, float],
    settings: LoraSettings,
    world: int,
    products: bool,
) -> Load:
    """What training on such clips is, for each of `world` devices.

    Args:
        products: attention as training on a processor computes it.
    """
    work = Work(*clip, passes=1)
    tokens = work.tokens(sizes)
    rows, columns = (side // sizes.spatial // patch for side, patch in zip(clip[1::-1], sizes.patch[1:], strict=True))
    grid = tokens[0] // (rows * columns), rows, columns
    graph = graph_bytes(folder, tokens, grid, settings.rank, FOLDED if products else TEXT_TOKENS, products)
    return Load(work, settings.batch // world, count_factors(folder, settings), graph)


def count_factors(folder: Path, settings: LoraSettings) -> int:
    """How many numbers the factors have, from the headers of the model's files."""
    total = 0
    for part in settings.parts:
        shapes = stored_shapes(weight_files(folder / PART_FOLDERS[part], WEIGHT_STEM))
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


def _order(way: TrainPlan) -> tuple[float, int, bool, bool, bool]:
    return way.base.seconds, way.accumulate, way.to_host, way.base.experts != "device", way.base.mapped > 0


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
            for lean, to_host in ((False, False), (True, False), (True, True)):
                if to_host if machine.shared else not lean:
                    continue  # one memory has no other to wait in; a card always computes blocks again
                yield account(machine, sizes, load, start(device, dtype, weights, "device", accumulate, lean, to_host))
                if not lean:
                    continue
                waiting = start(device, dtype, weights, "host", accumulate, lean, to_host)
                residents = (0,) if machine.shared else range(sizes.layers, -1, -1)
                found = (account(machine, sizes, load, waiting, r) for r in residents)
                yield next((w for w in found if w.base.fits), account(machine, sizes, load, waiting))
                if weights == dtype:
                    yield account(machine, sizes, load, waiting, mapped=True)


def start(
    device: str, dtype: str, weights: str, experts: str, accumulate: int, lean: bool = True, to_host: bool = False
) -> TrainPlan:
    """A way before it is accounted for."""
    base = Plan(device, dtype, weights, experts, 0, 2, 0, 0, 0, 1, "none", 0.0, 0, 0)
    return TrainPlan(base, accumulate, lean, to_host)


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
    else:
        stay = spread(sizes.layers, residents)
        streamed = sizes.layers - len(stay)
        on_device = sum(sum(slabs[i]) for i in stay) + min(base.ring, streamed) * largest + ends
        host = 0 if mapped else both
        pinned = 0 if mapped else min(streamed, machine.pin_limit // (largest + slabs[sizes.largest][0]))
        base = replace(base, pinned=pinned, pageable=0 if mapped else streamed - pinned)
        base = replace(base, mapped=streamed if mapped else 0)
    at_once = -(-load.batch // way.accumulate)
    states, working = _working(sizes, load, way, at_once)
    host += sizes.layers * states if way.to_host else 0
    vram = BASE_DEVICE + on_device + FACTOR_BYTES * load.factors + working
    compute = (PASSES if way.lean else PASSES - 1) * replace(load.work, passes=1, batch=load.batch).operations(sizes)
    compute *= (EIGHT_BIT_COST if base.weights != base.dtype else 1.0) / machine.rates.compute
    rates = machine.rates
    rate = min(rates.disk, rates.pageable) if mapped else rates.pageable if base.pageable else rates.pinned
    seconds = max(compute, 2 * way.accumulate * streamed * largest / rate)
    seconds += 2 * way.accumulate * sizes.layers * states / rates.pinned if way.to_host else 0.0
    base = replace(base, vram=vram, ram=BASE_HOST + host, seconds=seconds)
    return replace(way, base=replace(base, fits=_excess(base, machine) == 0))


def _working(sizes: ModelSizes, load: Load, way: TrainPlan, at_once: int) -> tuple[int, int]:
    """Bytes of one block's states, and of all that is made in a step at its peak."""
    item = ITEMS[way.base.dtype]
    video, audio = load.work.tokens(sizes)
    states = at_once * item * (video * sizes.width + audio * sizes.audio_width)
    graph = int(at_once * load.graph * (1.0 if way.base.dtype == "float32" else MIXED))
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
    else:
        held = f"{base.residents} of {sizes.layers} layers of the frozen model{eight} stay in {where}"
        held += ", the others stream from its files" if base.mapped else ", the others stream"
    parts = f", a batch of {load.batch} in {way.accumulate} parts" if way.accumulate > 1 else ""
    kept = ", states wait in main memory" if way.to_host else ""
    tried = "" if base.fits else "; that is more than there is, and is tried all the same"
    return f"training needs {need}: {held}{parts}{kept}{tried}"


@lru_cache(maxsize=8)
def graph_bytes(
    folder: Path, tokens: tuple[int, int], grid: tuple[int, int, int], rank: int, text: int, products: bool
) -> int:
    """Bytes that the gradient of one joint block takes at its peak, for one clip, float32; nothing is computed.

    Args:
        folder: a model, for its configs.
        tokens: of picture and sound. grid: latent frames, and rows and columns of patches.
        rank: of factors on every linear layer.
        text: tokens of it that are computed.
        products: attention as training on a processor computes it.
    """
    block, widths, heads = _bare_block(folder, rank)
    meta = torch.device("meta")

    def made(*sizes: tuple[int, ...], learns: bool = False) -> list[Tensor]:
        return [torch.empty(1, *size, device=meta, requires_grad=learns) for size in sizes]

    states = made(*((n, w) for n, w in zip(tokens, widths, strict=True)), learns=True)
    rest = made(*((6, w) for w in widths), *((text, w) for w in widths))
    tables = (
        video_table(*grid, heads[0], meta), audio_table(tokens[1], heads[1], meta),
        clock_table(grid[0], grid[1] * grid[2], 1.0, heads[2], meta), audio_table(tokens[1], heads[2], meta),
    )  # fmt: skip
    factors = [p for p in block.parameters() if p.requires_grad]
    counts = torch.empty(text, device=meta)
    with use_products(counts) if products else use_attention(_fused), Meter() as meter:
        outputs = block(*states, *rest, *tables, 1.0, 1.0)
        torch.autograd.grad(outputs, [*states, *factors], [torch.empty_like(o) for o in outputs])
    return meter.peak


def _fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Keeps what fused attention keeps (all three and its result), never a matrix of all pairs; not its values."""
    return query * (key * value).mean(1, keepdim=True)


def _bare_block(folder: Path, rank: int) -> tuple[JointBlock, tuple[int, int], tuple[int, int, int]]:
    """A joint block without values, with factors on every linear layer; widths of the towers; widths of the heads."""
    video, audio, bridge = (
        known_options(kind, read_json(folder / name / "config.json"))
        for kind, name in ((VideoTower, "video_dit"), (AudioTower, "audio_dit"), (Bridge, "dual_tower_bridge"))
    )
    one = {"num_layers": 1}
    with torch.device("meta"):
        towers = VideoTower(**{**video, **one}), AudioTower(**{**audio, **one})
        network = DualTower(*towers, Bridge(**{**bridge, "visual_layers": 1, "audio_layers": 1}))
        network.requires_grad_(False)
        block = next(joint_blocks(network))
        for parent in list(block.modules()):
            for name, layer in list(parent.named_children()):
                if type(layer) is nn.Linear:
                    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=False)
                    setattr(parent, name, LoraLinear(layer, "grown", config, r=rank, lora_alpha=rank))
    heads = network.video_head_dim, network.audio_head_dim, network.bridge_head_dim
    return block, (int(video["dim"]), int(audio["dim"])), heads

"""The planner: a machine, a model and a clip in; where everything goes, what it takes, and one plain sentence out.

Pure functions of their arguments. Every way to run is weighed by its own accounting: the fastest that fits is taken,
exact weights before 8-bit ones of the same speed. Nothing is refused: where no way fits, the leanest is returned with
`fits` false and the advice what would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.memory.machine import GIB, Machine
from engine.memory.sizes import TEXT_TOKENS, ModelSizes, Work
from engine.timing import nearest_frame_count

ALIGN = 256  # bytes; every tensor of a slab begins at a multiple
BASE_DEVICE = int(0.7 * GIB)  # workspaces of the libraries, and the allocator's rests
BASE_HOST = int(3.0 * GIB)  # Python, torch and its libraries, latents, the file being written
HEADROOM = 0.03  # of the device's free memory, left alone
FULL, EXTRA = 6.7, 1.05  # activations: units (tokens x width x item) of a branch that computes, and of one that waits
ENCODE, DECODE = 147.0, 204.0  # bytes a pixel and channel that the video VAE takes
DECODED = 36.0  # bytes a pixel and frame: three float32 copies of the colours
TILE = 256 * 256  # pixels
CHUNK = 96 * 96 * 6  # pixels of a frame times latent frames: what the decoder takes at once, where pictures are small
EIGHT_BIT_COST = 1.04  # unpacking the weights takes a share of the time
APART_COST = 1.002  # branches one after the other: launches, no more
TILES = ("none", "decode", "both")
ITEMS = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "fp8": 1}


@dataclass(frozen=True)
class Plan:
    """Where everything goes while one kind of clip is made.

    Attributes:
        device: torch's name of it. dtype: in which the networks compute.
        weights: how blocks are stored: as `dtype`, or "int8".
        experts: "device": both on the device; "host": both in main memory, the active one's residents on the device;
            "swap": one at a time, the other is read from its files when its turn comes.
        residents: joint blocks that stay on the device, evenly spread; the others stream through `ring` slots.
        pinned, pageable, mapped: streamed blocks by where they wait: page-locked memory, ordinary memory, their file.
        at_once: guidance branches that compute together; the others follow over the same weights.
        tiles: "none", "decode" (the picture is decoded in tiles) or "both" (known pictures are encoded so, too).
        seconds: predicted for one step. vram, ram: predicted peaks, bytes.
        fits: by this accounting. why: one sentence. advice: what would fit, where this does not.
        attention: a name of `engine.memory.backends.KERNELS`.
    """

    device: str
    dtype: str
    weights: str
    experts: str
    residents: int
    ring: int
    pinned: int
    pageable: int
    mapped: int
    at_once: int
    tiles: str
    seconds: float
    vram: int
    ram: int
    fits: bool = True
    why: str = ""
    advice: str = ""
    attention: str = "native"

    @property
    def streamed(self) -> int:
        """Blocks that are not resident."""
        return self.pinned + self.pageable + self.mapped

    @property
    def plain(self) -> bool:
        """Everything where it is loaded: nothing to stream, nothing to pack."""
        return self.streamed == 0 and self.experts == "device" and self.weights == self.dtype


def spread(layers: int, residents: int) -> tuple[int, ...]:
    """Which blocks stay, evenly spread; the first one is among them."""
    return tuple(i * layers // residents for i in range(residents)) if residents else ()


def slab_bytes(sizes: ModelSizes, layer: int, dtype: str, weights: str) -> tuple[int, int]:
    """Bytes of a joint block's picture part and of its shared part, as stored."""

    def stored(count: int, linear: int, width: int) -> int:
        if weights == dtype:
            return count * ITEMS[dtype]
        scales = 4 * (linear // max(1, width))  # float32, one a row
        return linear * ITEMS[weights] + (count - linear) * ITEMS[dtype] + scales

    video = stored(sizes.video_block, sizes.video_linear, sizes.width)
    shared = stored(sizes.shared_block, sizes.shared_linear, sizes.audio_width) if layer < sizes.shared else 0
    return video, shared


def activations(sizes: ModelSizes, work: Work, dtype: str, at_once: int) -> int:
    """Peak bytes of one step's states and temporaries."""
    video, audio = work.tokens(sizes)
    branches = work.passes * work.batch
    unit = ITEMS[dtype] * (video * sizes.width + audio * sizes.audio_width)
    text = branches * 3 * TEXT_TOKENS * (sizes.text_width + sizes.width + sizes.audio_width) * ITEMS[dtype]
    tables = 8 * (video + audio) * 128
    together = min(at_once, branches)
    return int(unit * (FULL * together + EXTRA * (branches - together))) + text + tables


def frames_at_once(pixels: int) -> int:
    """How many latent frames the video decoder takes at once, for pictures of so many pixels."""
    return max(1, CHUNK // pixels)


def decoding(sizes: ModelSizes, work: Work, tiles: str) -> int:
    """Peak bytes of encoding the first picture and of decoding, whichever takes more, with the VAEs."""
    pixels = work.width * work.height
    decoded = pixels * frames_at_once(pixels) if tiles == "none" else min(pixels, TILE)
    encoded = min(pixels, TILE) if tiles == "both" else pixels
    frames = (DECODED + (0 if tiles == "none" else 12)) * pixels * work.frames
    picture = max(DECODE * sizes.decoder_width * decoded + frames, ENCODE * sizes.vae_width * encoded + 12 * pixels)
    return int(picture) * work.batch + 4 * (sizes.video_vae + sizes.audio_vae)


def make_plan(
    machine: Machine,
    sizes: ModelSizes,
    work: Work,
    exact: bool = False,
    device: str | None = None,
    dtype: str | None = None,
) -> Plan:
    """The plan for this clip on this machine.

    Args:
        exact: never 8-bit weights.
        device: torch's name; by default that of the machine's kind.
        dtype: in which to compute; by default what the machine is good at.
    """
    dtype = dtype or _dtype(machine)
    plans = list(_weighed(machine, sizes, work, exact, device or _device(machine), dtype))
    fitting = [plan for plan in plans if plan.fits]
    if fitting:
        best = min(fitting, key=_order)
        return replace(best, why=reason(best, machine, sizes, work))
    best = min(plans, key=lambda plan: (_excess(plan, machine), *_order(plan)))
    advice = _advice(machine, sizes, work, exact, best)
    return replace(best, why=reason(best, machine, sizes, work), advice=advice)


def room(machine: Machine) -> tuple[int, int]:
    """Bytes that a plan may take of the device and of the host."""
    return int(machine.vram_free * (1 - HEADROOM)), machine.ram_free


def _order(plan: Plan) -> tuple[float, bool, bool, int, int, int]:
    held = plan.experts != "device"
    return plan.seconds, plan.weights != plan.dtype, held, TILES.index(plan.tiles), plan.ram, plan.vram


def _excess(plan: Plan, machine: Machine) -> int:
    vram, ram = room(machine)
    if machine.shared:
        return max(0, plan.vram + plan.ram - ram)
    return max(0, plan.vram - vram) + max(0, plan.ram - ram)


def _device(machine: Machine) -> str:
    return "cuda" if machine.kind == "rocm" else machine.kind


def _dtype(machine: Machine) -> str:
    if machine.kind in ("cuda", "rocm"):
        return "bfloat16" if machine.bf16 else "float32"
    return "float32"


def _weighed(machine: Machine, sizes: ModelSizes, work: Work, exact: bool, device: str, dtype: str) -> Iterator[Plan]:
    """Every way to run with the most residents that it has room for."""
    branches = work.passes * work.batch
    for weights in (dtype,) if exact else (dtype, "int8"):
        for experts in ("device", "host", "swap"):
            for at_once in sorted({branches, 1}, reverse=True):
                for tiles in TILES:
                    for ring in (2, 1):
                        yield _fullest(machine, sizes, work, (device, dtype, weights, experts, ring, at_once, tiles))


Choice = tuple[str, str, str, str, int, int, str]


def _fullest(machine: Machine, sizes: ModelSizes, work: Work, choice: Choice) -> Plan:
    """The plan of a choice with as many residents as fit; without any where none does."""
    best = account(machine, sizes, work, choice, sizes.layers)
    if best.fits or choice[3] == "device":
        return best
    best = account(machine, sizes, work, choice, 0)
    low, high = 0, sizes.layers  # more residents never take less of the device
    while best.fits and high - low > 1:
        middle = (low + high) // 2
        plan = account(machine, sizes, work, choice, middle)
        low, high, best = (middle, high, plan) if plan.fits else (low, middle, best)
    return best


def account(machine: Machine, sizes: ModelSizes, work: Work, choice: Choice, residents: int) -> Plan:
    """One way to run, with its predicted time and peaks."""
    device, dtype, weights, experts, ring, at_once, tiles = choice
    layers = sizes.layers
    slabs = [slab_bytes(sizes, i, dtype, weights) for i in range(layers)]
    stay = set(spread(layers, residents))
    stream = [i for i in range(layers) if i not in stay]
    held = 2 if experts == "device" else 1
    ring = min(ring, len(stream))

    largest = sum(slabs[sizes.largest])
    on_device = sum(held * slabs[i][0] + slabs[i][1] for i in stay) + ring * largest
    on_device += ITEMS[dtype] * (held * sizes.ends + sizes.audio_ends)
    unpacked = 0 if weights == dtype else ITEMS[dtype] * sizes.width * sizes.ffn
    denoise = on_device + unpacked + activations(sizes, work, dtype, at_once)
    # Residents leave before the picture is encoded and decoded, unless both have room.
    vaes = decoding(sizes, work, tiles) + (on_device if experts == "device" else 0)
    # The text encoder streams, and is gone before the blocks come; on a processor it is read where it lies.
    text = ITEMS[dtype] * 2 * sizes.text_block + 64 * TEXT_TOKENS * sizes.text_width * 4
    vram = BASE_DEVICE + max(denoise, vaes, text)

    host = sum(2 * video + shared for video, shared in slabs) if experts == "host" else 0
    space = machine.ram_free - BASE_HOST - _frames(work) - (vram if machine.shared else 0)
    pinned, pageable, mapped = _places(machine, len(stream), largest, slabs[sizes.largest][0], experts, space)
    if experts == "swap":
        host = sum(sum(slabs[i]) for i in stream[: pinned + pageable])
    ram = BASE_HOST + _frames(work) + host

    rates = machine.rates
    compute = work.operations(sizes) / rates.compute
    compute *= EIGHT_BIT_COST if weights != dtype else 1.0
    compute *= APART_COST if at_once < work.passes * work.batch else 1.0
    copy = largest * (pinned / rates.pinned + pageable / rates.pageable + mapped / min(rates.disk, rates.pageable))
    hidden = compute if ring > 1 else compute * residents / layers
    seconds = compute + max(0.0, copy - hidden)
    video_bytes = sum(video for video, _ in slabs)
    if experts == "swap":
        seconds += max(0.0, video_bytes / rates.disk - seconds) / work.steps
    elif experts == "host":
        seconds += video_bytes / rates.pageable / work.steps  # an upper bound, the same for any number of residents
    plan = Plan(
        device, dtype, weights, experts, residents, ring, pinned, pageable, mapped, at_once, tiles, seconds, vram,
        ram,
    )  # fmt: skip
    return replace(plan, fits=_excess(plan, machine) == 0)


def _places(machine: Machine, streamed: int, slab: int, video: int, experts: str, space: int) -> tuple[int, int, int]:
    """How many streamed blocks wait in locked memory, in ordinary memory, and in their file.

    Every block counts as the largest one, so that more memory never places fewer of them.
    """
    if experts == "host":
        slab, in_ram = slab + video, streamed
    else:
        in_ram = min(streamed, max(0, space) // slab)
    pinned = min(in_ram, machine.pin_limit // slab)
    return pinned, in_ram - pinned, streamed - in_ram


def _frames(work: Work) -> int:
    """Host bytes of the finished frames, as floats and as the bytes that are written."""
    return 15 * work.width * work.height * work.frames * work.batch


def reason(plan: Plan, machine: Machine, sizes: ModelSizes, work: Work) -> str:
    """One plain sentence."""
    clip = f"{work.width}x{work.height}, {work.frames / work.fps:.1f} s"
    where = "main memory" if machine.shared else f"{machine.vram_free / GIB:.0f} GB of graphics memory"
    eight = " in 8 bits" if plan.weights != plan.dtype else ""
    if not plan.fits:
        missing = _excess(plan, machine) / GIB
        return f"{clip}: about {max(missing, 0.1):.1f} GB of memory too little; it is tried with the leanest plan"
    if plan.streamed == 0:
        both = "both experts stay" if plan.experts == "device" else "one expert at a time is held"
        return f"{clip}: the model{eight} fits in {where}, {both}"
    waits = [
        f"{count} {words}"
        for count, words in (
            (plan.pinned, "in locked memory"),
            (plan.pageable, "in main memory"),
            (plan.mapped, "on disk"),
        )
        if count
    ]
    compute = work.operations(sizes) / machine.rates.compute
    cost = plan.seconds / compute
    speed = "as fast as on a large card" if cost < 1.05 else f"about {cost:.1f} times slower than on a large card"
    stay = f"{plan.residents} of {sizes.layers} layers{eight} stay in {where}"
    return f"{clip}: {stay}, the others stream ({', '.join(waits)}), {speed}"


def _advice(machine: Machine, sizes: ModelSizes, work: Work, exact: bool, best: Plan) -> str:
    """The longest clip of this size that fits, or the largest smaller picture."""
    seconds = int(work.frames / work.fps)
    for shorter in range(seconds, 0, -1):
        frames = nearest_frame_count(round(shorter * work.fps), sizes.stride)
        if frames < work.frames and _fits_at_all(machine, sizes, replace(work, frames=frames), exact, best.dtype):
            return f"a clip of {shorter} s fits"
    multiple = sizes.spatial * max(sizes.patch[1:])
    for share in (0.75, 0.5, 0.35, 0.25):
        width, height = (max(multiple, int(side * share) // multiple * multiple) for side in (work.width, work.height))
        smaller = replace(work, width=width, height=height, frames=nearest_frame_count(49, sizes.stride))
        if _fits_at_all(machine, sizes, smaller, exact, best.dtype):
            return f"{width}x{height} and {smaller.frames / work.fps:.0f} s fit"
    vram, ram = room(machine)
    more = [
        f"{(need - have) / GIB:.1f} GB more {what}"
        for need, have, what in ((best.vram, vram, "graphics memory"), (best.ram, ram, "main memory"))
        if need > have
    ]
    return f"this model needs {' and '.join(more) or 'more memory'}"


def _fits_at_all(machine: Machine, sizes: ModelSizes, work: Work, exact: bool, dtype: str) -> bool:
    return any(plan.fits for plan in _weighed(machine, sizes, work, exact, _device(machine), dtype))


def leaner(plan: Plan, stage: str) -> Plan | None:
    """The next rung of the ladder for a stage that ran out of memory; None at its end.

    Denoising: half the residents, a ring of one, branches one by one, 8-bit weights. Decoding: tiles.
    """
    if stage in ("picture", "decode"):
        tiles = "both" if stage == "picture" else "decode"
        if TILES.index(plan.tiles) >= TILES.index(tiles):
            return None
        return replace(plan, tiles=tiles, why="out of memory: the picture goes through its network in tiles")
    if stage != "denoise":
        return None
    if plan.experts == "device":
        return replace(plan, experts="swap", why="out of memory: one expert at a time is held")
    if plan.residents:
        fewer = plan.residents // 2
        moved = plan.residents - fewer
        return replace(
            plan, residents=fewer, pageable=plan.pageable + moved, ring=max(plan.ring, 2),
            why=f"out of memory: {fewer} layers stay on the device instead of {plan.residents}",
        )  # fmt: skip
    if plan.ring > 1:
        return replace(plan, ring=1, why="out of memory: one layer at a time is on the device")
    if plan.at_once > 1:
        return replace(plan, at_once=1, why="out of memory: the guidance branches follow one another")
    return None

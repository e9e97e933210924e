"""A whole LoRA training: scan, encode, train, write, into the library. Every part goes on from where it was left.

A run has a folder (see progress.py). Started again with the same settings it goes on; with others it is refused.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from filelock import FileLock, Timeout

from engine.device import choose_device, choose_precision
from engine.errors import RequestError
from engine.folders import cache_folder, data_folder
from engine.lora.apply import Grown
from engine.lora.convert import Factors, write
from engine.lora.keys import PART_FOLDERS
from engine.lora.library import Entry, Library, safe_name
from engine.media import atomic_file
from engine.pipeline import MovaPipeline
from engine.training import checkpoint
from engine.training.log import read_lines
from engine.training.loop import give_memory_back, keep_memory, train
from engine.training.lora import cache as store
from engine.training.lora.card import card_text, metadata_of
from engine.training.lora.choose import plan_training, shortened, weights_dtype
from engine.training.lora.clips import ClipSet, Format, format_of, scan
from engine.training.lora.made import Sampler, kept_key, make_kept
from engine.training.lora.memory import TrainPlan
from engine.training.lora.optimizer import make_eight_bit
from engine.training.lora.progress import CHECKPOINT, LOG, RUN, SAMPLES, tell
from engine.training.lora.settings import LoraSettings
from engine.training.lora.sharded import check_shard, same_everywhere, share_out, take_over_fsdp, wanted_by_any
from engine.training.lora.streamed import Frozen
from engine.training.lora.task import Levels, LoraObjective, LoraTask

log = logging.getLogger(__name__)

LOCK = "run.lock"


@dataclass(frozen=True)
class LoraOrder:
    """One training.

    Attributes:
        model: a folder in the released layout.
        work: the run's folder; None is one named after the LoRA among the user's data.
        size, frames: of the clips; None takes the model's own.
        old_prompts: what must not be forgotten: of the first ones a clip each is made before training.
        sample_prompts: what is looked at while it trains; empty takes two of the captions.
        device: "auto", "cpu", ...
        memory: GB of the device to count on; None is all that is free.
        shard: with several processes each holds a share of the frozen model: "yes", "no", or "auto", where it does not
            stand on each device as it is.
    """

    data: Path
    model: Path
    name: str
    settings: LoraSettings = field(default_factory=LoraSettings)
    work: Path | None = None
    size: tuple[int, int] | None = None
    frames: int | None = None
    old_prompts: tuple[str, ...] = ()
    sample_prompts: tuple[str, ...] = ()
    device: str = "auto"
    memory: float | None = None
    shard: str = "auto"

    @property
    def folder(self) -> Path:
        return self.work or data_folder() / "training" / safe_name(self.name)


@dataclass(frozen=True)
class LoraResult:
    """Attributes: path of the written file; entry in the library, where it was put there."""

    path: Path
    clips: ClipSet
    entry: Entry | None = None


def train_lora(
    order: LoraOrder,
    library: Library | None = None,
    until: int | None = None,
    accelerator: Accelerator | None = None,
    finish: bool = False,
) -> LoraResult | None:
    """Trains, or goes on with, what `order` says.

    Args:
        library: where the finished LoRA goes; None leaves it in the run's folder.
        until: stop at this step, with a checkpoint.
        finish: train no more; write the LoRA as the last checkpoint has it.

    Returns:
        None where it stopped before the end, and in all processes but the first.

    Raises:
        RequestError: no usable clip, the run's folder belongs to other settings, or nothing was learned yet.
        KeyboardInterrupt: a signal asked to stop; a checkpoint was written.
    """
    keep_memory()
    device = choose_device(order.device)
    settings = order.settings
    order = replace(order, shard=take_over_fsdp(order.shard))
    accelerator = accelerator or make_accelerator(device, settings.precision)
    if settings.batch % accelerator.num_processes:
        world = accelerator.num_processes
        raise RequestError(f"a batch of {settings.batch} cannot be shared by {world} processes; use {world} or more")
    check_shard(order.shard, settings, accelerator.num_processes, device)
    with _alone(order.folder) if accelerator.is_main_process else nullcontext():
        return _train(order, device, accelerator, library, 0 if finish else until, finish)


def _train(
    order: LoraOrder,
    device: torch.device,
    accelerator: Accelerator,
    library: Library | None,
    until: int | None,
    finish: bool,
) -> LoraResult | None:
    settings, world = order.settings, accelerator.num_processes
    place = device if device.type == "cpu" else accelerator.device  # with several processes accelerate says cpu:0
    folder, first = order.folder, accelerator.is_main_process
    if finish and not (folder / CHECKPOINT).is_file():
        raise RequestError(f"{order.name} has learned nothing yet: there is no checkpoint in {folder}")

    def progress(*how_far: Any) -> None:
        if first:
            tell(folder, *how_far)

    progress("load")
    way = plan_training(order, place, world)
    frames = shortened(order, way)
    if frames != order.frames:
        order = replace(order, frames=frames)
        way = plan_training(order, place, world)
    if way is not None:
        log.info("%s", way.why)
        if way.tight:
            give_memory_back()
    pipe, shared = _load(order, device, place, way), way is not None and way.shards > 1
    form = format_of(order.model, order.size, order.frames)
    clips = scan(order.data, form, settings.trigger)
    for name, why in clips.left_out:
        log.warning("left out: %s: %s", name, why)
    for note in clips.notes:
        log.info("%s", note)
    encoders = _encoders(order.model, pipe)
    if first:
        _claim(folder, order, clips, form, encoders.digests.towers, way)
    same_everywhere(accelerator, f"clips in {order.data}", clips.digest)
    same_everywhere(accelerator, f"run in {folder}", (folder / CHECKPOINT).is_file())
    cache = store.Cache(cache_folder() / "lora-clips")
    # of one machine: others may have a cache of their own
    share = accelerator.local_process_index, int(os.environ.get("LOCAL_WORLD_SIZE", world))
    old = order.old_prompts if settings.keep > 0 else ()
    with pipe.carrier.pictures(), pipe.carrier.text():
        store.encode_clips(clips.pieces, form, encoders, cache, share, progress)
        store.encode_blank(form, encoders, cache)
        for text in ("", *old):
            store.encode_caption(text, encoders, cache)
    grown = _grow(order, pipe)
    missing = {
        i
        for i, p in enumerate(old[: settings.keep_clips])
        if cache.get(kept_key(p, i, form, encoders, pipe.profile, settings.seed)) is None
    }
    if shared:
        encoders.text_encoder.to("cpu")
        share_out(pipe, grown, place)
        missing = wanted_by_any(accelerator, missing)  # all make each one together
    else:
        missing = {i for i in missing if i % share[1] == share[0]}
    with grown.off():
        make_kept(old, missing, form, encoders, pipe, cache, settings.seed, progress)
    accelerator.wait_for_everyone()

    frozen = Frozen(pipe, way)
    task = _task(order, pipe, form, clips, encoders, cache, accelerator, frozen, grown)
    width = int(pipe.high_noise.config.video["dim"])
    how, objective = settings.optimization(width), task.objective
    parts = settings.accumulate if way is None else way.accumulate
    progress("train")
    with frozen.carried():
        average = train(
            task, how, folder, settings.rhythm(), accelerator, until, groups=lambda _: objective.groups(),
            split=(lambda batch: task.split(batch, parts)) if parts > 1 else None, evaluate_together=shared,
            make_optimizer=make_eight_bit if way is not None and way.optimizer == "adamw8bit" else None,
        )  # fmt: skip
    whole = until is None or until >= settings.steps
    if not first or not (whole or finish):
        return None
    progress("finish")
    steps = settings.steps if whole else int(checkpoint.read(folder / CHECKPOINT)["step"])
    return _finish(order, clips, encoders.digests.towers, grown, objective, average, library, steps)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the run's folder, so that no second training writes there."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RequestError(
            f"{folder} is in use: a training of this name is running; wait, or use another name"
        ) from error
    try:
        yield
    finally:
        lock.release()


def make_accelerator(device: torch.device, precision: str) -> Accelerator:
    """accelerate's frame: one process, or as many as `accelerate launch` or `torchrun` started."""
    half = precision == "bfloat16" or (precision == "auto" and choose_precision("auto", device) == torch.bfloat16)
    # a step trains one expert, so that the other's factors get no gradient
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(mixed_precision="bf16" if half else "no", cpu=device.type == "cpu", kwargs_handlers=[unused])


def _load(order: LoraOrder, device: torch.device, place: torch.device, way: TrainPlan | None) -> MovaPipeline:
    """The model, where training wants it; what will be shared out stays on the CPU, mapped from its files."""
    dtype, shared = weights_dtype(order.settings, device), way is not None and way.shards > 1
    plan = None if way is None or way.plain else way.base
    pipe = MovaPipeline.from_pretrained(order.model, dtype, torch.device("cpu") if shared else place, plan)
    if shared:
        for network in (pipe.video_vae, pipe.audio_vae, pipe.text_encoder):
            network.to(place)
    return pipe


def _grow(order: LoraOrder, pipe: MovaPipeline) -> Grown:
    """Fresh factors on the model."""
    from engine.lora.job import stack_of

    s = order.settings
    wanted: Callable[[str, str], bool] = lambda part, module: part in s.parts and s.takes(module)  # noqa: E731
    return stack_of(pipe).grow(s.rank, s.scale_alpha, wanted, s.seed)


def _encoders(model: Path, pipe: MovaPipeline) -> store.Encoders:
    return store.Encoders(
        pipe.video_vae,
        pipe.audio_vae,
        pipe.text_encoder,
        pipe.tokenizer,
        store.Digests(
            eyes_and_ears=store.model_digest(model, ("video_vae", "audio_vae")),
            reader=store.model_digest(model, ("text_encoder", "tokenizer")),
            towers=store.model_digest(model, tuple(PART_FOLDERS.values())),
        ),
    )


def _claim(folder: Path, order: LoraOrder, clips: ClipSet, form: Format, towers: str, way: TrainPlan | None) -> None:
    """Writes down what the run was started with, or checks that it is the same."""
    said: dict[str, Any] = {
        "settings": order.settings.to_dict(),
        "data": clips.digest,
        "model": towers,
        "format": asdict(form),
        "old_prompts": list(order.old_prompts),
    }
    for left in folder.glob("checkpoint.pt.*.part"):  # of a run that was killed while it wrote
        left.unlink(missing_ok=True)
    path = folder / RUN
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        known["settings"] = {**LoraSettings().to_dict(), **known["settings"]}  # of a version that had fewer
        flat, before = ({**v["settings"], **{k: v[k] for k in v if k != "settings"}} for v in (said, known))
        changed = [k for k in flat if flat[k] != before.get(k)]
        if changed:
            others = ", ".join(changed)
            raise RequestError(
                f"{folder} holds a training with another {others}; use another name, or delete the folder"
            )
        return
    if way is not None:
        said["memory"] = {
            "frozen": "exact" if way.base.weights == way.base.dtype else way.base.weights, "accumulate": way.accumulate,
            "in_parts": "yes" if way.in_parts else "no", "optimizer": way.optimizer,
        }  # fmt: skip
    with atomic_file(path) as part:
        part.write_text(json.dumps(said, indent=2), encoding="utf-8")


def _task(
    order: LoraOrder,
    pipe: MovaPipeline,
    form: Format,
    clips: ClipSet,
    encoders: store.Encoders,
    cache: store.Cache,
    accelerator: Accelerator,
    frozen: Frozen,
    grown: Grown,
) -> LoraTask:
    s, profile = order.settings, pipe.profile

    def mean(value: torch.Tensor) -> torch.Tensor:
        return accelerator.reduce(value, "mean")

    latent_fps = pipe.latent_fps(form.fps)
    objective = LoraObjective(pipe.high_noise, pipe.low_noise, grown, s, latent_fps, mean).to(accelerator.device)
    objective.kept_everywhere = (
        frozen.way is not None and frozen.way.shards > 1 and s.keep > 0 and bool(order.old_prompts)
    )
    if accelerator.device.type != "cpu" and not frozen.lean:
        for expert in (pipe.high_noise, pipe.low_noise):
            expert.gradient_checkpointing = True
    levels = Levels(
        pipe.boundary_ratio,
        profile.video_shift or pipe.schedule.shift,
        profile.audio_shift or pipe.schedule.shift,
        latent_fps,
    )
    eyes, reader = encoders.digests.eyes_and_ears, encoders.digests.reader
    new = store.examples(clips.pieces, form, eyes, reader, cache)
    old_prompts = order.old_prompts if s.keep > 0 else ()
    old_texts = [store.take(cache, store.text_key(prompt, reader))["text"] for prompt in old_prompts]
    old = []
    for i, (prompt, text) in enumerate(zip(old_prompts[: s.keep_clips], old_texts, strict=False)):
        made = store.take(cache, kept_key(prompt, i, form, encoders, profile, s.seed))
        old.append(store.Example(made["video"], made["audio"], None, text))
    blank = store.take(cache, store.blank_key(form, eyes))["condition"]
    empty = store.take(cache, store.text_key("", reader))["text"]
    sampler = Sampler(
        pipe, form, sample_prompts(order, clips), order.folder / SAMPLES, s.seed, frozen.left,
        accelerator.is_main_process,
    )  # fmt: skip
    return LoraTask(objective, levels, new, old, blank, empty, sampler if s.sample_every else None, old_texts)


def sample_prompts(order: LoraOrder, clips: ClipSet) -> tuple[str, ...]:
    """What is looked at while it trains."""
    return order.sample_prompts or tuple(dict.fromkeys(p.caption for p in clips.pieces))[:2]


@torch.no_grad()
def _finish(
    order: LoraOrder,
    clips: ClipSet,
    base: str,
    grown: Grown,
    objective: LoraObjective,
    average: dict[str, torch.Tensor],
    library: Library | None,
    steps: int,
) -> LoraResult:
    """Writes the averaged factors, the card and the preview; adds them to the library."""
    named = {id(p): n for n, p in objective.named_parameters()}
    factors = [
        Factors(part, module, average[named[id(down)]], average[named[id(up)]], grown.alpha)
        for (part, module), (down, up) in grown.pairs.items()
    ]
    path = order.folder / f"{safe_name(order.name)}.safetensors"
    metadata = metadata_of(order.name, order.model.name, base, order.settings, clips, steps)
    write(path, factors, metadata)
    shown = sorted((order.folder / SAMPLES).glob("*.mp4"))
    last = [p for p in shown if shown and p.name.split("-")[1] == shown[-1].name.split("-")[1]]
    lines = read_lines(order.folder / LOG)
    card = card_text(metadata, clips, [f"{SAMPLES}/{p.name}" for p in last], lines)
    with atomic_file(order.folder / "card.md") as part:
        part.write_text(card, encoding="utf-8")
    if library is None:
        return LoraResult(path, clips)
    return LoraResult(path, clips, library.add(path, preview=last[0] if last else None))

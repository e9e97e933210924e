"""Makes one clip in the worker: model, latents, decoding, the published files. Worker only.

Latents are saved before they are decoded, so that a failure or a death after that costs a decoding and no more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from app.clock import Clock
from app.enhancing import enhanced, is_wanted
from app.latents import Latents
from app.order import Order
from app.publishing import clip_settings, publish
from app.source import given_side, read_source, with_source
from app.spec import JobSpec
from app.uploads import prepared
from engine.errors import MediaError
from engine.folders import cache_folder
from engine.media import Clip
from engine.memory.choose import remember
from engine.memory.sizes import Work, guidance_passes

if TYPE_CHECKING:
    from PIL import Image

    from engine.pipeline import MovaPipeline

log = logging.getLogger(__name__)


class Ears(Protocol):
    """Who hears of the progress; `check` raises `Cancelled` when the job shall stop."""

    def stage(self, name: str) -> None: ...
    def prompt(self, spec: JobSpec) -> None: ...
    def step(self, step: int, steps: int, seconds: float) -> None: ...
    def preview(self, step: int, picture: bytes, envelope: Sequence[float]) -> None: ...
    def check(self) -> None: ...
    @property
    def stopped(self) -> bool: ...


@dataclass(frozen=True)
class Published:
    """A clip that is in the results: its id, and the seconds that each part took."""

    clip: str
    measured: dict[str, Any]


class Maker:
    """Holds one loaded model and makes clips with it."""

    def __init__(self) -> None:
        self._pipe: MovaPipeline | None = None
        self._loaded: tuple[Path, tuple[Any, ...], float] | None = None

    def warm(self) -> str:
        """Imports what every job needs; returns the device that "auto" means here."""
        import diffusers
        import transformers

        import engine.pipeline  # noqa: F401 - so that the first job does not wait for it
        from engine.device import choose_device

        diffusers.utils.logging.set_verbosity_error()
        transformers.utils.logging.set_verbosity_error()
        return str(choose_device("auto"))

    def make(self, order: Order, ears: Ears) -> Published:
        """From an order to a published clip.

        Raises:
            Cancelled: it was asked to stop; nothing is left but the latents of finished steps.
            MovaError: it cannot be made; the message says why.
        """
        from engine.decode import stoppable

        clock = Clock()
        ears.stage("loading")
        if is_wanted(order.spec):
            order = _with_prompt(order, ears, clock)
        pipe = self._model(order, clock)
        picture = None if order.image is None else _prepared(order.image, order.spec, order.spec.crop)
        last = None if order.last_image is None else _prepared(order.last_image, order.spec, order.spec.last_crop)
        source = read_source(order)
        if order.spec.extend_of is not None and source is not None:
            from PIL import Image

            picture = Image.fromarray(np.ascontiguousarray(source.frames[-1]))
        with stoppable(pipe.video_vae, ears.check):
            latents = Latents.load(order)
            if latents is None:
                with clock.part("loras"):
                    loras = _with_loras(pipe, order)
                latents = replace(self._denoised(pipe, order, picture, last, source, ears, clock), loras=loras)
                latents.save(order)
            ears.stage("decode")
            with clock.part("decode"):
                clip = _decoded(pipe, order, latents, ears)
        ears.stage("write")
        with clock.part("write"):
            if source is not None:
                clip = with_source(clip, source, order.spec, exact=latents.exact)
            clip = replace(clip, settings=clip_settings(order, latents, picture, last))
            published = publish(order, clip, latents.path(order), ears.check)
        times = clock.times | {"device": str(pipe.device), "peak_memory": _peak_memory(pipe)}
        plain = order.spec.step_cache == 0 and order.spec.sound_steps == 1  # as the planner reckons
        if plain and "step" in times and pipe.carrier.plan is not None:
            plan = pipe.carrier.plan
            remember(order.model, _work(order.spec), plan, times["step"], times["peak_memory"], pipe.carrier.short)
        return Published(published, times)

    def _model(self, order: Order, clock: Clock) -> MovaPipeline:
        from engine.memory.choose import layout, plan_clip
        from engine.pipeline import MovaPipeline
        from engine.texts import TextCache

        stamp = (order.model / "model_index.json").stat().st_mtime if order.model.is_dir() else 0.0
        plan = plan_clip(order.model, _work(order.spec), order.device, order.precision, order.memory)
        wanted = (order.model, layout(plan), stamp)
        if self._pipe is None or self._loaded != wanted:
            self._pipe = self._loaded = None  # the old model goes before the new one comes
            _empty_cache()
            with clock.part("load"):
                texts, packed = TextCache.here(), cache_folder() / "packed"
                self._pipe = MovaPipeline.from_pretrained(order.model, plan=plan, texts=texts, packed=packed)
            self._loaded = wanted
            log.info("%s", plan.why)
        return self._pipe

    @staticmethod
    def _denoised(
        pipe: MovaPipeline,
        order: Order,
        picture: Image.Image | None,
        last: Image.Image | None,
        source: Clip | None,
        ears: Ears,
        clock: Clock,
    ) -> Latents:
        from app.preview import Previewer

        spec = order.spec
        given, exact = given_side(pipe, order, source)
        previewer = Previewer(pipe, spec, ears.preview)
        watch = clock.stages(ears.stage)

        def after_step(state: Any) -> bool:
            ears.step(state.step, state.steps, clock.lap())
            if not ears.stopped:
                previewer.see(state)
                clock.skip()  # the preview is not a part of the step
            return not ears.stopped

        out = pipe(
            spec.prompt,
            image=picture,
            last_image=last,
            negative_prompt=spec.negative_prompt,
            height=spec.height,
            width=spec.width,
            num_frames=spec.frames or 0,
            fps=spec.fps or 0.0,
            num_inference_steps=spec.steps or 0,
            guidance_scale=_set(spec.guidance),
            bridge_guidance_scale=_set(spec.bridge_guidance),
            video_shift=spec.video_shift,
            audio_shift=spec.audio_shift,
            a2v_scale=spec.a2v_scale,
            v2a_scale=spec.v2a_scale,
            step_cache=spec.step_cache or None,
            sound_steps=spec.sound_steps,
            seed=spec.seed,
            output_type="latent",
            callback_on_step_end=after_step,
            callback_on_stage=watch,
            **given,
        )
        clock.done(even=spec.step_cache == 0)
        return Latents(out.video_latents.cpu(), out.audio_latents.cpu(), out.truncated[0], exact)


def _with_prompt(order: Order, ears: Ears, clock: Clock) -> Order:
    """The order with the enhancer's prompt. The studio hears of it at once, so that a second attempt takes the same."""
    from engine.lora import Library, triggers

    ears.stage("text")
    with clock.part("enhance"):
        words = triggers(order.spec.loras, Library(order.loras)) if order.spec.loras else ()
        spec = enhanced(order.spec, order.image, words, lambda: ears.stopped)
    ears.prompt(spec)
    ears.stage("loading")
    return replace(order, spec=spec)


def _with_loras(pipe: MovaPipeline, order: Order) -> tuple[str, ...]:
    """Puts the job's LoRAs on the model and takes those of the job before off; what stays is not loaded again.

    Returns:
        A line for each, for the clip's settings.

    Raises:
        LoraError: one is missing, damaged or made for another model.
    """
    from engine.lora import Library, use

    used = use(pipe, order.spec.loras, Library(order.loras) if order.spec.loras else None)
    return tuple("; ".join((lora.fit.summary(), *lora.warnings)) for lora in used)


def _decoded(pipe: MovaPipeline, order: Order, latents: Latents, ears: Ears) -> Clip:
    """Frames and sound. Where memory is short the picture is decoded in tiles; a failure is tried once more."""
    from engine.memory.carry import is_out_of_memory

    spec = order.spec
    samples = round((spec.frames or 0) / (spec.fps or 1.0) * pipe.audio_vae.sample_rate)
    try:
        frames, sound = pipe.decode(latents.video, latents.audio, samples)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        ears.check()
        log.warning("decoding ran out of memory; trying in tiles")
        _empty_cache()
        frames, sound = pipe.decode(latents.video, latents.audio, samples, tiled=True)
    pictures = np.rint(frames[0] * 255).astype(np.uint8)
    return Clip(pictures, sound[0].astype(np.float32), spec.fps or 0.0, pipe.audio_vae.sample_rate)


def _prepared(path: Path, spec: JobSpec, crop: tuple[float, float] | None) -> Image.Image:
    if not path.is_file():
        raise MediaError("the picture of this job is gone; choose it again")
    return prepared(path, spec.width or 0, spec.height or 0, crop)


def _set(value: float | None) -> float:
    assert value is not None, "orders carry settled specs"
    return value


def _work(spec: JobSpec) -> Work:
    """What the planner has to know of a job."""
    passes = guidance_passes(_set(spec.guidance), _set(spec.bridge_guidance))
    return Work(spec.width or 0, spec.height or 0, spec.frames or 1, spec.fps or 24.0, passes, spec.steps or 1)


def _peak_memory(pipe: MovaPipeline) -> int:
    import psutil
    import torch

    if pipe.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(pipe.device))
    return int(psutil.Process().memory_info().rss)


def _empty_cache() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

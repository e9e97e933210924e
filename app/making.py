"""Makes one clip in the worker: model, latents, decoding, the published files. The only part of `app` with torch.

The order of writing is what keeps results whole: latents are saved before they are decoded, so that a failure or a
death after that costs a decoding and no more; mp4, thumbnail and peaks are complete before the sidecar appears, and
the mp4 is renamed into the results last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from app import derived
from app.enhancing import enhanced, is_wanted
from app.library import Clip, Facts, write_sidecar
from app.order import Order
from app.paths import StudioPaths
from app.spec import JobSpec
from app.uploads import pack_picture, prepared
from engine.errors import MediaError, OutputError, RequestError
from engine.folders import cache_folder
from engine.media import Clip as MediaClip
from engine.media import join, read_clip, trim, write_clip
from engine.media.mux import settings_json
from engine.media.probe import MAX_SETTINGS_BYTES
from engine.media.publish import flush, flush_folder
from engine.memory.choose import remember
from engine.memory.sizes import Work, guidance_passes
from engine.version import __version__

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from engine.pipeline import MovaPipeline

log = logging.getLogger(__name__)

EASED_FRAMES = 8  # a third of a second at 24 fps


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
        times: dict[str, Any] = {}
        clock = _Clock(times)
        ears.stage("loading")
        if is_wanted(order.spec):
            order = _with_prompt(order, ears, clock)
        pipe = self._model(order, clock)
        picture = None if order.image is None else _prepared(order.image, order.spec, order.spec.crop)
        last = None if order.last_image is None else _prepared(order.last_image, order.spec, order.spec.last_crop)
        source = _read_source(order)
        if order.spec.extend_of is not None and source is not None:
            from PIL import Image

            picture = Image.fromarray(np.ascontiguousarray(source.frames[-1]))
        latents = Latents.load(order)
        if latents is None:
            with clock("loras"):
                loras = _with_loras(pipe, order)
            latents = replace(self._denoised(pipe, order, picture, last, source, ears, clock), loras=loras)
            latents.save(order)
        ears.stage("decode")
        with clock("decode"):
            clip = _decoded(pipe, order, latents, ears)
        ears.stage("write")
        with clock("write"):
            if source is not None:
                clip = _with_source(clip, source, order.spec, exact=latents.exact)
            clip = replace(clip, settings=_settings(order, latents, picture, last))
            published = publish(order, clip, latents.path(order), ears.check)
        times |= {"device": str(pipe.device), "peak_memory": _peak_memory(pipe)}
        if "step" in times and pipe.carrier.plan is not None:
            plan = pipe.carrier.plan
            remember(order.model, _work(order.spec), plan, times["step"], times["peak_memory"], pipe.carrier.short)
        return Published(published, times)

    def _model(self, order: Order, clock: _Clock) -> MovaPipeline:
        from engine.memory.choose import layout, plan_clip
        from engine.pipeline import MovaPipeline
        from engine.texts import TextCache

        stamp = (order.model / "model_index.json").stat().st_mtime if order.model.is_dir() else 0.0
        plan = plan_clip(order.model, _work(order.spec), order.device, order.precision, order.memory)
        wanted = (order.model, layout(plan), stamp)
        if self._pipe is None or self._loaded != wanted:
            self._pipe = self._loaded = None  # the old model goes before the new one comes
            _empty_cache()
            with clock("load"):
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
        source: MediaClip | None,
        ears: Ears,
        clock: _Clock,
    ) -> Latents:
        from app.preview import Previewer

        spec = order.spec
        given, exact = _given(pipe, order, source)
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
            seed=spec.seed,
            output_type="latent",
            callback_on_step_end=after_step,
            callback_on_stage=watch,
            **given,
        )
        clock.done()
        return Latents(out.video_latents.cpu(), out.audio_latents.cpu(), out.truncated[0], exact)


@dataclass(frozen=True)
class Latents:
    """Both sides after the last step, float32 on the CPU.

    Attributes:
        truncated: the prompt was longer than the model reads.
        exact: a kept side came from saved latents, so its decoding is that side; otherwise it is copied from the mp4.
        loras: a line for each LoRA that was on the model: what of it was used, and what to know.
    """

    video: torch.Tensor
    audio: torch.Tensor
    truncated: bool = False
    exact: bool = True
    loras: tuple[str, ...] = ()

    @staticmethod
    def path(order: Order) -> Path:
        return StudioPaths(order.data).latents(order.job)

    def save(self, order: Order) -> None:
        """Writes them to the work folder, whole or not at all."""
        from safetensors.torch import save_file

        target = self.path(order)
        part = target.with_suffix(".part")
        marks = {"order": _fingerprint(order), "truncated": str(int(self.truncated)), "exact": str(int(self.exact))}
        marks["loras"] = json.dumps(self.loras)
        try:
            save_file({"video": self.video.contiguous(), "audio": self.audio.contiguous()}, part, marks)
            flush(part)
            os.replace(part, target)
        except OSError as error:
            raise OutputError(f"cannot keep the latents in {target.parent}: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, order: Order) -> Latents | None:
        """Those of an earlier attempt at the same job; None where there are none, or the job was changed since."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(cls.path(order), "pt") as file:
                marks = file.metadata() or {}
                if marks.get("order") != _fingerprint(order):
                    return None
                log.info("job %s goes on from its saved latents", order.job[:8])
                truncated, exact = marks.get("truncated") == "1", marks.get("exact") == "1"
                loras = tuple(json.loads(marks.get("loras", "[]")))
                return cls(file.get_tensor("video"), file.get_tensor("audio"), truncated, exact, loras)
        except (FileNotFoundError, SafetensorError):
            return None


def _fingerprint(order: Order) -> str:
    """Changes with anything that would change the latents."""
    text = json.dumps([order.spec.to_dict(), str(order.model), order.device, order.precision], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _with_prompt(order: Order, ears: Ears, clock: _Clock) -> Order:
    """The order with the enhancer's prompt. The studio hears of it at once, so that a second attempt takes the same."""
    from engine.lora import Library, triggers

    ears.stage("text")
    with clock("enhance"):
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


def _given(pipe: MovaPipeline, order: Order, source: MediaClip | None) -> tuple[dict[str, Any], bool]:
    """The kept side as latents for the pipeline; whether they are the clip's own rather than encoded from its mp4."""
    if order.spec.given is None:
        return {}, True
    picture = order.spec.given.kind == "picture"
    if order.source_latents is not None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(order.source_latents, "pt") as file:
                side = "video" if picture else "audio"
                return {f"given_{side}_latents": file.get_tensor(side)}, True
        except (OSError, SafetensorError) as error:
            log.warning("the clip's latents cannot be read (%s); its mp4 is encoded instead", error)
    if source is None:
        raise MediaError("the clip whose side should be kept is gone; choose another")
    if picture:
        return {"given_video_latents": pipe.encode_video(source.frames)}, False
    samples = source.samples.mean(axis=1) if source.samples.ndim == 2 else source.samples
    return {"given_audio_latents": pipe.encode_audio(samples, source.sample_rate)}, False


def _read_source(order: Order) -> MediaClip | None:
    """The clip that is extended, or whose side is kept; its size and rate must be those of the new one."""
    if order.spec.extend_of is None and order.spec.given is None:
        return None
    if order.source is None or not order.source.is_file():
        raise MediaError("the clip that this one is made from is gone; choose another")
    source, spec = read_clip(order.source), order.spec
    size = (source.frames.shape[2], source.frames.shape[1])
    if size != (spec.width, spec.height) or abs(source.fps - (spec.fps or 0)) > 1e-3:
        raise RequestError(
            f"the clip is {size[0]}x{size[1]} at {source.fps:g} fps; use these, not {spec.width}x{spec.height} "
            f"at {spec.fps:g}"
        )
    return source


def _decoded(pipe: MovaPipeline, order: Order, latents: Latents, ears: Ears) -> MediaClip:
    """Frames and sound. Where memory is short the picture is decoded in tiles; a failure is tried once more."""
    spec = order.spec
    samples = round((spec.frames or 0) / (spec.fps or 1.0) * pipe.audio_vae.sample_rate)
    try:
        frames, sound = pipe.decode(latents.video, latents.audio, samples)
    except Exception as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        ears.check()
        log.warning("decoding ran out of memory; trying in tiles")
        _empty_cache()
        frames, sound = pipe.decode(latents.video, latents.audio, samples, tiled=True)
    pictures = np.rint(frames[0] * 255).astype(np.uint8)
    return MediaClip(pictures, sound[0].astype(np.float32), spec.fps or 0.0, pipe.audio_vae.sample_rate)


def _with_source(clip: MediaClip, source: MediaClip, spec: JobSpec, exact: bool) -> MediaClip:
    """The new clip joined to the one it extends, or with the side that was to be kept."""
    if spec.extend_of is not None:
        return continued(source, clip)
    if exact or spec.given is None:
        return clip
    if spec.given.kind == "picture":
        return replace(clip, frames=source.frames[: len(clip.frames)])
    return replace(clip, samples=source.samples, sample_rate=source.sample_rate)


def continued(first: MediaClip, second: MediaClip) -> MediaClip:
    """Two clips as one, where the second begins with the first's last picture.

    That picture is shown once. While it is shown both sounds are there: the first fades out as the second fades in,
    with constant power, so that neither a gap nor a click is heard. What the model made of that picture differs a
    little from it, in colour above all; the difference is taken out of the next pictures, less and less.
    """
    from engine.media.mux import resample

    rate = first.sample_rate or second.sample_rate
    new = _stereo(second.samples)
    if second.sample_rate and second.sample_rate != rate:
        new = resample(new, second.sample_rate, rate)
    second = replace(second, samples=new, sample_rate=rate)
    overlap = round(rate / first.fps)
    old = _stereo(first.samples)
    length = round(first.seconds * rate)
    old = np.pad(old[:length], ((0, max(0, length - len(old))), (0, 0)))
    fade = np.linspace(0.0, np.pi / 2, min(overlap, len(old), len(new)), dtype=np.float32)[:, None]
    mixed = old.copy()
    mixed[len(old) - len(fade) :] = old[len(old) - len(fade) :] * np.cos(fade) + new[: len(fade)] * np.sin(fade)
    head = replace(first, samples=mixed, sample_rate=rate)
    if len(second.frames) == 1:
        return head
    second = replace(second, frames=_eased(second.frames, first.frames[-1]))
    return join([head, trim(second, 1 / second.fps, second.seconds)])


def _eased(frames: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Frames (F, H, W, 3) uint8 whose first becomes `wanted`, and whose next ones are moved that way ever less."""
    count = min(EASED_FRAMES, len(frames))
    share = np.linspace(1.0, 0.0, count, endpoint=False, dtype=np.float32)[:, None, None, None]
    offset = wanted.astype(np.float32) - frames[0]
    eased = np.clip(np.rint(frames[:count] + share * offset), 0, 255).astype(np.uint8)
    return np.concatenate([eased, frames[count:]])


def _stereo(samples: np.ndarray) -> np.ndarray:
    wave = samples[:, None] if samples.ndim == 1 else samples
    return np.repeat(wave, 2, axis=1) if wave.shape[1] == 1 else wave[:, :2]


def _settings(order: Order, latents: Latents, picture: Image.Image | None, last: Image.Image | None) -> dict[str, Any]:
    """What travels with the mp4: the spec, and the pictures as the model saw them, where they are small enough."""
    settings: dict[str, Any] = {**order.spec.to_dict(), "made_by": f"MOVA Studio {__version__}"}
    if latents.truncated:
        settings["prompt_truncated"] = True
    if latents.loras:
        settings["loras_used"] = list(latents.loras)
    packed: dict[str, str] = {}
    for name, image in (("image", picture), ("last_image", last)):
        if image is None:
            continue
        text = pack_picture(image)
        so_far = len(settings_json({**settings, "pictures": packed}).encode())
        if so_far + len(text) + 100 < MAX_SETTINGS_BYTES:
            packed[name] = text
        else:
            log.info("the %s is too large to travel inside the mp4", name.replace("_", " "))
    if packed:
        settings["pictures"] = packed
    return settings


def publish(order: Order, clip: MediaClip, latents: Path | None, check: Callable[[], None]) -> str:
    """Puts a finished clip into the results; returns its id, which is the job's.

    Everything is written and verified beside the results first; the rename of the mp4 is the last step.
    """
    paths = StudioPaths(order.data)
    settings = clip.settings or {}
    made = paths.work / f"{order.job}.mp4"
    folder = paths.preview(order.job)
    created = time.time()
    target = _free_place(paths.results / time.strftime("%Y-%m", time.localtime(created)), order, created)
    try:
        write_clip(made, clip.frames, clip.samples, clip.fps, clip.sample_rate, settings, sidecar=False)
        derived.write(folder, made, clip.frames)
        target.parent.mkdir(parents=True, exist_ok=True)
        check()
        known = {name: value for name, value in settings.items() if name != "pictures"}
        file = target.relative_to(paths.results).as_posix()
        facts = Facts.of(made)
        spec = JobSpec.from_dict(known)
        entry = Clip(order.job, order.job, order.owner, file, spec, known, facts, created)
        write_sidecar(target.with_suffix(".json"), entry)
        os.replace(made, target)
        flush_folder(target.parent)
    except OSError as error:
        raise OutputError(f"cannot write the clip: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # where this fails too, the first error is the one to tell
            made.unlink(missing_ok=True)
        if not target.exists():
            with contextlib.suppress(OSError):
                target.with_suffix(".json").unlink(missing_ok=True)
            derived.remove(folder)
    if latents is not None and order.keep_latents and latents.exists():
        os.replace(latents, folder / derived.LATENTS)
    elif latents is not None:
        latents.unlink(missing_ok=True)
    return order.job


def _free_place(folder: Path, order: Order, created: float) -> Path:
    """Where the clip goes; with the job's whole id in its name where the short one is another clip's already."""
    target = folder / file_name(order.spec, order.job, created)
    if target.exists() or target.with_suffix(".json").exists():
        target = folder / file_name(order.spec, order.job, created, digits=len(order.job))
    return target


def file_name(spec: JobSpec, job: str, created: float, digits: int = 8) -> str:
    """A name that people can read and every system allows: when, what about, which (`digits` of the job's id)."""
    words = re.findall(r"[^\W_]+", (spec.idea or spec.prompt).casefold())
    slug = ""
    for word in words:
        if len((slug + "-" + word).encode()) > 60:
            break
        slug += ("-" if slug else "") + word
    when = time.strftime("%Y%m%d-%H%M%S", time.localtime(created))
    return "-".join(part for part in (when, slug, job[:digits]) if part) + ".mp4"


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


class _Clock:
    """Seconds of each part of a job, into a dict: "load", "text", "picture", "step" (the median), "decode", "write"."""

    def __init__(self, times: dict[str, Any]) -> None:
        self.times = times
        self._name = ""
        self._begin = 0.0
        self._steps: list[float] = []
        self._last = 0.0

    def __call__(self, name: str) -> _Clock:
        self._name = name
        return self

    def __enter__(self) -> None:
        self._begin = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.times[self._name] = round(time.monotonic() - self._begin, 4)

    def stages(self, tell: Callable[[str], None]) -> Callable[[str], None]:
        """A callback for the pipeline's stages that passes them on and times them."""

        def entered(name: str) -> None:
            now = time.monotonic()
            if self._name in ("text", "picture"):
                self.times[self._name] = round(now - self._begin, 4)
            self._name, self._begin, self._last = name, now, now
            tell(name)

        return entered

    def lap(self) -> float:
        """Seconds since the last step ended."""
        now = time.monotonic()
        self._steps.append(now - self._last)
        self._last = now
        return self._steps[-1]

    def skip(self) -> None:
        self._last = time.monotonic()

    def done(self) -> None:
        if self._steps:
            self.times["step"] = round(sorted(self._steps)[len(self._steps) // 2], 4)

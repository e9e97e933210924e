"""The clip that a new one is made from: extended beyond its last picture, or one of its sides kept. Worker only."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from app.order import Order
from app.spec import JobSpec
from engine.errors import MediaError, RequestError
from engine.media import Clip, join, read_clip, trim
from engine.media.mux import resample

if TYPE_CHECKING:
    from engine.pipeline import MovaPipeline

log = logging.getLogger(__name__)

EASED_FRAMES = 8  # a third of a second at 24 fps


def read_source(order: Order) -> Clip | None:
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


def given_side(pipe: MovaPipeline, order: Order, source: Clip | None) -> tuple[dict[str, Any], bool]:
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


def with_source(clip: Clip, source: Clip, spec: JobSpec, exact: bool) -> Clip:
    """The new clip joined to the one it extends, or with the side that was to be kept."""
    if spec.extend_of is not None:
        return continued(source, clip)
    if exact or spec.given is None:
        return clip
    if spec.given.kind == "picture":
        return replace(clip, frames=source.frames[: len(clip.frames)])
    return replace(clip, samples=source.samples, sample_rate=source.sample_rate)


def continued(first: Clip, second: Clip) -> Clip:
    """Two clips as one, where the second begins with the first's last picture.

    That picture is shown once. While it is shown both sounds are there: the first fades out as the second fades in,
    with constant power, so that neither a gap nor a click is heard. What the model made of that picture differs a
    little from it, in colour above all; the difference is taken out of the next pictures, less and less.
    """
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

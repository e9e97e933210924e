"""A finished clip becomes a result: its name, what travels with it, and the order of writing that keeps results whole.

mp4, thumbnail and peaks are complete before the sidecar appears, and the mp4 is renamed into the results last.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import derived
from app.library import Clip, Facts, write_sidecar
from app.order import Order
from app.paths import StudioPaths
from app.spec import JobSpec
from app.uploads import pack_picture
from engine.errors import OutputError
from engine.media import Clip as MediaClip
from engine.media import write_clip
from engine.media.mux import settings_json
from engine.media.probe import MAX_SETTINGS_BYTES
from engine.media.publish import flush_folder
from engine.version import __version__

if TYPE_CHECKING:
    from PIL import Image

    from app.latents import Latents

log = logging.getLogger(__name__)


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


def clip_settings(
    order: Order, latents: Latents, picture: Image.Image | None, last: Image.Image | None
) -> dict[str, Any]:
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

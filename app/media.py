"""Clips, pictures and previews over HTTP. Names are ids of ours, looked up; no path ever comes from a request."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from app import derived
from app.core import Core
from app.errors import NotFound
from app.exports import export
from app.guard import visitor_of
from app.library import Clip
from engine.errors import RequestError

TYPES = {
    "mp4": "video/mp4",
    "webm": "video/webm",
    "gif": "image/gif",
    "wav": "audio/wav",
    "png": "image/png",
}
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}  # a clip's files never change under its id
NEVER = {"cache-control": "no-store"}
EXPORTS_AT_ONCE = 2

Seconds = Annotated[float | None, Query(ge=0, le=3600)]


def media_routes(core: Core) -> APIRouter:
    """Everything under /media."""
    router = APIRouter(prefix="/media", include_in_schema=False)
    slots = asyncio.Semaphore(EXPORTS_AT_ONCE)

    def clip_of(request: Request, clip_id: str) -> Clip:
        return core.library.get(clip_id, visitor_of(request).scope)

    @router.get("/clips/{clip_id}/video")
    @router.head("/clips/{clip_id}/video")
    def video(request: Request, clip_id: str, download: bool = False) -> Response:
        clip = clip_of(request, clip_id)
        name = Path(clip.file).name if download else None
        return _file(core.library.path(clip), "video/mp4", FOREVER, name)

    @router.get("/clips/{clip_id}/{part}")
    async def part(request: Request, clip_id: str, part: str) -> Response:
        names = {"thumb": (derived.THUMB, "image/webp"), "peaks": (derived.PEAKS, "application/json")}
        if part not in names:
            raise NotFound("no such part of a clip")
        clip = await run_in_threadpool(clip_of, request, clip_id)
        folder = core.paths.preview(clip.id)
        name, kind = names[part]
        if not (folder / name).is_file():
            async with slots:
                await run_in_threadpool(export, core.library.path(clip), "derived", folder)
        return _file(folder / name, kind, FOREVER)

    @router.get("/clips/{clip_id}/export/{kind}")
    async def exported(
        request: Request, clip_id: str, kind: str, start: Seconds = None, end: Seconds = None, at: Seconds = None
    ) -> Response:
        if kind not in TYPES:
            raise RequestError(f"there is no export {kind[:20]!r}; use {', '.join(TYPES)}")
        if any(value is not None and not math.isfinite(value) for value in (start, end, at)):
            raise RequestError("start, end and at are seconds from the beginning of the clip")
        clip = await run_in_threadpool(clip_of, request, clip_id)
        folder = Path(tempfile.mkdtemp(prefix="mova-export-"))
        try:
            target = folder / f"{Path(clip.file).stem}.{kind}"
            async with slots:
                first = at if kind == "png" else start
                await run_in_threadpool(export, core.library.path(clip), kind, target, first, end)
            cleanup = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
            return FileResponse(target, media_type=TYPES[kind], headers=NEVER, filename=target.name, background=cleanup)
        except BaseException:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
            raise

    @router.get("/uploads/{upload_id}")
    def upload(request: Request, upload_id: str) -> Response:
        found = core.uploads.get(upload_id, visitor_of(request).scope)
        return _file(core.uploads.path(found), "image/png", FOREVER)

    @router.get("/jobs/{job_id}/preview")
    def preview(request: Request, job_id: str) -> Response:
        job = core.queue.get(job_id, visitor_of(request).scope)
        found = core.supervisor.preview(job.id)
        if found is None:  # not yet, or the job ended since the page asked for its state: no fault of the page
            return Response(status_code=204)
        return Response(found.picture, media_type="image/webp", headers=NEVER)

    return router


def _file(path: Path, kind: str, headers: dict[str, str], name: str | None = None) -> Response:
    """A file of ours, with Range; one that is gone is a 404."""
    if not path.is_file():
        raise NotFound("the file is gone")
    return FileResponse(path, media_type=kind, headers=headers, filename=name)

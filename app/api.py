"""`/v1/videos`: the queue for programs, with the fields and objects of OpenAI's and SGLang's video API.

Where the two differ, answers carry what both look for. Differences from them are few and said here: a reference
picture comes as a multipart file, a data URL or the id of an upload, never as a path or a web address; a cancelled
job is "failed" with the error code "cancelled", because clients wait for nothing else; a model's name that is not
installed means the studio's own model.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from app import derived
from app.core import Core
from app.enhancing import AUTOMATIC
from app.errors import NotFound
from app.guard import Visitor, visitor_of
from app.jobs import ENDED, STATES, Job
from app.paths import is_id
from app.spec import JobSpec
from app.uploads import picture_of
from engine.errors import RequestError
from engine.folders import model_folders
from engine.request import check_number, parse_size
from engine.timing import seconds_to_frames

STATUS = {
    "queued": "queued",
    "paused": "queued",
    "running": "in_progress",
    "done": "completed",
    "failed": "failed",
    "cancelled": "failed",
}
MAX_FIELDS, MAX_FILES = 64, 2


class VideoRequest(BaseModel):
    """What a clip shall be. Fields that are left out take the model's own defaults."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = Field(description="What is seen and heard; speech in double quotes.")
    negative_prompt: str | None = None
    input_reference: str | dict[str, Any] | None = Field(
        default=None, description="First picture: a data URL, or the id of an upload. As multipart: a file."
    )
    model: str | None = None
    size: str | None = Field(default=None, description="WIDTHxHEIGHT; the model's size closest to the picture if open.")
    width: int | None = None
    height: int | None = None
    seconds: float | None = Field(default=None, description="Length; the nearest that the model can make is taken.")
    num_frames: int | None = Field(default=None, description="Length in frames, 4k+1; goes before seconds.")
    fps: float | None = None
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    bridge_guidance_scale: float | None = None
    video_shift: float | None = None
    audio_shift: float | None = None
    flow_shift: float | None = Field(default=None, description="Both shifts at once.")
    step_cache: float | None = Field(
        default=None, description="Leave out work that would change less than this share; 0 is off, 0.1 a good start."
    )
    sound_steps: int | None = Field(default=None, description="Parts in which the sound takes each step, 1 (off) to 8.")
    loras: list[dict[str, Any]] | None = Field(
        default=None, description="LoRAs of this studio: name or sha256 of each, and strength (or high, low, sound)."
    )
    enhance: bool = Field(default=False, description="Let the prompt enhancer write the prompt from yours.")
    n: Literal[1] | None = Field(default=None, description="One clip a request.")


class Video(BaseModel):
    """One job, as clients see it."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(description="0 to 100")
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = None
    prompt: str
    size: str
    seconds: str
    quality: str = "standard"
    url: str | None = Field(default=None, description="Where the mp4 is, once completed.")
    remixed_from_video_id: str | None = None
    error: dict[str, Any] | None = None
    seed: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    num_inference_steps: int | None = None
    inference_time_s: float | None = None
    queue_position: int | None = None
    eta_seconds: float | None = None


class VideoList(BaseModel):
    """Jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class Deleted(BaseModel):
    """Says that a job and its clip are gone."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True
    status: str = "deleted"


class ApiError(RequestError):
    """A request that cannot be understood; `param` is the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def api_routes(core: Core) -> APIRouter:
    """Everything under /v1."""
    router = APIRouter(prefix="/v1", tags=["videos"])
    body = {"application/json": VideoRequest.model_json_schema(), "multipart/form-data": _form_schema()}
    docs: dict[str, Any] = {
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind, schema in body.items()}}
    }

    @router.post("/videos", response_model=Video, openapi_extra=docs)
    async def create_video(request: Request) -> Video:
        """Puts a clip into the queue. JSON, or multipart with the picture as the file `input_reference`."""
        fields = await _fields(request)
        return await run_in_threadpool(create, core, fields, visitor_of(request))

    @router.get("/videos", response_model=VideoList)
    def list_videos(
        request: Request,
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> VideoList:
        """Jobs by the time they were asked for; the next page comes with the last id as `after`."""
        jobs = core.queue.by_time(visitor_of(request).scope, after, limit + 1, newest_first=order == "desc")
        data = [video(job) for job in jobs[:limit]]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return VideoList(data=data, first_id=first, last_id=last, has_more=len(jobs) > limit)

    @router.get("/videos/{video_id}", response_model=Video)
    def retrieve_video(request: Request, video_id: str) -> Video:
        """One job with its progress."""
        return video(core.queue.get(video_id, visitor_of(request).scope))

    @router.get("/videos/{video_id}/content", response_class=FileResponse)
    def video_content(request: Request, video_id: str, variant: Literal["video", "thumbnail"] = "video") -> Response:
        """The mp4, or its thumbnail; 404 until the job is completed."""
        visitor = visitor_of(request)
        job = core.queue.get(video_id, visitor.scope)
        if job.result is None:
            raise NotFound(f"there is no video: the job is {job.state}" + (f" ({job.reason})" if job.reason else ""))
        clip = core.library.get(job.result, visitor.scope)
        if variant == "thumbnail":
            return FileResponse(core.paths.preview(clip.id) / derived.THUMB, media_type="image/webp")
        path = core.library.path(clip)
        return FileResponse(path, media_type="video/mp4", filename=path.name)

    @router.post("/videos/{video_id}/cancel", response_model=Video)
    def cancel_video(request: Request, video_id: str) -> Video:
        """Takes a job out of the queue, or stops it within a step. One that has ended stays as it is."""
        return video(core.queue.cancel(video_id, visitor_of(request).scope))

    @router.delete("/videos/{video_id}", response_model=Deleted)
    def delete_video(request: Request, video_id: str) -> Deleted:
        """Removes an ended job and moves its clip to the trash; a job that has not ended is cancelled first."""
        delete(core, video_id, visitor_of(request))
        return Deleted(id=video_id)

    @router.get("/models", tags=["models"])
    def list_models(request: Request) -> JSONResponse:
        """Installed models."""
        own = core.model_name()
        names = [own, *(name for name in model_folders() if name != own)]
        data = [{"id": _shown(name), "object": "model", "created": 0, "owned_by": "mova-studio"} for name in names]
        return JSONResponse({"object": "list", "data": data})

    return router


def create(core: Core, fields: dict[str, Any], visitor: Visitor) -> Video:
    """Queues what a request's fields say.

    Raises:
        ApiError: a field cannot be understood; MovaError: as `Core.submit`.
    """
    picture = fields.pop("input_reference_file", None)
    try:
        asked = VideoRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else None
        raise ApiError(f"{name}: {first['msg'][:200]}" if name else first["msg"][:200], name) from None
    width, height = asked.width, asked.height
    if asked.size and asked.size.lower() != "auto":
        width, height = parse_size(asked.size[:40])
    image = None
    if picture is not None:
        image = _kept(core, picture, visitor)
    elif asked.input_reference is not None:
        image = _reference(core, asked.input_reference, visitor)
    model = asked.model if asked.model in model_folders() else None
    loras = JobSpec.from_dict({"loras": asked.loras or []}).loras
    if len(loras) != len(asked.loras or []):
        raise ApiError("loras: each needs a name or sha256, and a strength from -10 to 10", "loras")
    fps = asked.fps
    frames = asked.num_frames
    if frames is None and asked.seconds is not None:
        rate = check_number("fps", core.profile(model).fps if fps is None else fps, 1, 120)
        frames = seconds_to_frames(check_number("seconds", asked.seconds, 0.1, 100), rate)
    spec = JobSpec(
        prompt=asked.prompt,
        image=image,
        negative_prompt=asked.negative_prompt,
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        seed=asked.seed,
        steps=asked.num_inference_steps,
        guidance=asked.guidance_scale,
        bridge_guidance=asked.bridge_guidance_scale,
        video_shift=asked.flow_shift if asked.video_shift is None else asked.video_shift,
        audio_shift=asked.flow_shift if asked.audio_shift is None else asked.audio_shift,
        step_cache=asked.step_cache or 0.0,
        sound_steps=1 if asked.sound_steps is None else asked.sound_steps,
        model=model,
        loras=loras,
        enhancer={"mode": AUTOMATIC} if asked.enhance else None,
    )
    return video(core.submit(spec, visitor)[0])


def delete(core: Core, job_id: str, visitor: Visitor) -> None:
    """Removes a job with its clip; a running one is cancelled and leaves the list when it has stopped."""
    job = core.queue.get(job_id, visitor.scope)
    if job.state not in ENDED:
        job = core.queue.cancel(job_id, visitor.scope)
    if job.result is not None:
        try:
            core.library.delete(job.result, visitor.scope)
        except NotFound:
            pass  # deleted in the library before
    if job.state in ENDED:
        core.queue.forget(job_id, visitor.scope)


def video(job: Job) -> Video:
    """A job as clients see it."""
    spec = job.spec
    error = None
    if STATUS[job.state] == "failed":
        code = "cancelled" if job.state == "cancelled" else "generation_failed"
        error = {"code": code, "message": job.reason or job.state}
    progress = 100 if job.state == "done" else round(100 * job.progress.share) if job.progress else 0
    seconds = spec.seconds
    took = job.finished - job.started if job.finished and job.started and job.state == "done" else None
    return Video(
        id=job.id,
        model=_shown(spec.model or ""),
        status=STATUS[job.state],  # type: ignore[arg-type]
        progress=progress,
        created_at=int(job.created),
        completed_at=int(job.finished) if job.finished and job.state == "done" else None,
        prompt=spec.prompt,
        size=f"{spec.width}x{spec.height}",
        seconds=f"{seconds:.2f}".rstrip("0").rstrip("."),
        url=f"/v1/videos/{job.id}/content" if job.result else None,
        remixed_from_video_id=spec.extend_of or (spec.given.clip if spec.given else None),
        error=error,
        seed=spec.seed,
        num_frames=spec.frames,
        fps=spec.fps,
        num_inference_steps=spec.steps,
        inference_time_s=None if took is None else round(took, 3),
        queue_position=job.position or None,
        eta_seconds=None if job.eta is None else round(job.eta, 1),
    )


async def _fields(request: Request) -> dict[str, Any]:
    """The fields of a JSON or multipart body; the picture of a multipart body as bytes and name."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=1 << 20) as form:
            fields: dict[str, Any] = {
                name: value for name, value in form.items() if isinstance(value, str) and value != ""
            }
            file = form.get("input_reference")
            if isinstance(file, UploadFile):
                fields["input_reference_file"] = (await file.read(), file.filename or "")
    else:
        try:
            fields = json.loads(await request.body())
        except (ValueError, RecursionError):
            raise ApiError("the body is not JSON") from None
        if not isinstance(fields, dict):
            raise ApiError("the body is not a JSON object")
        fields.pop("input_reference_file", None)
    extra = fields.pop("extra_body", None)
    if isinstance(extra, str):
        try:
            extra = json.loads(extra)
        except (ValueError, RecursionError):
            raise ApiError("extra_body is not JSON", "extra_body") from None
    return {**fields, **extra} if isinstance(extra, dict) else fields


def _reference(core: Core, reference: str | dict[str, Any], visitor: Visitor) -> str:
    """An upload from a data URL, or the upload that an id names."""
    text = reference.get("image_url", "") if isinstance(reference, dict) else reference
    if is_id(text):
        return core.uploads.get(text, visitor.scope).id
    if not isinstance(text, str) or not text.startswith("data:image/"):
        raise ApiError(
            "input_reference must be a file (multipart), a data URL or the id of an upload", "input_reference"
        )
    try:
        data = base64.b64decode(text.partition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise ApiError("input_reference is not valid base64", "input_reference") from None
    return _kept(core, (data, "reference"), visitor)


def _kept(core: Core, picture: tuple[bytes, str], visitor: Visitor) -> str:
    data, name = picture
    return core.uploads.add(picture_of(data, "input_reference"), visitor.owner, name, visitor.guest).id


def _shown(model: str) -> str:
    """A model's name without the folder it may have been given by."""
    return model.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _form_schema() -> dict[str, Any]:
    schema = VideoRequest.model_json_schema()
    schema["properties"] = schema["properties"] | {"input_reference": {"type": "string", "format": "binary"}}
    return schema


assert set(STATUS) == set(STATES)

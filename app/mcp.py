"""The queue as tools of the Model Context Protocol, at /mcp, with --mcp. Streamable HTTP, without sessions."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.fastmcp import Context, FastMCP
from mcp.server.transport_security import TransportSecuritySettings
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from app.api import create, video
from app.core import Core
from app.guard import Visitor, shown, visitor_of
from app.jobs import Job
from engine.errors import MovaError

INSTRUCTIONS = (
    "Makes short video clips with their sound from a sentence, on this machine. `submit` a prompt, look at `status` "
    "until it is completed, then ask for the `result`. Speech goes into the prompt in double quotes."
)


def _server() -> FastMCP:
    """Without tools yet; the studio's logging is as it was."""
    # The door has checked Host and Origin; one place decides that.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    server = FastMCP(
        "MOVA Studio",
        instructions=INSTRUCTIONS,
        stateless_http=True,
        json_response=True,
        streamable_http_path="/",
        transport_security=security,
        log_level="WARNING",
    )
    root.handlers[:], root.level = handlers, level  # the library sets up logging of its own; ours stays as it was
    return server


def mcp_app(core: Core) -> tuple[ASGIApp, Any]:
    """The ASGI app to mount at /mcp, and a context manager that must be open while it serves."""
    server = _server()

    def visitor(context: Context[Any, Any, Any]) -> Visitor:
        return visitor_of(context.request_context.request)

    async def answered(who: Visitor, work: Any, *arguments: Any) -> dict[str, Any]:
        try:
            found = await run_in_threadpool(work, *arguments)
        except MovaError as error:
            raise ValueError(shown(" ".join(str(error).split()), who)) from None  # the client shows it to the model
        plain: dict[str, Any] = (found if not isinstance(found, Job) else video(found)).model_dump(exclude_none=True)
        return plain

    @server.tool()
    async def submit(
        context: Context[Any, Any, Any],
        prompt: str,
        negative_prompt: str | None = None,
        size: str | None = None,
        seconds: float | None = None,
        seed: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        step_cache: float | None = None,
        sound_steps: int | None = None,
        input_reference: str | None = None,
    ) -> dict[str, Any]:
        """Queues a clip. size is WIDTHxHEIGHT; input_reference a data URL or upload id of the first picture.

        step_cache from 0 (off) to 1: 0.1 is a little faster for a slightly different clip. sound_steps from 1 (off) to
        8: parts in which the sound takes each step.
        """
        fields = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "size": size,
            "seconds": seconds,
            "seed": seed,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "step_cache": step_cache,
            "sound_steps": sound_steps,
            "input_reference": input_reference,
        }
        who = visitor(context)
        return await answered(who, create, core, {k: v for k, v in fields.items() if v is not None}, who)

    @server.tool()
    async def status(context: Context[Any, Any, Any], id: str) -> dict[str, Any]:
        """How far a clip is: status, progress in percent, and the reason where it failed."""
        who = visitor(context)
        return await answered(who, core.queue.get, id, who.scope)

    @server.tool()
    async def cancel(context: Context[Any, Any, Any], id: str) -> dict[str, Any]:
        """Takes a clip out of the queue, or stops it within a step."""
        who = visitor(context)
        return await answered(who, core.queue.cancel, id, who.scope)

    @server.tool()
    async def result(context: Context[Any, Any, Any], id: str) -> dict[str, Any]:
        """Where a completed clip can be fetched: a path on this studio; the owner also gets the file's name."""
        who = visitor(context)
        found = await answered(who, core.queue.get, id, who.scope)
        if found["status"] != "completed":
            return found
        try:
            clip = await run_in_threadpool(core.library.get, id, who.scope)
        except MovaError as error:
            raise ValueError(str(error)) from None
        return found if who.guest else found | {"file": str(core.library.path(clip))}

    app = server.streamable_http_app()

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with server.session_manager.run():
            yield

    return app, running

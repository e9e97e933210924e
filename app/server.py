"""The HTTP side: one FastAPI app with login, media, /v1 and, by flag, MCP; the page is mounted on it.

Every request, those to Gradio's own routes included, passes the `Door` first. Ids of others look like none.

    GET  /healthz                           "ok", without login
    GET  /media/clips/{id}/video            the mp4, with Range; ?download=1 names the file
    GET  /media/clips/{id}/thumb            a WebP
    GET  /media/clips/{id}/peaks            JSON: see `app.derived.Peaks`
    GET  /media/clips/{id}/export/{kind}    kind: mp4, webm, gif, wav, png; ?start=&end= seconds (png: ?at=)
    GET  /media/uploads/{id}                the picture as PNG
    GET  /media/jobs/{id}/preview           the running job's latest picture, WebP; 204 where there is none
    *    /v1/videos...                      app.api; /v1/openapi.json describes it
    *    /mcp/                              app.mcp, with --mcp
    GET  /login, POST /login, POST /logout  where a password is needed
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from app.api import api_routes
from app.core import Core
from app.door import Door, answer
from app.errors import NotAllowed, NotFound, QuotaReached, StudioError, WrongState
from app.guard import Visitor, shown
from app.login import login_routes
from app.media import media_routes
from app.sessions import Sessions, Sharing
from engine.errors import MediaError, MovaError, OutputError, RequestError
from engine.version import __version__

log = logging.getLogger(__name__)

PORTS_TRIED = 20
START_SECONDS = 30.0
STATUSES: tuple[tuple[type[MovaError], int, str], ...] = (  # the first that fits
    (NotFound, 404, "not_found"),
    (QuotaReached, 429, "quota_reached"),
    (NotAllowed, 403, "not_allowed"),
    (WrongState, 409, "wrong_state"),
    (StudioError, 503, "studio_error"),
    (RequestError, 400, "invalid_value"),
    (OutputError, 503, "cannot_write"),
    (MediaError, 400, "invalid_media"),
    (MovaError, 400, "error"),
)


def make_server(core: Core) -> FastAPI:
    """The app, without the page: mount that with `gradio.mount_gradio_app(app, blocks, path="/", ...)`.

    `app.state.sessions` is the `Sessions` of this run: `sessions.sharing` is what the banner shows.
    """
    sessions = Sessions(core.options, core.paths.token, core.settings.current.share_hours)
    mcp = None
    if core.options.mcp:
        from app.mcp import mcp_app

        mcp = mcp_app(core)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with mcp[1]() if mcp else contextlib.nullcontext():
            yield

    app = FastAPI(
        title="MOVA Studio",
        version=__version__,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.sessions = sessions
    _errors(app)

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> Response:
        return PlainTextResponse("ok")

    app.include_router(login_routes(sessions))
    app.include_router(media_routes(core))
    app.include_router(api_routes(core))
    if mcp:
        app.mount("/mcp", mcp[0])
    listen = core.options.listen
    hosts = {socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"} if listen else set()
    big = (core.settings.current.upload_megabytes << 20) + (1 << 20)
    app.add_middleware(Door, sessions=sessions, hosts=hosts, any_address=listen is not None, big_body=big)
    app.state.hosts = hosts
    return app


def _errors(app: FastAPI) -> None:
    """Every error of ours as a status and an object that clients know; nothing of the inside in the others."""

    @app.exception_handler(MovaError)
    def on_mova_error(request: Request, error: MovaError) -> Response:
        status, code = next((s, c) for kind, s, c in STATUSES if isinstance(error, kind))
        visitor = request.scope.get("state", {}).get("visitor")
        text = " ".join(str(error).split())
        text = shown(text, visitor) if isinstance(visitor, Visitor) else text
        return answer(request.scope, status, code, text, getattr(error, "param", None))

    @app.exception_handler(RequestValidationError)
    def on_wrong_field(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1]) if first["loc"] else ""
        return answer(request.scope, 400, "invalid_value", f"{name}: {first['msg'][:200]}", name)

    @app.exception_handler(HTTPException)
    def on_http_error(request: Request, error: HTTPException) -> Response:
        detail = error.detail if isinstance(error.detail, str) else "that did not work"
        response = answer(request.scope, error.status_code, "http_error", detail)
        for name, value in (error.headers or {}).items():
            response.headers[name] = value
        return response

    @app.exception_handler(Exception)
    def on_defect(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse({"error": {"message": "a defect of the studio; see its log", "type": "server_error"}}, 500)


def serve(core: Core, app: FastAPI, ready: Callable[[str], None] | None = None) -> None:
    """Serves until Ctrl-C or SIGTERM: this machine, and as options say the network or a share link.

    Args:
        ready: called with the address to open once the page answers; it carries the owner's key where one is needed.

    Raises:
        StudioError: the port that was asked for is taken.
    """
    options = core.options
    sockets = listening(options.listen, options.port, options.port_fixed)
    port = sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    sessions: Sessions = app.state.sessions
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=2,
        timeout_keep_alive=30,
    )
    server = uvicorn.Server(config)
    core.lock.announce(url)
    if sessions.sharing is not None and options.listen:
        _share(sessions, address=f"http://{_outside_address(options.listen)}:{port}")

    def when_up() -> None:
        end = time.monotonic() + START_SECONDS
        while not server.started and time.monotonic() < end:
            time.sleep(0.02)
        if ready is not None and server.started:
            ready(url if not sessions.needed else f"{url}/login?key={sessions.owner_key}")
        if options.share and server.started:
            open_tunnel(app, port)
            while sessions.sharing is not None and not sessions.sharing.over and not server.should_exit:
                time.sleep(1.0)
            close_tunnels()

    threading.Thread(target=when_up, daemon=True).start()
    log.info("the page is at %s", url)
    server.run(sockets=sockets)


def listening(listen: str | None, port: int, fixed: bool) -> list[socket.socket]:
    """Sockets that are bound already, so that no other program can take the port in between.

    Args:
        listen: an address besides this machine's own, or None.
        fixed: only this port will do; otherwise the next free one is taken.

    Raises:
        StudioError: the port is taken, or the address is not this machine's.
    """
    addresses = ["127.0.0.1"] if listen is None else [listen]
    if listen is not None and listen not in ("0.0.0.0", "::", "127.0.0.1"):  # noqa: S104
        addresses.append("127.0.0.1")
    last: OSError | None = None
    for candidate in [port] if fixed or port == 0 else range(port, port + PORTS_TRIED):
        bound: list[socket.socket] = []
        try:
            for address in addresses:
                bound.append(_bound(address, candidate if not bound else bound[0].getsockname()[1]))
            return bound
        except OSError as error:
            last = error
            for made in bound:
                made.close()
    advice = "give another --port" if fixed else "end one of the programs there, or give --port"
    raise StudioError(f"cannot listen on port {port}: {(last and last.strerror) or last}; {advice}")


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows would let another program share the port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def open_tunnel(app: FastAPI, port: int) -> None:
    """Makes the public link; where it cannot be had, the local page goes on and says why."""
    sessions: Sessions = app.state.sessions
    try:
        from gradio import networking

        url = networking.setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None)
        app.state.hosts.add(urlsplit(url).hostname)
        _share(sessions, url=url)
        log.info("shared at %s", url)
    except Exception as error:  # whatever the tunnel's library raises: no network, a blocked download, a full disk
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        _share(sessions, problem=f"no public link could be made: {reason}")
        log.warning("no public link could be made: %s", reason)


def close_tunnels() -> None:
    """Takes the public link down."""
    from gradio import tunneling

    for tunnel in list(tunneling.CURRENT_TUNNELS):
        tunnel.kill()


def _share(sessions: Sessions, url: str = "", address: str = "", problem: str = "") -> None:
    old = sessions.sharing
    if old is not None:
        sessions.sharing = Sharing(
            url or old.url, address or old.address, old.until, old.password, problem or old.problem
        )


def _outside_address(listen: str) -> str:
    """The address by which others in the network reach this machine; no packet is sent to find it."""
    if listen not in ("0.0.0.0", "::"):  # noqa: S104
        return f"[{listen}]" if ":" in listen else listen
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # a documentation address: UDP only looks up the route
        return str(probe.getsockname()[0])
    return socket.gethostname()

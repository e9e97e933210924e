"""The login page. Plain HTML without scripts; the only page that can be seen without a session."""

from __future__ import annotations

import secrets
from html import escape
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from app.door import GUEST_COOKIE, SESSION_COOKIE, cookie
from app.sessions import SESSION_SECONDS, Sessions

GUEST_SECONDS = 365 * 86_400
LONGEST_FORM = 4096
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>MOVA Studio</title><style>
:root {{ color-scheme: dark light; }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; font: 16px/1.5 system-ui, sans-serif;
  background: light-dark(#f6f6f4, #141416); color: light-dark(#1c1c1e, #ececec); }}
form {{ width: min(20rem, calc(100vw - 4rem)); display: grid; gap: .75rem; }}
h1 {{ font-size: 1.25rem; font-weight: 600; margin: 0 0 .5rem; }}
label {{ display: grid; gap: .25rem; font-size: .875rem; }}
input, button {{ font: inherit; padding: .6rem .75rem; border-radius: .5rem;
  border: 1px solid light-dark(#8a8a8e, #77777c); background: light-dark(#fff, #1f1f22); color: inherit; }}
button {{ border: 0; background: light-dark(#1c1c1e, #ececec); color: light-dark(#fff, #141416); font-weight: 600; }}
:focus-visible {{ outline: 3px solid #4c9ffe; outline-offset: 2px; }}
p {{ margin: 0; color: light-dark(#a4161a, #ff9d9d); }}
</style></head><body><main><form method="post" action="/login">
<h1>MOVA Studio</h1>
{message}
<label>Name <input name="user" autocomplete="username"></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required autofocus></label>
<button>Log in</button>
</form></main></body></html>
"""


def login_routes(sessions: Sessions) -> APIRouter:
    """GET and POST /login, POST /logout."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    def page(request: Request, key: str = "") -> Response:
        if not sessions.needed:
            return RedirectResponse("/", 303)
        if key:
            session = sessions.login_owner(key)
            return _entered(request, session) if session else _page("That link is not valid any more.", 401)
        return _page()

    @router.post("/login")
    async def login(request: Request) -> Response:
        address = request.client.host if request.client else ""
        wait = sessions.throttle.wait(address)
        if wait > 0:
            response = _page(f"Too many wrong passwords. Try again in {wait:.0f} seconds.", 429)
            response.headers["retry-after"] = str(int(wait) + 1)
            return response
        body = await request.body()
        if len(body) > LONGEST_FORM:
            return _page("Name or password is wrong.", 401)
        form = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
        user, password = (form.get(name, [""])[0] for name in ("user", "password"))
        guest = cookie(request.headers, GUEST_COOKIE) or secrets.token_urlsafe(24)
        session = await run_in_threadpool(sessions.login, user, password, guest)
        if session is None:
            sessions.throttle.wrong(address)
            return _page("Name or password is wrong.", 401)
        sessions.throttle.right(address)
        response = _entered(request, session)
        response.set_cookie(GUEST_COOKIE, guest, max_age=GUEST_SECONDS, httponly=True, samesite="lax")
        return response

    @router.post("/logout")
    def logout(request: Request) -> Response:
        sessions.logout(cookie(request.headers, SESSION_COOKIE))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(SESSION_COOKIE)
        return response

    return router


def _page(message: str = "", status: int = 200) -> Response:
    shown = f'<p role="alert">{escape(message)}</p>' if message else ""
    return HTMLResponse(PAGE.format(message=shown), status, headers={"cache-control": "no-store"})


def _entered(request: Request, session: str) -> Response:
    """Back to the page, with the session in a cookie that scripts cannot read."""
    secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
    response = RedirectResponse("/", 303)
    response.set_cookie(
        SESSION_COOKIE, session, max_age=int(SESSION_SECONDS), httponly=True, samesite="lax", secure=secure
    )
    return response

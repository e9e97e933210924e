"""Who has logged in: passwords, sessions, the throttle on guessing, and how long the page is shared.

Owners and guests: on a studio that only this machine reaches, whoever logs in is the owner. On a shared one the
owner comes through the link that the terminal prints (or with the API's token); whoever knows the password is a
guest. Guests of one common password are told apart by browser, those of --auth-file by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from app.guard import Visitor
from app.library import LOCAL
from app.options import Options

log = logging.getLogger(__name__)

SESSION_SECONDS = 7 * 86_400.0  # without a request
MAX_SESSIONS = 2000
PASSWORD_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike  # noqa: S105
FREE_TRIES = 5  # wrong passwords before one has to wait, per address
ALL_TRIES = 30  # the same for all addresses together, within MINUTES: a tunnel makes all guests look alike
MINUTES = 15.0
LONGEST_WAIT = 300.0  # seconds


@dataclass
class Session:
    """A browser that has logged in."""

    visitor: Visitor
    seen: float


@dataclass(frozen=True)
class Sharing:
    """How the page is shared, for the banner.

    Attributes:
        url: the public link, "" while there is none. address: where the local network finds the page, or "".
        until: time.time() when guests are shut out. password: what guests need; shown to the owner only.
        problem: why there is no public link although one was asked for.
    """

    url: str = ""
    address: str = ""
    until: float = 0.0
    password: str = field(default="", repr=False)
    problem: str = ""

    @property
    def over(self) -> bool:
        return time.time() >= self.until


class Sessions:
    """All logins of one run of the studio."""

    def __init__(self, options: Options, token_file: Path, share_hours: float) -> None:
        self.needed = options.shared or bool(options.auth)
        self._shared, self._named = options.shared, options.named
        self._auth = {user: _digest(password) for user, password in options.auth}
        password = options.auth[0][1] if len(options.auth) == 1 else ""
        self.made = ""  # a password that we made ourselves, to be printed once
        if options.shared and not options.auth:
            self.made = password = new_password()
            self._auth = {"": _digest(password)}
        until = time.time() + share_hours * 3600
        self.sharing = Sharing(until=until, password=password) if options.shared else None
        self.owner_key = secrets.token_urlsafe(24)
        self._token = _digest(read_token(token_file))
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self.throttle = Throttle()

    def login(self, user: str, password: str, guest_secret: str) -> str | None:
        """A session's key for the cookie where the password is right; None where it is not.

        Args:
            guest_secret: of this browser's long-lived cookie; tells guests of a common password apart.
        """
        given = _digest(password)
        # Every pair is compared, so that the time tells nothing about names.
        right = [name for name, wanted in self._auth.items() if hmac.compare_digest(wanted, given)]
        if not any(name in ("", user) for name in right):
            return None
        if not self._shared:
            return self._open(Visitor(LOCAL, "owner"))
        who = f"user:{user}" if self._named else guest_secret
        return self._open(Visitor(f"guest-{hashlib.sha256(who.encode()).hexdigest()[:32]}", "guest"))

    def login_owner(self, key: str) -> str | None:
        """A session for the owner's own link."""
        return (
            self._open(Visitor(LOCAL, "owner")) if hmac.compare_digest(_digest(key), _digest(self.owner_key)) else None
        )

    def by_token(self, token: str) -> Visitor | None:
        """The owner, where the bearer token is right."""
        return Visitor(LOCAL, "owner") if hmac.compare_digest(_digest(token), self._token) else None

    def visitor(self, key: str) -> Visitor | None:
        """Whose session this is. Guests have none once the sharing is over."""
        now, name = time.time(), _digest(key).hex()
        with self._lock:
            session = self._sessions.get(name)
            if session is None or now - session.seen > SESSION_SECONDS:
                self._sessions.pop(name, None)
                return None
            if session.visitor.guest and (self.sharing is None or self.sharing.over):
                return None
            session.seen = now
            return session.visitor

    def logout(self, key: str) -> None:
        with self._lock:
            self._sessions.pop(_digest(key).hex(), None)

    def _open(self, visitor: Visitor) -> str:
        key = secrets.token_urlsafe(32)
        with self._lock:
            if len(self._sessions) >= MAX_SESSIONS:  # the one that was silent longest goes
                del self._sessions[min(self._sessions, key=lambda name: self._sessions[name].seen)]
            self._sessions[_digest(key).hex()] = Session(visitor, time.time())
        return key


class Throttle:
    """Makes guessing slow: after some wrong passwords each further one doubles the wait."""

    def __init__(self) -> None:
        self._wrong: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def wait(self, address: str, now: float | None = None) -> float:
        """Seconds until this address may try again; 0 is now."""
        now = time.monotonic() if now is None else now
        with self._lock:
            return max(self._wait(address, FREE_TRIES, now), self._wait("", ALL_TRIES, now))

    def wrong(self, address: str, now: float | None = None) -> None:
        """Counts a wrong password."""
        now = time.monotonic() if now is None else now
        with self._lock:
            if len(self._wrong) > 10_000:
                self._wrong = {name: times for name, times in self._wrong.items() if now - times[-1] < MINUTES * 60}
            for name in (address, ""):
                self._wrong.setdefault(name, deque(maxlen=ALL_TRIES + 20)).append(now)

    def right(self, address: str) -> None:
        """Forgets what an address that got it right had wrong before."""
        with self._lock:
            self._wrong.pop(address, None)

    def _wait(self, name: str, free: int, now: float) -> float:
        times = self._wrong.get(name)
        while times and now - times[0] > MINUTES * 60:
            times.popleft()
        if not times or len(times) < free:
            return 0.0
        pause = min(LONGEST_WAIT, 2.0 ** (len(times) - free))
        return max(0.0, times[-1] + pause - now)


def new_password() -> str:
    """Four groups of four letters and digits: 79 bits, and can be read out on the telephone."""
    groups = ("".join(secrets.choice(PASSWORD_LETTERS) for _ in range(4)) for _ in range(4))
    return "-".join(groups)


def read_token(path: Path) -> str:
    """The API's bearer token; made on first use, readable by its owner only."""
    try:
        token = path.read_text(encoding="ascii").strip()
        if len(token) >= 32:
            return token
    except (OSError, UnicodeDecodeError):
        log.info("a new API token is made")
    token = secrets.token_urlsafe(32)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
    return token


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

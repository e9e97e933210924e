"""The hub's protocol: what a repository holds, and bytes of its files.

    GET /api/models/OWNER/NAME/revision/REV         {"sha": commit, ...}
    GET /api/models/OWNER/NAME/tree/COMMIT          a page of files; header Link names the next
    GET /OWNER/NAME/resolve/COMMIT/PATH             the bytes, often from another host after a redirect; takes Range

Large files are listed with their sha256, small ones with the hash that git gives a blob. Both are checked here. The
token goes to the hub's own address only (the client drops it where a redirect leads to another host) and is in no
message and no log.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from engine.errors import Cancelled, MovaError
from engine.version import __version__

log = logging.getLogger(__name__)

ENDPOINT = "https://huggingface.co"
TRIES = 6  # in a row without a single byte of progress
LONGEST_WAIT = 60.0  # seconds between two tries, whatever the server asks for
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names that Windows keeps for devices
NEVER = {400, 404, 405, 410, 416, 451}  # asking again would change nothing


class DownloadError(MovaError):
    """A download cannot go on. What has arrived is kept, and the same command continues there."""


class Offline(DownloadError):
    """The network would be needed and may not be used."""


class Changed(Exception):
    """The server has another version of the file than the one that was begun."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        path: inside the repository, with slashes.
        size: bytes.
        sha256: of the content, in hex; empty where the hub lists none.
        blob: git's SHA-1 of "blob SIZE NUL content", for the files without sha256.
    """

    path: str
    size: int
    sha256: str = ""
    blob: str = ""

    @property
    def identity(self) -> str:
        return f"sha256:{self.sha256}" if self.sha256 else f"git:{self.blob}"

    def hasher(self) -> Any:
        """Feed it the content, then compare with `expected`."""
        if self.sha256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)

    @property
    def expected(self) -> str:
        return self.sha256 or self.blob


class _Lfs(BaseModel):
    model_config = ConfigDict(extra="ignore")
    oid: str
    size: int


class _TreeItem(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: str
    path: str
    size: int = 0
    oid: str = ""
    lfs: _Lfs | None = None


_TREE = TypeAdapter(list[_TreeItem])


def is_offline() -> bool:
    """Whether the user forbids the network for all of the studio."""
    names = ("MOVA_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


def safe_path(path: str) -> bool:
    """Whether a path from a listing stays inside its folder, and can be a name, on every system."""
    parts = path.split("/")
    if re.search(r'[\x00-\x1f\\:*?"<>|]', path) or len(path) > 200:
        return False
    return all(part and part[-1] not in ". " and part[0] != " " and not RESERVED.match(part) for part in parts)


class Hub:
    """A connection to the hub or to a mirror of it. Threads may share it. Use as a context manager."""

    def __init__(
        self,
        endpoint: str = "",
        token: str = "",
        proxy: str = "",
        offline: bool = False,
        stop: threading.Event | None = None,
        read_seconds: float = 30.0,
        first_wait: float = 1.0,
    ) -> None:
        """
        Args:
            endpoint: a mirror; else HF_ENDPOINT, else the hub itself.
            token: for repositories that ask who you are.
            proxy: URL of a proxy; else the system's settings (HTTPS_PROXY and its like) hold.
            offline: never open a connection; raise `Offline` instead.
            stop: when set, waiting and reading end with `Cancelled`.
            read_seconds: a server that says nothing for so long is asked again.
            first_wait: seconds before the second try; doubles with each.
        """
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT", "") or ENDPOINT).rstrip("/")
        self.offline = offline or is_offline()
        self.stop = stop or threading.Event()
        self.received = 0  # bytes of files that came over the network
        self._first_wait = first_wait
        self._lock = threading.Lock()
        url = httpx2.URL(self.endpoint)
        if url.scheme not in ("http", "https") or not url.host:
            raise DownloadError(f"{endpoint!r} is not an address; it looks like {ENDPOINT}")
        loopback = url.host in ("127.0.0.1", "localhost", "::1")
        self._token = token if url.scheme == "https" or loopback else ""
        if token and not self._token:
            log.warning("the token is not sent to %s: the connection is not encrypted", url.host)
        self._client = httpx2.Client(
            headers={"User-Agent": f"mova-studio/{__version__}", "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(read_seconds, connect=min(15.0, read_seconds)),
            follow_redirects=True,
            proxy=proxy or None,
            limits=httpx2.Limits(max_connections=64, max_keepalive_connections=32),
        )

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    # ---- listings

    def commit(self, repository: str, revision: str) -> str:
        """The commit that a branch or tag names now."""
        if re.fullmatch(r"[0-9a-f]{40}", revision):
            return revision
        answer, _ = self._json(
            f"{self.endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}", repository
        )
        sha = answer.get("sha") if isinstance(answer, dict) else None
        if not isinstance(sha, str) or not re.fullmatch(r"[0-9a-f]{40}", sha):
            raise DownloadError(f"{self.endpoint} gives no commit for {repository}; is it a mirror of the hub?")
        return sha

    def files(self, repository: str, commit: str) -> list[HubFile]:
        """All files of a repository at a commit, sorted by path."""
        url = f"{self.endpoint}/api/models/{repository}/tree/{commit}?recursive=true"
        files: list[HubFile] = []
        while url:
            answer, url = self._json(url, repository)
            try:
                items = _TREE.validate_python(answer)
            except ValidationError as error:
                raise DownloadError(f"{self.endpoint} lists {repository} in a way we cannot read") from error
            for item in items:
                if item.type != "file":
                    continue
                if not safe_path(item.path):
                    raise DownloadError(f"{repository} lists a file with the name {item.path!r}, which is refused")
                size, sha = (item.lfs.size, item.lfs.oid) if item.lfs else (item.size, "")
                if not re.fullmatch(r"[0-9a-f]{64}", sha) and not re.fullmatch(r"[0-9a-f]{40}", item.oid):
                    raise DownloadError(
                        f"{repository}: the hub lists no hash for {item.path}, so it cannot be verified"
                    )
                files.append(HubFile(item.path, size, sha if len(sha) == 64 else "", item.oid))
        return sorted(files, key=lambda file: file.path)

    def _json(self, url: str, repository: str) -> tuple[Any, str]:
        """A JSON answer and the address of the next page ("" on the last)."""
        self._may_connect(repository)
        for wait in self._tries():
            try:
                response = self._client.get(url, headers=self._authorization())
                if response.status_code == 200:
                    following = response.links.get("next", {}).get("url", "")
                    if following and not following.startswith(self.endpoint + "/"):
                        raise DownloadError(f"{self.endpoint} leads to another address for the rest of its listing")
                    return response.json(), following
                wait(self._refusal(response, repository))
            except (httpx2.TransportError, httpx2.DecodingError, ValueError) as error:
                wait(_cause(error))
        raise AssertionError("the last wait raises")

    # ---- bytes

    def read(
        self, repository: str, commit: str, file: HubFile, start: int, end: int, etag: str
    ) -> Iterator[tuple[bytes, str]]:
        """Bytes start..end of a file in blocks, each with the version tag that the server gives the file.

        One request; the caller asks again for what is missing. Blocks never go past `end`.

        Args:
            etag: the tag seen before, "" at first.

        Raises:
            Changed: the tag or the size is another one now.
            Retry: something that may pass; with the seconds the server asks to wait.
            DownloadError: something that will not.
        """
        self._may_connect(repository)
        url = f"{self.endpoint}/{repository}/resolve/{commit}/{quote(file.path)}"
        headers = {**self._authorization(), "Range": f"bytes={start}-{end - 1}"}
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                if response.status_code not in (200, 206):
                    raise Retry(*self._refusal(response, f"{repository}/{file.path}"))
                tag = response.headers.get("etag") or ""
                skip = _check_answer(response, file, start)
                if etag and tag and tag != etag:
                    raise Changed
                left = end - start
                for block in response.iter_raw():  # as it comes: collecting blocks would lose bytes when it is cut
                    with self._lock:
                        self.received += len(block)
                    if skip >= len(block):
                        skip -= len(block)
                        continue
                    block, skip = block[skip : skip + left], 0
                    left -= len(block)
                    yield block, tag
                    if left <= 0:
                        return
                    if self.stop.is_set():
                        raise Cancelled("paused")
                if left:
                    raise Retry("the connection was cut", None)
        except (httpx2.TransportError, httpx2.DecodingError, httpx2.TooManyRedirects) as error:
            raise Retry(_cause(error), None) from error

    # ---- manners

    def _may_connect(self, what: str) -> None:
        if self.offline:
            raise Offline(f"{what} would have to be fetched, and the network is switched off (--offline)")
        if self.stop.is_set():
            raise Cancelled("paused")

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _refusal(self, response: httpx2.Response, what: str) -> tuple[str, float | None]:
        """(reason, seconds to wait) of a refusal that may pass; raises `DownloadError` for one that will not."""
        status = response.status_code
        if status in (401, 403):
            how = "the token does not open it" if self._token else "it asks who you are"
            page = f"{self.endpoint}/{'/'.join(what.split('/')[:2])}"
            raise DownloadError(
                f"{what}: {how} ({status}). Accept its terms at {page}, make a token in your settings there, and keep "
                "it in Settings, or with: python launch.py models token"
            )
        if status in NEVER:
            raise DownloadError(f"{what} is not at {self.endpoint} (answer {status})")
        asked = response.headers.get("retry-after", "")
        return f"the server answers {status}", float(asked) if asked.isdigit() else None

    def _tries(self) -> Iterator[Callable[[tuple[str, float | None] | str], None]]:
        patience = Patience(self.stop, self._first_wait)
        while True:
            yield lambda why: patience.wait(*((why, None) if isinstance(why, str) else why))

    def patience(self) -> Patience:
        """How a reader of this hub waits between tries."""
        return Patience(self.stop, self._first_wait)


class Retry(Exception):
    """A request failed in a way that may pass: (reason, seconds that the server asks to wait or None)."""

    def __init__(self, reason: str, seconds: float | None) -> None:
        super().__init__(reason)
        self.reason, self.seconds = reason, seconds


class Patience:
    """Waits longer and longer between tries, and gives up after `TRIES` in a row that brought nothing."""

    def __init__(self, stop: threading.Event, first_wait: float) -> None:
        self._stop, self._first = stop, first_wait
        self._failed = 0

    def progress(self) -> None:
        """Something arrived: be patient again."""
        self._failed = 0

    def wait(self, reason: str, seconds: float | None = None) -> None:
        """Raises `DownloadError` when it is enough, `Cancelled` when the user stops."""
        self._failed += 1
        if self._failed >= TRIES:
            raise DownloadError(f"{reason}, {TRIES} times in a row; the same command goes on where this one stopped")
        spread = random.uniform(0.75, 1.25)  # noqa: S311  (so that several connections do not knock together)
        delay = seconds if seconds is not None else self._first * 2 ** (self._failed - 1) * spread
        log.info("%s; trying again in %.1f s", reason, min(delay, LONGEST_WAIT))
        if self._stop.wait(min(delay, LONGEST_WAIT)):
            raise Cancelled("paused")


def _check_answer(response: httpx2.Response, file: HubFile, start: int) -> int:
    """Bytes to skip at the head of the answer: none for the part asked for, all before it where the whole came."""
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
        if not match or int(match[1]) != start:
            raise Retry("the server sent another part than the one asked for", None)
        if int(match[2]) != file.size:
            raise Changed
        return 0
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) != file.size:
        raise Changed
    return start


def _cause(error: BaseException) -> str:
    """A network error in words; never the address, which can hold a signature."""
    kinds = {
        httpx2.ConnectTimeout: "no connection in time",
        httpx2.TimeoutException: "the server fell silent",
        httpx2.ProxyError: "the proxy refuses",
        httpx2.ConnectError: "no connection to the server",
        httpx2.TooManyRedirects: "the server sends us in circles",
        httpx2.TransportError: "the connection was cut",
    }
    for kind, text in kinds.items():
        if isinstance(error, kind):
            return text
    return "the answer makes no sense"

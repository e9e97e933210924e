"""Where the studio keeps things, and the lock that gives a folder to one studio at a time."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app.errors import NotFound, StudioError
from engine.folders import data_folder

ID_PATTERN = re.compile(r"[0-9a-f]{32}")
PART_PATTERN = re.compile(r"\.[0-9a-f]{16}\.part")  # what engine.media.publish leaves when its process is killed


def is_id(text: object) -> bool:
    """Whether `text` is one of our 128-bit ids, 32 lower-case hex digits: the only names that reach a path."""
    return isinstance(text, str) and ID_PATTERN.fullmatch(text) is not None


def _checked(text: str) -> str:
    """Ids are checked before they become paths, whoever has checked them before."""
    if not is_id(text):
        raise NotFound("no such thing")
    return text


@dataclass(frozen=True)
class StudioPaths:
    """All places of one studio, derived from its data folder.

    results/    mp4 files with their JSON sidecars: what the user keeps. Everything else can be made again or is spare
    previews/   a folder per clip: thumbnail, peaks, latents
    uploads/    pictures brought in, normalised to PNG
    trash/      deleted clips, until they are purged
    work/       latents of unfinished jobs
    """

    root: Path

    @classmethod
    def at(cls, data_dir: str | os.PathLike[str] | None = None) -> StudioPaths:
        """The studio in `data_dir`; in the system's place for user data where None. Creates the folders.

        Raises:
            StudioError: the folder cannot be made or written.
        """
        root = Path(data_dir).expanduser().absolute() if data_dir else data_folder()
        paths = cls(root)
        try:
            for folder in (paths.results, paths.previews, paths.uploads, paths.trash, paths.work):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudioError(
                f"cannot use {root} for results: {error.strerror or error}; choose another --data-dir"
            ) from None
        if not os.access(root, os.W_OK):
            raise StudioError(f"{root} is not writable; choose another --data-dir")
        return paths

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def previews(self) -> Path:
        return self.root / "previews"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def database(self) -> Path:
        return self.root / "studio.sqlite3"

    @property
    def log(self) -> Path:
        return self.root / "studio.log"

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def token(self) -> Path:
        """The bearer token of the HTTP API; readable by its owner only."""
        return self.root / "api-token"

    @property
    def running(self) -> Path:
        """Says which process holds the folder and where its page is."""
        return self.root / "running.json"

    def upload(self, upload_id: str) -> Path:
        return self.uploads / f"{_checked(upload_id)}.png"

    def preview(self, clip_id: str) -> Path:
        return self.previews / _checked(clip_id)

    def latents(self, job_id: str) -> Path:
        return self.work / f"{_checked(job_id)}.safetensors"


class FolderLock:
    """Holds a data folder for this process. The system lets go of it when the process ends, however it ends."""

    def __init__(self, paths: StudioPaths) -> None:
        self.paths = paths
        self._lock = FileLock(paths.root / "studio.lock")

    def acquire(self) -> None:
        """Raises:
        StudioError: another studio uses this folder; says which process and where its page is.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            other = self.holder()
            where = f" (process {other['pid']}, {other['url']})" if other else ""
            raise StudioError(
                f"a studio is already running on {self.paths.root}{where}; use its page, or give another --data-dir"
            ) from None
        self.announce("starting")

    def announce(self, url: str) -> None:
        """Leaves word of the page's address for a second start."""
        text = json.dumps({"pid": os.getpid(), "url": url})
        self.paths.running.write_text(text, encoding="utf-8")

    def holder(self) -> dict[str, Any] | None:
        """What the running studio said of itself, or None."""
        try:
            said = json.loads(self.paths.running.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return said if isinstance(said, dict) and {"pid", "url"} <= said.keys() else None

    def release(self) -> None:
        if self._lock.is_locked:
            self.paths.running.unlink(missing_ok=True)
            self._lock.release()

"""The folder of clips that is learned from: what is in it, its captions, and videos brought in. Imports no torch."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from app.errors import NotFound
from engine.errors import OutputError, RequestError
from engine.media import atomic_file
from engine.training.lora.clips import MAX_CAPTION, VIDEOS, Format, look

BROUGHT = "training-clips"  # below the data folder: a folder for each set that was brought in
TEXTS = (".txt", ".jsonl", ".csv")
ID = 32  # hex digits


@dataclass(frozen=True)
class ClipFile:
    """One video. Attributes: id, by which the page may play it; pieces made of it; why it is left out."""

    id: str
    name: str
    caption: str
    pieces: int
    sound: bool
    why: str = ""


@dataclass(frozen=True)
class ClipFolder:
    """What a folder holds. Attributes: pieces, of all clips; notes, a line each."""

    folder: Path
    clips: tuple[ClipFile, ...]
    pieces: int
    notes: tuple[str, ...]


class ClipFolders:
    """Looks into folders for the page; remembers what it has shown, since only that may be played or changed."""

    def __init__(self, root: Path) -> None:
        """Args: root: the studio's data folder."""
        self._root = root / BROUGHT
        self._shown: dict[str, Path] = {}
        self._lock = threading.Lock()

    def look(self, folder: str, form: Format) -> ClipFolder:
        """Every video of a folder, with its caption and what becomes of it.

        Raises:
            RequestError: no such folder, it cannot be read, or a table in it is damaged.
        """
        path = clip_folder(folder)
        try:
            found = look(path, form)
            videos = sorted(p for p in path.iterdir() if p.suffix.lower() in VIDEOS and p.is_file())
        except OSError as error:
            raise RequestError(f"folder {str(path)!r} cannot be read: {error.strerror or error}") from None
        reasons = dict(found.left_out)
        files = []
        for video in videos:
            pieces = [p for p in found.pieces if p.path == video]
            caption = pieces[0].caption if pieces else _beside(video)
            sound = bool(pieces and pieces[0].sound)
            files.append(ClipFile(_id(video), video.name, caption, len(pieces), sound, reasons.pop(video.name, "")))
            with self._lock:
                self._shown[files[-1].id] = video
        notes = (*found.notes, *(f"{name}: {why}" for name, why in reasons.items()))
        return ClipFolder(path, tuple(files), len(found.pieces), notes)

    def video(self, clip_id: str) -> Path:
        """Raises `NotFound`: it was not shown, or is gone."""
        with self._lock:
            path = self._shown.get(clip_id)
        if path is None or not path.is_file():
            raise NotFound("no such clip")
        return path

    def caption(self, clip_id: str, text: str) -> None:
        """Writes a clip's caption beside it; an empty one leaves the clip out.

        Raises:
            NotFound: as `video`. OutputError: it cannot be written.
        """
        beside = self.video(clip_id).with_suffix(".txt")
        if len(text) > MAX_CAPTION:
            raise RequestError(f"the caption has {len(text)} characters; {MAX_CAPTION} is the most")
        with atomic_file(beside) as part:
            part.write_text(" ".join(text.split()) + "\n", encoding="utf-8", errors="replace")

    def bring(self, file: Path, name: str, folder: str) -> Path:
        """Puts a file that was brought in into a folder of ours, a new one where `folder` is none of them.

        Returns:
            The folder.

        Raises:
            RequestError: it is neither a video nor a caption. OutputError: it cannot be written.
        """
        plain = re.sub(r"[^\w. ()+-]", "_", Path(name.replace("\\", "/")).name).strip(". ")[-100:]
        if Path(plain).suffix.lower() not in (*VIDEOS, *TEXTS):
            raise RequestError(f"{name[:80]!r} is no video ({', '.join(VIDEOS)}) and no caption ({', '.join(TEXTS)})")
        with self._lock:
            known = self._root / Path(folder).name
            ours = known == Path(folder) and known.name not in ("", "..") and os.path.isdir(known)
            target = known if ours else self._new()
        try:
            shutil.move(file, target / plain)
        except OSError as error:
            raise OutputError(f"cannot keep {name[:80]}: {error.strerror or error}") from error
        return target

    def _new(self) -> Path:
        stamp, number = time.strftime("%Y-%m-%d-%H%M%S"), 1
        while (target := self._root / (stamp if number == 1 else f"{stamp}-{number}")).exists():
            number += 1
        try:
            target.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"cannot make {target}: {error.strerror or error}") from error
        return target


def clip_folder(text: str) -> Path:
    """The folder that someone wrote down, whole.

    Raises:
        RequestError: it is not there, or no folder can be called so.
    """
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError:  # ~ of a user that this machine does not have
        path = Path(text)
    if not os.path.isdir(path):  # unlike Path.is_dir, never an error: not for too long a name either
        raise RequestError(f"folder {text[:200]!r} does not exist")
    return path


def _id(path: Path) -> str:
    found = path.stat()
    return hashlib.sha256(f"{path}\n{found.st_mtime_ns}\n{found.st_size}".encode()).hexdigest()[:ID]


def _beside(video: Path) -> str:
    """The caption of a clip that is left out for another reason."""
    try:
        text = video.with_suffix(".txt").read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return ""
    return " ".join(text[:MAX_CAPTION].split())

"""Finished clips: the mp4 files are the truth, the database is a list of them that can be made again.

A clip is `results/YYYY-MM/NAME.mp4` with the settings in its comment tag, and `NAME.json` beside it: the same
settings, and under "studio" what the library knows of it (id, job, owner, favourite, facts). Thumbnail, peaks and
latents lie in `previews/ID/`; they are made again when they are missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from app.errors import NotFound, StudioError, WrongState
from app.paths import PART_PATTERN, StudioPaths, is_id
from app.spec import JobSpec
from app.store import Store
from engine.errors import MediaError, OutputError
from engine.media import probe, read_settings
from engine.media.publish import atomic_file, why

log = logging.getLogger(__name__)

TRASH_DAYS = 30  # a deleted clip can be brought back that long
LOCAL = "local"  # the owner of everything that is made on the studio's own page
KEY = "studio"  # what the sidecar holds beside the settings


@dataclass(frozen=True)
class Facts:
    """What the mp4 of a clip is.

    Attributes:
        width, height: pixels. frames; fps: frames per second. sample_rate: Hz.
        video_seconds, audio_seconds: lengths of both streams; they differ by less than a frame.
        bytes: size of the mp4.
    """

    width: int
    height: int
    frames: int
    fps: float
    sample_rate: int
    video_seconds: float
    audio_seconds: float
    bytes: int

    @classmethod
    def of(cls, path: Path) -> Facts:
        """Measured from the file.

        Raises:
            MediaError: it is not a video.
        """
        info = probe(path)
        return cls(
            width=info.width,
            height=info.height,
            frames=info.frames,
            fps=info.fps,
            sample_rate=info.sample_rate,
            video_seconds=info.video_seconds,
            audio_seconds=info.audio_seconds,
            bytes=path.stat().st_size,
        )


@dataclass(frozen=True)
class Clip:
    """One finished clip.

    Attributes:
        id: 32 hex digits. job: the job that made it. owner: who asked for it.
        file: name below the results folder, with forward slashes.
        spec: the settings that made it. settings: all that the file carries, more than the spec.
        created: seconds since the epoch. favourite. deleted: when it went to the trash, or None.
    """

    id: str
    job: str
    owner: str
    file: str
    spec: JobSpec
    settings: dict[str, Any]
    facts: Facts
    created: float
    favourite: bool = False
    deleted: float | None = None

    @property
    def seconds(self) -> float:
        return self.facts.video_seconds

    @property
    def title(self) -> str:
        """The prompt's first words."""
        text = " ".join((self.spec.idea or self.spec.prompt).split())
        return text if len(text) <= 60 else text[:59].rstrip() + "…"


class Library:
    """The clips of one studio. Safe to use from any thread. `owner=None` sees everyone's."""

    def __init__(self, store: Store, paths: StudioPaths) -> None:
        self._store = store
        self.paths = paths
        self.revision = 0

    def find(
        self,
        owner: str | None = None,
        search: str = "",
        favourites: bool = False,
        limit: int = 60,
        offset: int = 0,
    ) -> list[Clip]:
        """Clips, the newest first.

        Args:
            search: words that must all occur in prompt, idea or model, in any case.
            favourites: only these.
        """
        where, values = self._condition(owner, search, favourites)
        rows = self._store.rows(
            f"SELECT * FROM clips WHERE {where} ORDER BY created DESC, id LIMIT ? OFFSET ?",  # noqa: S608
            (*values, limit, offset),
        )
        return [_clip(row) for row in rows]

    def count(self, owner: str | None = None, search: str = "", favourites: bool = False) -> int:
        """How many clips `find` would show without its limit."""
        where, values = self._condition(owner, search, favourites)
        row = self._store.row(f"SELECT count(*) FROM clips WHERE {where}", values)  # noqa: S608
        return int(row[0]) if row else 0

    def get(self, clip_id: str, owner: str | None = None) -> Clip:
        """One clip that is not deleted.

        Raises:
            NotFound: there is none, or it is another's.
        """
        clip = self._find(clip_id, owner)
        if clip.deleted is not None:
            raise NotFound("no such clip")
        return clip

    def path(self, clip: Clip) -> Path:
        """The mp4 of a clip, in the results or in the trash."""
        if clip.deleted is not None:
            return self.paths.trash / clip.id / Path(clip.file).name
        return self.paths.results / clip.file

    def favourite(self, clip_id: str, owner: str | None, on: bool = True) -> Clip:
        """Marks or unmarks a clip; the sidecar remembers it too."""
        clip = self.get(clip_id, owner)
        marked = replace(clip, favourite=on)
        with self._store.writing() as connection:
            connection.execute("UPDATE clips SET favourite = ? WHERE id = ?", (int(on), clip_id))
            write_sidecar(self.path(clip).with_suffix(".json"), marked)
        self.revision += 1
        return marked

    def delete(self, clip_id: str, owner: str | None) -> Clip:
        """Moves a clip to the trash; `undo_delete` brings it back until the trash is purged."""
        clip = self.get(clip_id, owner)
        source, folder = self.path(clip), self.paths.trash / clip.id
        with _told_clearly("delete the clip"):
            folder.mkdir(exist_ok=True)
        with self._moved((source, source.with_suffix(".json")), folder):
            with self._store.writing() as connection:
                connection.execute("UPDATE clips SET deleted = ? WHERE id = ?", (time.time(), clip_id))
        self.revision += 1
        return self._find(clip_id, None)

    def undo_delete(self, clip_id: str, owner: str | None) -> Clip:
        """Brings a deleted clip back.

        Raises:
            NotFound: there is none, it is another's, or the trash was purged.
            WrongState: it is not deleted.
        """
        clip = self._find(clip_id, owner)
        if clip.deleted is None:
            raise WrongState("the clip is not deleted")
        source, target = self.path(clip), self.paths.results / clip.file
        if not source.exists():
            raise NotFound("the clip is no longer in the trash")
        with _told_clearly("bring the clip back"):
            target.parent.mkdir(parents=True, exist_ok=True)
        # The sidecar first: a clip is never seen without its settings.
        with self._moved((source.with_suffix(".json"), source), target.parent):
            with self._store.writing() as connection:
                connection.execute("UPDATE clips SET deleted = NULL WHERE id = ?", (clip_id,))
        with suppress(OSError):
            source.parent.rmdir()
        self.revision += 1
        return self.get(clip_id)

    @staticmethod
    @contextmanager
    def _moved(files: Sequence[Path], folder: Path) -> Iterator[None]:
        """Moves files to a folder for the block, and back when it fails: files and list say the same.

        Raises:
            OutputError: a file cannot be moved.
        """
        done: list[tuple[Path, Path]] = []
        try:
            with _told_clearly("move the clip"):
                for path in files:
                    if path.exists():
                        os.replace(path, folder / path.name)
                        done.append((path, folder / path.name))
            yield
        except BaseException:
            for before, now in reversed(done):
                os.replace(now, before)
            raise

    def purge(self, older_than_days: float = TRASH_DAYS) -> int:
        """Deletes for good what has been in the trash that long; returns how many clips."""
        rows = self._store.rows(
            "SELECT * FROM clips WHERE deleted IS NOT NULL AND deleted <= ?",
            (time.time() - older_than_days * 86_400,),
        )
        for row in rows:
            shutil.rmtree(self.paths.trash / row["id"], ignore_errors=True)
            shutil.rmtree(self.paths.preview(row["id"]), ignore_errors=True)
            with self._store.writing() as connection:
                connection.execute("DELETE FROM clips WHERE id = ?", (row["id"],))
        self.revision += 1
        return len(rows)

    # ---- what the supervisor and the start do

    def add(self, clip: Clip) -> None:
        """Lists a clip whose files are in place; listing it twice changes nothing."""
        with self._store.writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO clips (id, job, owner, file, words, settings, facts, created, favourite)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    clip.id,
                    clip.job,
                    clip.owner,
                    clip.file,
                    _words(clip),
                    json.dumps(clip.settings, ensure_ascii=False),
                    json.dumps(asdict(clip.facts)),
                    clip.created,
                    int(clip.favourite),
                ),
            )
        self.revision += 1

    def add_published(self, clip_id: str) -> None:
        """Lists the clip that the worker has just published under this id.

        Raises:
            StudioError: its files are not there.
        """
        for sidecar in self.paths.results.glob(f"*/*{clip_id[:8]}*.json"):
            clip = clip_from_file(sidecar.with_suffix(".mp4"), self.paths)
            if clip.id == clip_id:
                self.add(clip)
                return
        raise StudioError(f"the clip {clip_id} was announced but is not in {self.paths.results}")

    def refresh(self) -> tuple[int, int]:
        """Brings the list in line with the results folder; returns how many clips were added and dropped.

        Sidecars without a clip are what a killed worker left, and are removed with part files. With an empty
        database this rebuilds the whole library, favourites and owners included.
        """
        _sweep(self.paths.results)
        known = {row["file"]: row["id"] for row in self._store.rows("SELECT id, file FROM clips WHERE deleted IS NULL")}
        there = {path.relative_to(self.paths.results).as_posix(): path for path in self.paths.results.rglob("*.mp4")}
        added = 0
        for file in sorted(there.keys() - known.keys()):
            try:
                self.add(clip_from_file(there[file], self.paths))
                added += 1
            except (MediaError, OSError) as error:
                log.warning("%s is in the results folder but is no clip: %s", file, error)
        gone = [known[file] for file in known.keys() - there.keys()]
        with self._store.writing() as connection:
            connection.executemany("DELETE FROM clips WHERE id = ?", [(clip_id,) for clip_id in gone])
        self.revision += 1
        return added, len(gone)

    def by_job(self) -> dict[str, str]:
        """Job id -> clip id of every clip, for `JobQueue.recover`."""
        return {row["job"]: row["id"] for row in self._store.rows("SELECT job, id FROM clips") if row["job"]}

    def ids(self) -> set[str]:
        """Every clip, those in the trash included."""
        return {row["id"] for row in self._store.rows("SELECT id FROM clips")}

    def _find(self, clip_id: str, owner: str | None) -> Clip:
        row = self._store.row("SELECT * FROM clips WHERE id = ?", (clip_id,)) if is_id(clip_id) else None
        if row is None or (owner is not None and row["owner"] != owner):
            raise NotFound("no such clip")
        return _clip(row)

    @staticmethod
    def _condition(owner: str | None, search: str, favourites: bool) -> tuple[str, list[Any]]:
        where, values = ["deleted IS NULL"], list[Any]()
        if owner is not None:
            where.append("owner = ?")
            values.append(owner)
        if favourites:
            where.append("favourite = 1")
        for word in search.casefold().split()[:16]:
            where.append("instr(words, ?) > 0")
            values.append(word)
        return " AND ".join(where), values


def settings_from_file(path: str | os.PathLike[str]) -> tuple[JobSpec, dict[str, Any]]:
    """The settings that an mp4 carries: the spec to put into the form, and all that the file says.

    The pictures that the clip was made from are in `settings["pictures"]` where they were small enough to travel
    with it; `Uploads.restore` makes uploads of them and puts their ids into the spec.

    Raises:
        MediaError: not a video, or one that carries no settings.
    """
    settings = read_settings(path)
    if settings is None:
        raise MediaError("this video carries no settings; only clips made by the studio do")
    return JobSpec.from_dict(settings), settings


def sidecar_text(clip: Clip) -> str:
    """What the JSON file beside a clip holds."""
    known = {"id": clip.id, "job": clip.job, "owner": clip.owner, "created": clip.created, "favourite": clip.favourite}
    return (
        json.dumps({**clip.settings, KEY: {**known, "facts": asdict(clip.facts)}}, ensure_ascii=False, indent=2) + "\n"
    )


@contextmanager
def _told_clearly(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot {what}: {why(error)}") from error


def write_sidecar(path: Path, clip: Clip) -> None:
    """Writes the JSON file beside a clip, whole or not at all."""
    text = sidecar_text(clip).encode("utf-8", "backslashreplace")
    with atomic_file(path) as part:
        part.write_bytes(text)


def clip_from_file(path: Path, paths: StudioPaths) -> Clip:
    """The clip of an mp4 in the results folder, from its sidecar, or from its own comment tag without one.

    Raises:
        MediaError: it is not a video.
    """
    sidecar = path.with_suffix(".json")
    settings, known = _read_sidecar(sidecar)
    if settings is None:
        settings = read_settings(path) or {}
    file = path.relative_to(paths.results).as_posix()
    clip_id = known.get("id")
    facts = _facts(known.get("facts")) or Facts.of(path)
    created = known.get("created")
    return Clip(
        id=clip_id if isinstance(clip_id, str) and is_id(clip_id) else _id_of_name(file),
        job=known["job"] if is_id(known.get("job")) else "",
        owner=known["owner"] if isinstance(known.get("owner"), str) else LOCAL,
        file=file,
        spec=JobSpec.from_dict(settings),
        settings=settings,
        facts=facts,
        created=float(created) if isinstance(created, int | float) else path.stat().st_mtime,
        favourite=known.get("favourite") is True,
    )


def _read_sidecar(path: Path) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Settings and what the library knew; None and nothing where the file is missing or not ours."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read: %s", path.name, error)
        return None, {}
    if not isinstance(content, dict):
        return None, {}
    known = content.pop(KEY, {})
    return content, known if isinstance(known, dict) else {}


def _facts(values: Any) -> Facts | None:
    try:
        return Facts(**values)
    except TypeError:
        return None


def _id_of_name(file: str) -> str:
    """The same id each time for a clip that was put into the results by hand."""
    return hashlib.sha256(file.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _words(clip: Clip) -> str:
    """What a search looks through."""
    return "\n".join((clip.spec.prompt, clip.spec.idea, clip.spec.model or "")).casefold()


def _clip(row: Any) -> Clip:
    settings = json.loads(row["settings"])
    return Clip(
        id=row["id"],
        job=row["job"],
        owner=row["owner"],
        file=row["file"],
        spec=JobSpec.from_dict(settings),
        settings=settings,
        facts=Facts(**json.loads(row["facts"])),
        created=row["created"],
        favourite=bool(row["favourite"]),
        deleted=row["deleted"],
    )


def _sweep(results: Path) -> None:
    """Removes what a killed worker left: part files, and sidecars that say they are ours but have no clip."""
    for path in results.rglob(".*.part"):
        if PART_PATTERN.fullmatch(path.name):
            path.unlink(missing_ok=True)
    for sidecar in results.rglob("*.json"):
        if not sidecar.with_suffix(".mp4").exists() and is_id(_read_sidecar(sidecar)[1].get("id")):
            sidecar.unlink(missing_ok=True)

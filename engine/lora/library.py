"""The folder of LoRAs: every file with its hash, what its maker says, and what the user wrote beside it.

    a.safetensors          the file
    a.json, a.civitai.info what download tools leave
    a.png, a.mp4, ...      a preview
    a.mova.json            the user's own words: title, trigger words, licence, notes, tower

A LoRA is known by the SHA-256 of its bytes, so that settings of a clip find it again under another name. Hashes are
kept in `.index.json` and taken again only where size or time changed. No torch here: the page's process may use it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from engine.errors import LoraError, OutputError
from engine.folders import data_folder
from engine.lora.about import About, clean, from_metadata, from_sidecar, read_small_json
from engine.lora.fit import TOWERS
from engine.lora.formats import WEIGHTS, LoraFile, read_lora
from engine.lora.header import MAX_FILE
from engine.lora.values import check_finite
from engine.media.publish import atomic_file

log = logging.getLogger(__name__)

INDEX, LOCK = ".index.json", ".index.lock"
PREVIEWS = (".preview.png", ".png", ".webp", ".jpg", ".jpeg", ".preview.mp4", ".mp4", ".webm")
SIDECARS = (".civitai.info", ".json")
OWN = ".mova.json"
BLOCK = 2**20
MAX_NOTES = 4000


@dataclass(frozen=True)
class Entry:
    """One LoRA of the library.

    Attributes:
        sha256: empty for a file that is too large to be one.
        fault: why it cannot be used; None where it can.
        tower: the user's answer to "which tower?", or None.
        needs_tower: neither file nor user says which tower it is for.
        weak: it cannot have an effect: one side of every pair is zero.
    """

    path: Path
    sha256: str
    size: int
    about: About
    notes: str = ""
    tower: str | None = None
    needs_tower: bool = False
    source: str = ""
    ranks: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()
    preview: Path | None = None
    fault: str | None = None
    weak: bool = False

    @property
    def name(self) -> str:
        return self.about.title or (self.path.parent.name if self.path.name == WEIGHTS else self.path.stem)


def default_folder() -> Path:
    """Where LoRAs live unless the user chose another place; MOVA_LORAS names one."""
    chosen = os.environ.get("MOVA_LORAS")
    return Path(chosen).expanduser() if chosen else data_folder() / "loras"


class Library:
    """A folder of LoRAs. Made where it is not there."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the LoRA folder {self.folder} cannot be made: {error.strerror}") from error
        self._lock = FileLock(self.folder / LOCK)

    def entries(self, progress: Callable[[int, int], None] | None = None) -> list[Entry]:
        """Every LoRA, sorted by name; files that cannot be used are among them, with the reason.

        Args:
            progress: called with (done, all).
        """
        with self._lock:
            index, found = self._read_index(), sorted(self.folder.rglob("*.safetensors"))
            hidden = [any(part.startswith(".") for part in p.relative_to(self.folder).parts) for p in found]
            # a pipe of that name would block whoever opens it
            paths = [p for p, hide in zip(found, hidden, strict=True) if not hide and p.is_file()]
            kept, entries = {}, []
            for done, path in enumerate(paths, 1):
                name = path.relative_to(self.folder).as_posix()
                try:
                    kept[name] = self._facts(path, index.get(name))
                except OSError as error:  # gone or unreadable since it was listed
                    log.warning("%s: %s", path.name, error.strerror)
                    continue
                entries.append(_entry(path, kept[name]))
                if progress:
                    progress(done, len(paths))
            if kept != index:
                self._write_index(kept)
        return sorted(entries, key=lambda e: e.name.lower())

    def find(self, wanted: str) -> Entry:
        """By SHA-256 (8 or more digits of it), file name, name without ending, or title.

        Raises:
            LoraError: there is none, or several; the message names what there is.
        """
        entries = self.entries()
        if re.fullmatch(r"[0-9a-f]{8,64}", wanted.lower()):
            by_hash = [e for e in entries if e.sha256.startswith(wanted.lower())]
            if by_hash:
                return by_hash[0]
        for same in (
            lambda e: e.path.relative_to(self.folder).as_posix() == wanted,
            lambda e: wanted in (e.path.name, e.path.stem, e.name, e.path.parent.name * (e.path.name == WEIGHTS)),
        ):
            matching = [e for e in entries if same(e)]
            if len({e.sha256 for e in matching}) == 1:
                return matching[0]
            if matching:
                several = ", ".join(e.path.relative_to(self.folder).as_posix() for e in matching[:4])
                raise LoraError(f"several LoRAs are called {wanted!r}: {several}")
        there = ", ".join(e.path.stem for e in entries[:8]) or "none"
        raise LoraError(f"no LoRA {wanted[:120]!r} in {self.folder}; there: {there}")

    def add(self, source: str | Path, preview: Path | None = None) -> Entry:
        """Copies a file into the library after checking all of it; one that is there already is not copied.

        Args:
            preview: a picture or clip (png, jpg, webp, mp4, webm) that is copied beside it.

        Raises:
            LoraError: it cannot be used. OutputError: it cannot be copied.
        """
        source = Path(source)
        file = read_lora(source)
        check_finite(file.header)
        digest = file_hash(file.header.path)
        for entry in self.entries():
            if entry.sha256 == digest:
                return entry
        settings = file.header.path.with_name("adapter_config.json")
        if file.header.path.name == WEIGHTS and settings.is_file():  # its alphas stand beside it
            folder = self._free(safe_name(file.name), "")
            folder.mkdir()
            shutil.copyfile(settings, folder / settings.name)
            target = folder / WEIGHTS
        else:
            target = self._free(safe_name(file.header.path.stem), ".safetensors")
        with atomic_file(target) as part:
            shutil.copyfile(file.header.path, part)
            if file_hash(part) != digest:
                raise LoraError(f"{source.name} changed while it was copied; add it again")
        if preview is not None:
            self._copy_preview(preview, target)
        return self.find(digest)

    @staticmethod
    def _copy_preview(preview: Path, target: Path) -> None:
        ending = preview.suffix.lower()
        if ending not in PREVIEWS:
            raise LoraError(f"preview {preview.name} is not a png, jpg, webp, mp4 or webm file")
        with atomic_file(target.with_name(target.stem + ending)) as part:
            shutil.copyfile(preview, part)

    def edit(self, sha256: str, **changes: Any) -> Entry:
        """Writes the user's words: title, base_model, triggers, author, licence, description, notes, tower.

        Raises:
            LoraError: no such LoRA, or a field that cannot be edited.
        """
        entry = self.find(sha256)
        side = entry.path.with_name(entry.path.stem + OWN)
        value = read_small_json(side)
        for field, given in changes.items():
            if field == "tower":
                if given is not None and given not in TOWERS:
                    raise LoraError(f"tower {given!r} is not one of {', '.join(TOWERS)}")
                value[field] = given
            elif field == "triggers":
                value[field] = [w for text in given if (w := clean(text))]
            elif field == "notes":
                value[field] = str(given)[:MAX_NOTES]
            elif field in About.__dataclass_fields__:
                value[field] = clean(given)
            else:
                raise LoraError(f"{field!r} cannot be edited")
        with atomic_file(side) as part:
            part.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
        return self.find(entry.sha256)

    def remove(self, sha256: str) -> None:
        """Deletes a LoRA and what stands beside it under its name."""
        entry = self.find(sha256)
        for ending in ("", OWN, *PREVIEWS, *SIDECARS):
            place = entry.path.with_name(entry.path.stem + ending) if ending else entry.path
            place.unlink(missing_ok=True)

    def _free(self, stem: str, ending: str) -> Path:
        target, n = self.folder / f"{stem}{ending}", 1
        while target.exists():
            n += 1
            target = self.folder / f"{stem}-{n}{ending}"
        return target

    def _facts(self, path: Path, known: Any) -> dict[str, Any]:
        """Hash and judgement of a file's values; taken again only where the file changed."""
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        if isinstance(known, dict) and known.get("stamp") == stamp:
            return known
        fault, weak = None, False
        try:
            file = read_lora(path)
            zero = check_finite(file.header)
            weak = not file.deltas and all(p.down in zero or p.up in zero for p in file.pairs)
        except LoraError as error:
            fault = str(error)
        digest = file_hash(path) if status.st_size <= MAX_FILE else ""  # hashing more would take minutes
        return {"stamp": stamp, "sha256": digest, "fault": fault, "weak": weak}

    def _read_index(self) -> dict[str, Any]:
        try:
            value = json.loads((self.folder / INDEX).read_bytes())
        except (OSError, ValueError, RecursionError):  # it can be made again
            return {}
        good = {"stamp", "sha256", "fault", "weak"}
        if not isinstance(value, dict):
            return {}
        return {k: v for k, v in value.items() if isinstance(v, dict) and v.keys() == good}

    def _write_index(self, index: dict[str, Any]) -> None:
        with atomic_file(self.folder / INDEX) as part:
            part.write_text(json.dumps(index), encoding="utf-8")


def _entry(path: Path, facts: dict[str, Any]) -> Entry:
    fault = facts["fault"]
    file: LoraFile | None = None
    if fault is None:
        try:
            file = read_lora(path)
        except LoraError as error:
            fault = str(error)
    own = read_small_json(path.with_name(path.stem + OWN))
    about = _own_words(own)
    for ending in SIDECARS:
        about = about.over(from_sidecar(path.with_name(path.stem + ending)))
    if file is not None:
        about = about.over(from_metadata(file.header.metadata))
    tower = own.get("tower") if own.get("tower") in TOWERS else None
    previews = (path.with_name(path.stem + ending) for ending in PREVIEWS)
    return Entry(
        path=path,
        sha256=facts["sha256"],
        size=facts["stamp"][0],
        about=about,
        notes=str(own.get("notes", ""))[:MAX_NOTES],
        tower=tower,
        needs_tower=file is not None and None in file.parts and file.hint is None and tower is None,
        source=file.source if file else "",
        ranks=file.ranks if file else (),
        parts=tuple(sorted(p for p in file.parts if p)) if file else (),
        preview=next((p for p in previews if p.is_file()), None),
        fault=fault,
        weak=facts["weak"],
    )


def _own_words(own: dict[str, Any]) -> About:
    texts = {k: clean(own.get(k, "")) for k in About.__dataclass_fields__ if k != "triggers"}
    triggers = own.get("triggers")
    words = tuple(w for t in triggers if (w := clean(t))) if isinstance(triggers, list) else ()
    return About(**texts, triggers=words)


def describe(entry: Entry) -> dict[str, Any]:
    """An entry as JSON."""
    value = asdict(entry) | {"name": entry.name, "path": str(entry.path)}
    return value | {"preview": str(entry.preview) if entry.preview else None}


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def safe_name(stem: str) -> str:
    """A file name that every system accepts."""
    name = re.sub(r"[^\w.-]+", "-", stem).strip(".-")[:100]
    return name or "lora"

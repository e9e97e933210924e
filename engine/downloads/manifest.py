"""What is known of a model on this machine: its manifest, and plans for the ones to come."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.downloads.catalogue import Entry
from engine.downloads.hub import HubFile
from engine.downloads.partial import missing

PLAN = "plan.json"  # the same, of a download on its way


class Listed(BaseModel):
    """A file of a manifest."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    path: str
    size: int
    sha256: str = ""
    blob: str = ""

    def file(self) -> HubFile:
        return HubFile(self.path, self.size, self.sha256, self.blob)


class Manifest(BaseModel):
    """What a model folder must hold. `origin` is "hub" where the hashes are the hub's own, "folder" where ours."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    format: int = 1
    name: str
    repository: str = ""
    commit: str = ""
    licence: str = ""
    kind: str = "mova"
    origin: str = "hub"
    verified: float = 0.0
    files: tuple[Listed, ...] = ()

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Installed:
    """A model that is there.

    Attributes:
        ours: whether removing it deletes its files; a folder that was only pointed at is forgotten instead.
        manifest: None for a folder that somebody copied here; it can be used, and not verified.
    """

    name: str
    folder: Path
    ours: bool
    manifest: Manifest | None

    @property
    def size(self) -> int:
        return (
            self.manifest.size
            if self.manifest
            else sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())
        )


@dataclass(frozen=True)
class Unfinished:
    """A download that was begun: bytes that are there, bytes in all."""

    name: str
    folder: Path
    done: int
    size: int


@dataclass(frozen=True)
class Plan:
    """What getting a model would mean. Sizes in bytes."""

    entry: Entry
    commit: str
    files: tuple[HubFile, ...]
    folder: Path
    present: int  # here already: shared with another model, or from an earlier run
    free: int

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def to_fetch(self) -> int:
        return self.size - self.present


def manifest_of(plan: Plan) -> Manifest:
    files = tuple(Listed(path=f.path, size=f.size, sha256=f.sha256, blob=f.blob) for f in plan.files)
    entry = plan.entry
    return Manifest(
        name=entry.name,
        repository=entry.repository,
        commit=plan.commit,
        licence=entry.licence,
        kind=entry.kind,
        files=files,
    )


def read_manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_manifest(path: Path, manifest: Manifest) -> None:
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(json.dumps(manifest.model_dump(), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def is_there(path: Path, file: HubFile) -> bool:
    try:
        return path.stat().st_size == file.size
    except OSError:
        return False


def arrived(incoming: Path, file: HubFile) -> int:
    """Bytes of a file that are there, by its name or by its log."""
    if is_there(incoming / file.path, file):
        return file.size
    try:
        lines = (incoming / f"{file.path}.part.log").read_text(encoding="ascii").split("\n")[1:-1]
        have = sorted((int(a), int(b)) for a, b in (line.split(" ") for line in lines))
    except (OSError, ValueError):
        return 0
    return file.size - sum(b - a for a, b in missing(have, file.size))

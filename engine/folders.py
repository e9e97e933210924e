"""Where things live on this machine, and where a model's name leads."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from engine.errors import CheckpointError

APP = "mova-studio"
BUNDLED_MODELS = Path(__file__).resolve().parents[1] / "assets" / "models"
DEFAULT_MODEL = "demo"
MODEL_INDEX = "model_index.json"
MANIFEST = "manifest.json"  # what a model that came through the model manager must hold
DAMAGED = "damaged"  # lies in a model's folder from the moment damage is found until it is repaired


def data_folder() -> Path:
    """The user's results, settings and models."""
    return user_data_path(APP, appauthor=False)


def cache_folder() -> Path:
    """What can be made again."""
    return user_cache_path(APP, appauthor=False)


@dataclass(frozen=True)
class Places:
    """Where models are, besides the bundled ones.

    Attributes:
        folder: where new models go.
        elsewhere: models outside `folder`, by name.
        used: folders that were once used for models, and may hold unfinished downloads.
    """

    @dataclass(frozen=True)
    class Place:
        """A model's folder, and whether the model manager made it (or only points at it)."""

        path: Path
        ours: bool

    folder: Path
    elsewhere: dict[str, Place] = field(default_factory=dict)
    used: tuple[Path, ...] = ()


def read_places(data: Path) -> Places:
    """From DATA/models.json; what cannot be understood there counts as not said."""
    try:
        said = json.loads((data / "models.json").read_text(encoding="utf-8"))
        elsewhere = {str(n): Places.Place(Path(p["path"]), bool(p["ours"])) for n, p in said["elsewhere"].items()}
        return Places(Path(said["folder"]), elsewhere, tuple(map(Path, said["used"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Places(data / "models")


def write_places(data: Path, places: Places) -> None:
    """Writes DATA/models.json, whole or not at all."""
    said = {
        "folder": str(places.folder),
        "elsewhere": {n: {"path": str(p.path), "ours": p.ours} for n, p in places.elsewhere.items()},
        "used": [str(path) for path in dict.fromkeys(places.used)],
    }
    data.mkdir(parents=True, exist_ok=True)
    fresh = data / f"models.json.{os.getpid()}"
    fresh.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, data / "models.json")


def model_folders(data: Path | None = None) -> dict[str, Path]:
    """Every installed model by name; the user's own come before the bundled one of the same name."""
    found: dict[str, Path] = {}
    places = read_places(data or data_folder())
    for place in (BUNDLED_MODELS, places.folder):
        if place.is_dir():
            found |= {p.name: p for p in sorted(place.iterdir()) if (p / MODEL_INDEX).is_file()}
    return found | {n: p.path for n, p in places.elsewhere.items() if (p.path / MODEL_INDEX).is_file()}


def find_model(name: str | None) -> Path:
    """The folder of a model given by name or by path; None is the bundled model.

    Raises:
        CheckpointError: there is none; the message names what there is. Or it is known to be damaged.
    """
    known = model_folders()
    wanted = name or DEFAULT_MODEL
    if wanted in known:
        if fault := fault_of(known[wanted]):
            raise CheckpointError(f"{wanted}: {fault}; python launch.py models verify {wanted} --repair")
        return known[wanted]
    if name and Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    there = f"installed: {', '.join(known)}" if known else "none is installed"
    raise CheckpointError(f"no model {wanted!r}; {there}. Give --model a folder in the released MOVA layout")


def fault_of(folder: Path) -> str:
    """Why a model must not be loaded, "" where nothing is known against it. Looks at sizes, reads no content."""
    if (folder / DAMAGED).exists():
        return "was found to be damaged and is not repaired yet"
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        wanted = {str(file["path"]): int(file["size"]) for file in files}
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # somebody copied it here; opening it is strict anyway
    for path, size in wanted.items():
        try:
            if (folder / path).stat().st_size == size:
                continue
        except OSError:
            pass
        return f"{path} is missing or cut short"
    return ""

"""Where things live on this machine, and where a model's name leads."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from engine.errors import CheckpointError

APP = "mova-studio"
BUNDLED_MODELS = Path(__file__).resolve().parents[1] / "assets" / "models"
DEFAULT_MODEL = "demo"


def data_folder() -> Path:
    """The user's results, settings and models."""
    return user_data_path(APP, appauthor=False)


def cache_folder() -> Path:
    """What can be made again."""
    return user_cache_path(APP, appauthor=False)


def model_folders() -> dict[str, Path]:
    """Every installed model by name; the user's own come before the bundled one of the same name."""
    found: dict[str, Path] = {}
    for place in (BUNDLED_MODELS, data_folder() / "models"):
        if place.is_dir():
            found |= {p.name: p for p in sorted(place.iterdir()) if (p / "model_index.json").is_file()}
    return found


def find_model(name: str | None) -> Path:
    """The folder of a model given by name or by path; None is the bundled model.

    Raises:
        CheckpointError: there is none; the message names what there is.
    """
    known = model_folders()
    wanted = name or DEFAULT_MODEL
    if wanted in known:
        return known[wanted]
    if name and Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    there = f"installed: {', '.join(known)}" if known else "none is installed"
    raise CheckpointError(f"no model {wanted!r}; {there}. Give --model a folder in the released MOVA layout")

"""The models the enhancer knows: the bundled one, the recommended ones, and any GGUF file of the user's."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from prompt_enhancer.request import RULES, ModelError

APP = "mova-studio"
BUNDLED_NAME = "demo"
BUNDLED_FILE = Path(__file__).resolve().parents[1] / "assets" / "enhancer" / "demo-enhancer.gguf"


@dataclass(frozen=True)
class Known:
    """A model that can be named.

    Attributes:
        name: for --model and the page. file: its file name in the models folder.
        size: bytes, about; licence: its short name; page: where it is described and downloaded.
        sha256: of the file; empty where it is not known here.
        vision: file name of its picture projector; empty for a text model.
        narrow: knows the bundled video model's world only, and English only.
    """

    name: str
    file: str
    size: int
    licence: str
    page: str = ""
    sha256: str = ""
    vision: str = ""
    narrow: bool = False


BUNDLED = Known(BUNDLED_NAME, BUNDLED_FILE.name, 4_900_000, "Apache-2.0", narrow=True)
RECOMMENDED: tuple[Known, ...] = (
    Known(
        "qwen3-1.7b",
        "Qwen3-1.7B-Q8_0.gguf",
        1_834_000_000,
        "Apache-2.0",
        page="huggingface.co/Qwen/Qwen3-1.7B-GGUF",
    ),
    Known(
        "qwen3-4b",
        "Qwen3-4B-Q4_K_M.gguf",
        2_497_000_000,
        "Apache-2.0",
        page="huggingface.co/Qwen/Qwen3-4B-GGUF",
    ),
)


def models_folder() -> Path:
    """Where the user's language models lie: any .gguf file there can be chosen."""
    return user_data_path(APP, appauthor=False) / "enhancer"


def cache_folder() -> Path:
    """Descriptions of pictures, which can be made again."""
    return user_cache_path(APP, appauthor=False) / "enhancer"


@dataclass(frozen=True)
class Chosen:
    """A model that is there: its name, its file, and whether it knows a narrow world only."""

    name: str
    path: Path
    narrow: bool


def installed() -> dict[str, Chosen]:
    """Every model that is there, by name."""
    found: dict[str, Chosen] = {}
    if BUNDLED_FILE.is_file():
        found[BUNDLED_NAME] = Chosen(BUNDLED_NAME, BUNDLED_FILE, True)
    folder = models_folder()
    names = {one.file: one.name for one in RECOMMENDED}
    if folder.is_dir():
        for path in sorted(folder.glob("*.gguf")):
            name = names.get(path.name, path.stem)
            found[name] = Chosen(name, path, False)
    return found


def choose(name: str | None) -> Chosen | None:
    """The model of this name or path; None for "rules", and where nothing is asked and no bundled model is there.

    Raises:
        ModelError: there is none of this name; the message names the nearest and those that are there.
    """
    if name == RULES:
        return None
    there = installed()
    if name is None:
        return there.get(BUNDLED_NAME)
    wanted = name
    if wanted in there:
        return there[wanted]
    path = Path(wanted).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        return Chosen(path.stem, path.resolve(), path.resolve() == BUNDLED_FILE)
    known = next((one for one in RECOMMENDED if one.name == wanted), None)
    if known:
        raise ModelError(
            f"{known.name} is not installed: put {known.file} ({known.size / 1e9:.1f} GB, {known.licence}, from "
            f"{known.page}) into {models_folder()}"
        )
    near = difflib.get_close_matches(wanted, [*there, RULES, *(one.name for one in RECOMMENDED)], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ModelError(f"no language model {wanted!r}; {hint}installed: {', '.join([*there, RULES])}, or a .gguf file")

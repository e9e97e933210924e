"""The models the enhancer knows: the bundled one, the recommended ones, and any GGUF file of the user's."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

from prompt_enhancer.request import OFF, RULES, ModelError

APP = "mova-studio"
BUNDLED_NAME = "demo"
BUNDLED_FILE = Path(__file__).resolve().parents[1] / "assets" / "enhancer" / "demo-enhancer.gguf"


@dataclass(frozen=True)
class File:
    """One file to download: its name, its bytes, the sha256 it must have."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Known:
    """A model that can be named.

    Attributes:
        name: for --model and the page. licence: its short name.
        model: the file that writes. projector: for a vision model, the file that sees.
        repository: "owner/name" on the hub. revision: the commit that these files are of.
        narrow: knows the bundled video model's world only, and English only.
    """

    name: str
    licence: str
    model: File
    projector: File | None = None
    repository: str = ""
    revision: str = ""
    narrow: bool = False

    @property
    def file(self) -> str:
        return self.model.name

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return self.model.size + (self.projector.size if self.projector else 0)

    @property
    def page(self) -> str:
        return f"huggingface.co/{self.repository}" if self.repository else ""

    @property
    def files(self) -> tuple[File, ...]:
        return (self.model, self.projector) if self.projector else (self.model,)


BUNDLED = Known(
    BUNDLED_NAME,
    "Apache-2.0",
    File(BUNDLED_FILE.name, 4_853_472, "5af78a8578384574ee6c9430e5e8afe21a0ff5371944a267a9326c09bc037238"),
    narrow=True,
)
RECOMMENDED: tuple[Known, ...] = (
    Known(
        "qwen3-1.7b",
        "Apache-2.0",
        File(
            "Qwen3-1.7B-Q8_0.gguf",
            1_834_426_016,
            "061b54daade076b5d3362dac252678d17da8c68f07560be70818cace6590cb1a",
        ),
        repository="Qwen/Qwen3-1.7B-GGUF",
        revision="90862c4b9d2787eaed51d12237eafdfe7c5f6077",
    ),
    Known(
        "qwen3-4b",
        "Apache-2.0",
        File(
            "Qwen3-4B-Q4_K_M.gguf",
            2_497_280_256,
            "7485fe6f11af29433bc51cab58009521f205840f5b4ae3a32fa7f92e8534fdf5",
        ),
        repository="Qwen/Qwen3-4B-GGUF",
        revision="bc640142c66e1fdd12af0bd68f40445458f3869b",
    ),
    Known(
        "qwen3-vl-2b",
        "Apache-2.0",
        File(
            "Qwen3VL-2B-Instruct-Q4_K_M.gguf",
            1_107_409_952,
            "089d75c52f4b7ffc56ba998ffc50aae89fcafc755f9e7208aacca281dca6c2ae",
        ),
        projector=File(
            "mmproj-Qwen3VL-2B-Instruct-Q8_0.gguf",
            445_053_216,
            "f9a68fabba69c3b81e153367b2c7521030b0fa8bb0de400c9599c8e6725f9c82",
        ),
        repository="Qwen/Qwen3-VL-2B-Instruct-GGUF",
        revision="52d6c8ffea26cc873ac5ad116f8631268d7eb503",
    ),
)
PROJECTORS = "mmproj"  # how their files' names begin


def models_folder() -> Path:
    """Where the user's language models lie: any .gguf file there can be chosen."""
    return user_data_path(APP, appauthor=False) / "enhancer"


def cache_folder() -> Path:
    """Descriptions of pictures, which can be made again."""
    return user_cache_path(APP, appauthor=False) / "enhancer"


@dataclass(frozen=True)
class Chosen:
    """A model that is there: its name, its file, whether it knows a narrow world only, and what it sees with."""

    name: str
    path: Path
    narrow: bool
    projector: Path | None = None


def installed() -> dict[str, Chosen]:
    """Every model that is there, by name: the bundled one, and all in the models folder and the folders in it."""
    found: dict[str, Chosen] = {}
    if BUNDLED_FILE.is_file():
        found[BUNDLED_NAME] = Chosen(BUNDLED_NAME, BUNDLED_FILE, True)
    folder = models_folder()
    names = {one.file: one.name for one in RECOMMENDED}
    if folder.is_dir():
        for path in sorted([*folder.glob("*.gguf"), *folder.glob("*/*.gguf")]):
            if not path.name.lower().startswith(PROJECTORS):
                name = names.get(path.name, path.stem)
                found.setdefault(name, Chosen(name, path, False, projector_of(path)))
    return found


def projector_of(path: Path) -> Path | None:
    """The projector that lies beside a model's file and has its name, quantization apart."""
    stem = path.stem.lower().rpartition("-")[0] or path.stem.lower()
    for other in sorted(path.parent.glob("*.gguf")):
        if other.name.lower().startswith(PROJECTORS) and stem in other.stem.lower():
            return other
    return None


def own_file(text: str) -> Chosen:
    """The language model in a file anywhere on this machine. Only a look at its name and first bytes.

    Raises:
        ModelError: there is none; the message says what would be one.
    """
    path = Path(text.strip().strip("\"'")).expanduser()
    if path.suffix.lower() != ".gguf":
        raise ModelError(f"{path.name[:80]!r} does not end in .gguf; name the file of a language model")
    if not path.is_absolute():
        raise ModelError(f"{text[:80]!r} is not a whole path; write it from the root or the drive on")
    if path.name.lower().startswith(PROJECTORS):
        raise ModelError(f"{path.name} is what a model sees with; name the model's own file beside it")
    try:
        with path.open("rb") as opened:
            if opened.read(4) != b"GGUF":
                raise ModelError(f"{path.name} is not a GGUF file, whatever its name says")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    path = path.resolve()
    return Chosen(path.stem, path, path == BUNDLED_FILE, projector_of(path))


def choose(name: str | None) -> Chosen | None:
    """The model of this name or path; None for "rules", and where nothing is asked and no bundled model is there.

    Raises:
        ModelError: there is none of this name; the message names the nearest and those that are there.
    """
    if name == RULES:
        return None
    if name is None:
        return installed().get(BUNDLED_NAME)
    return _named(name, RULES)


def choose_vision(name: str | None, writer: Chosen | None = None) -> Chosen | None:
    """The vision model of this name or path; None for "off".

    Where nothing is asked it is the writer, if that can see, so that one model is loaded and not two; else the first
    of those installed.

    Raises:
        ModelError: there is none of this name, or it has no projector.
    """
    if name == OFF:
        return None
    if name is None:
        return next((one for one in (writer, *installed().values()) if one and one.projector), None)
    found = _named(name, OFF)
    if found.projector is None:
        raise ModelError(f"{found.name} cannot see: no {PROJECTORS}-*.gguf of its name lies beside {found.path.name}")
    return found


def _named(wanted: str, other: str) -> Chosen:
    there = installed()
    if wanted in there:
        return there[wanted]
    path = Path(wanted).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        path = path.resolve()
        return Chosen(path.stem, path, path == BUNDLED_FILE, projector_of(path))
    known = next((one for one in RECOMMENDED if one.name == wanted), None)
    if known:
        files = " and ".join(file.name for file in known.files)
        raise ModelError(
            f"{known.name} is not installed: put {files} ({known.size / 1e9:.1f} GB, {known.licence}, from "
            f"{known.page}) into {models_folder()}"
        )
    near = difflib.get_close_matches(wanted, [*there, other, *(one.name for one in RECOMMENDED)], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ModelError(f"no language model {wanted!r}; {hint}installed: {', '.join([*there, other])}, or a .gguf file")


def damage(known: Known, folder: Path | None = None) -> str:
    """What is wrong with a known model's files; empty where every byte is as it should be. Reads them whole."""
    for file in known.files:
        path = BUNDLED_FILE if known is BUNDLED else (folder or models_folder()) / file.name
        try:
            size = path.stat().st_size
            if size != file.size:
                return f"{path.name} has {size} bytes instead of {file.size}: download it again"
            with path.open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                    return f"{path.name} is not the file it should be: download it again"
        except OSError as error:
            return f"{path.name} cannot be read: {error.strerror}"
    return ""

"""A folder of videos with captions, made into pieces of the model's length.

A caption stands in a .txt file beside its video, or in metadata.jsonl / metadata.csv in the folder (columns file_name,
file or video, and text, caption or prompt). A video that cannot be used is left out, with the reason. Longer videos are
cut into several pieces from their beginning. No torch here: the page looks through folders, too.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from engine.errors import MediaError, RequestError
from engine.lora.library import file_hash
from engine.media import MediaInfo, fit_image, probe, read_clip
from engine.profile import read_profile, read_rules
from engine.request import ClipRequest

VIDEOS = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".gif")
FILE_NAMES, TEXT_NAMES = ("file_name", "file", "video", "path"), ("text", "caption", "prompt")
MAX_SECONDS = 600.0
MAX_CAPTION = 20_000  # characters
MAX_TABLE = 64 * 2**20  # bytes of metadata.jsonl or .csv
MAX_PIECES = 16  # of one video
SLACK = 0.6  # frames that a video may be short of the length, since containers round


@dataclass(frozen=True)
class Format:
    """What the model takes: pixels, frames a second, frames."""

    width: int
    height: int
    fps: float
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


def format_of(model: Path, size: tuple[int, int] | None = None, frames: int | None = None) -> Format:
    """What a model folder's training takes; its own size and length where none are given.

    Raises:
        RequestError: a value is not valid for the model; the message names the nearest that is.
    """
    profile = read_profile(model)
    width, height = size or profile.sizes[0]
    asked = ClipRequest("", width, height, frames or profile.frames, profile.fps).checked(read_rules(model))
    return Format(asked.width, asked.height, asked.fps, asked.frames)


@dataclass(frozen=True)
class Piece:
    """One stretch of one video. Attributes: digest of the file; start in seconds; sound, whether it has any."""

    path: Path
    digest: str
    start: float
    caption: str
    sound: bool


@dataclass(frozen=True)
class ClipSet:
    """What a folder gives. Attributes: left_out, (file name, why) each; notes, a line each."""

    pieces: tuple[Piece, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of everything that training sees; the same for the same files and captions in any folder."""
        lines = sorted(f"{p.digest} {p.start:.3f} {p.caption}" for p in self.pieces)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def scan(folder: str | Path, form: Format, trigger: str = "") -> ClipSet:
    """Looks at every video of a folder (not below it).

    Args:
        trigger: put in front of captions that do not hold it.

    Raises:
        RequestError: no such folder, or nothing in it can be used; the message says why.
    """
    found = look(folder, form, trigger)
    if not found.pieces:
        why = "; ".join(f"{name}: {reason}" for name, reason in found.left_out[:3])
        why = why or f"no file of {', '.join(VIDEOS)}"
        raise RequestError(f"no clip of {Path(folder).expanduser().name} can be used: {why}")
    return found


def look(folder: str | Path, form: Format, trigger: str = "") -> ClipSet:
    """As `scan`, but a folder without anything to use is no error."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise RequestError(f"folder {str(folder)!r} does not exist")
    captions = _table(folder)
    videos = sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEOS and p.is_file())
    pieces: list[Piece] = []
    left_out: list[tuple[str, str]] = [
        (name, "named in the table, but not in the folder") for name in captions if not (folder / name).is_file()
    ]
    notes = []
    for path in videos:
        text = _caption(path, captions)
        if text is None:
            left_out.append((path.name, f"no caption; write {path.stem}.txt beside it"))
            continue
        try:
            info = _probed(path, *_stamp(path))
            found = _pieces(path, info.seconds, bool(info.sample_rate), with_trigger(text, trigger), form)
        except MediaError as error:
            left_out.append((path.name, str(error)))
            continue
        if not info.sample_rate:
            notes.append(f"{path.name} has no sound; only its picture is learned")
        if len(found) == MAX_PIECES:
            notes.append(f"{path.name}: only its first {MAX_PIECES * form.seconds:.0f} s are used")
        pieces += found
    return ClipSet(tuple(pieces), tuple(left_out), tuple(notes))


@lru_cache(maxsize=1024)
def _probed(path: Path, changed: int, size: int) -> MediaInfo:
    return probe(path)


@lru_cache(maxsize=1024)
def _hashed(path: Path, changed: int, size: int) -> str:
    return file_hash(path)


def _stamp(path: Path) -> tuple[int, int]:
    """Changes with the file."""
    try:
        found = path.stat()
    except OSError as error:
        raise MediaError(f"{path.name} cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size


def with_trigger(text: str, trigger: str) -> str:
    """The caption, the trigger word in front where it does not hold it."""
    return text if not trigger or trigger.lower() in text.lower() else f"{trigger}, {text}".rstrip(", ")


def _pieces(path: Path, seconds: float, sound: bool, caption: str, form: Format) -> list[Piece]:
    if seconds > MAX_SECONDS:
        raise MediaError(f"lasts {seconds:.0f} s, more than {MAX_SECONDS:.0f} s; cut it first")
    count = min(MAX_PIECES, int((seconds + SLACK / form.fps) / form.seconds))
    if count == 0:
        raise MediaError(f"lasts {seconds:.2f} s; the model's clips last {form.seconds:.2f} s")
    digest = _hashed(path, *_stamp(path))
    return [Piece(path, digest, i * form.seconds, caption, sound) for i in range(count)]


def _caption(path: Path, captions: dict[str, str]) -> str | None:
    beside = path.with_suffix(".txt")
    if beside.is_file():
        try:
            text = beside.read_text(encoding="utf-8-sig", errors="replace")[:MAX_CAPTION]
        except OSError as error:
            raise RequestError(f"{beside.name} cannot be read: {error.strerror}") from error
    else:
        text = captions.get(path.name, "")
    return " ".join(text.split()) or None


def _table(folder: Path) -> dict[str, str]:
    """File name -> caption, from metadata.jsonl or metadata.csv where one is there."""
    for name in ("metadata.jsonl", "metadata.csv"):
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > MAX_TABLE:
            raise RequestError(f"{name} is over {MAX_TABLE // 2**20} MiB")
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        rows = _json_rows(text, name) if name.endswith("jsonl") else list(csv.DictReader(io.StringIO(text)))
        return dict(_entry(row, f"{name}, line {n}") for n, row in enumerate(rows, 1))
    return {}


def _json_rows(text: str, name: str) -> list[dict[str, str]]:
    rows = []
    for n, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{name}, line {n} is not JSON") from error
        if not isinstance(row, dict):
            raise RequestError(f"{name}, line {n} is not a JSON object")
        rows.append(row)
    return rows


def _entry(row: dict[str, str], where: str) -> tuple[str, str]:
    file = next((str(row[k]) for k in FILE_NAMES if row.get(k)), None)
    text = next((str(row[k]) for k in TEXT_NAMES if row.get(k)), "")
    if file is None:
        raise RequestError(f"{where}: there is no file_name")
    if Path(file).name != file:
        raise RequestError(f"{where}: {file[:80]!r} is not the name of a file in the folder itself")
    return file, text[:MAX_CAPTION]


def load(piece: Piece, form: Format) -> tuple[np.ndarray, np.ndarray, int]:
    """A piece as the model takes it.

    Returns:
        Frames (frames, height, width, 3) uint8, resized and centre-cropped; samples (n,) float32, mono, silence where
        there is none; their rate in Hz.

    Raises:
        MediaError: it cannot be read.
    """
    clip = read_clip(piece.path, max_seconds=MAX_SECONDS)
    times = piece.start + np.arange(form.frames) / form.fps
    which = np.clip(np.floor(times * clip.fps + 0.5).astype(int), 0, len(clip.frames) - 1)
    fitted = [np.asarray(fit_image(Image.fromarray(clip.frames[i]), form.width, form.height)) for i in which]
    rate = clip.sample_rate or 16_000
    count = round(form.seconds * rate)
    wave = clip.samples.mean(1) if clip.samples.ndim == 2 else clip.samples
    begin = round(piece.start * rate)
    wave = wave[begin : begin + count].astype(np.float32)
    return np.stack(fitted), np.pad(wave, (0, count - len(wave))), rate

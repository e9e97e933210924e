"""What makers say of a LoRA: name, trigger words, licence. From its metadata, or from a file beside it.

Everything here is foreign text: it is cut to a length, freed of control characters, and only ever shown.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

MAX_TEXT = 2000  # characters
MAX_SIDECAR = 2**20  # bytes
MAX_TRIGGERS = 16
MAX_JSON_TEXT = 2**22  # characters of JSON within a metadata text


@dataclass(frozen=True)
class About:
    """Facts for the user; empty where the maker says nothing."""

    title: str = ""
    base_model: str = ""
    triggers: tuple[str, ...] = ()
    author: str = ""
    licence: str = ""
    description: str = ""

    def over(self, other: About) -> About:
        """These facts, with `other`'s where this one has none."""
        return About(*(getattr(self, f.name) or getattr(other, f.name) for f in fields(self)))


def from_metadata(metadata: Mapping[str, str]) -> About:
    """From a header: `modelspec.*`, `ss_*` of kohya's trainers, and our own."""

    def first(*names: str) -> str:
        return next((clean(metadata[n]) for n in names if clean(metadata.get(n, ""))), "")

    triggers: list[str] = []
    for name in ("modelspec.trigger_phrase", "mova.trigger", "trigger_word", "trigger_words", "ss_trigger_words"):
        triggers += _words(metadata.get(name, ""))
    return About(
        title=first("modelspec.title", "ss_output_name", "name"),
        base_model=first("mova.base_model", "ss_base_model_version", "modelspec.architecture", "base_model"),
        triggers=_unique(triggers or _common_tags(metadata.get("ss_tag_frequency", ""))),
        author=first("modelspec.author", "author"),
        licence=first("modelspec.license", "license"),
        description=first("modelspec.description", "ss_training_comment", "description"),
    )


def from_sidecar(path: Path) -> About:
    """From a JSON file as the download tools write it; one that cannot be read says nothing."""
    value = read_small_json(path)
    model = value.get("model")
    model = model if isinstance(model, dict) else {}
    triggers: list[str] = []
    for name in ("trainedWords", "activation text", "trigger", "triggers", "trigger_words"):
        found = value.get(name)
        for text in found if isinstance(found, list) else [found]:
            triggers += _words(text if isinstance(text, str) else "")
    return About(
        title=clean(model.get("name") or value.get("title") or value.get("name") or ""),
        base_model=clean(value.get("baseModel") or value.get("base_model") or ""),
        triggers=_unique(triggers),
        author=clean(value.get("author") or ""),
        licence=clean(value.get("license") or value.get("licence") or ""),
        description=clean(value.get("description") or model.get("description") or ""),
    )


def read_small_json(path: Path) -> dict[str, Any]:
    """A JSON object of at most a megabyte; anything else is empty."""
    try:
        if path.stat().st_size > MAX_SIDECAR:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def clean(text: Any) -> str:
    """One line of printable text, at most MAX_TEXT characters; also without signs that turn the reading direction."""
    if not isinstance(text, str):
        return ""
    kept = (c if unicodedata.category(c)[0] != "C" else " " for c in text[:MAX_TEXT])
    return " ".join("".join(kept).split())


def _words(text: str) -> list[str]:
    return [w for part in text[:MAX_TEXT].split(",") if (w := clean(part))]


def _unique(words: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(w[:120] for w in words))[:MAX_TRIGGERS]


def _common_tags(text: str) -> list[str]:
    """The tag that stands in nearly every caption of a training set: {"folder": {"tag": count}}."""
    if len(text) > MAX_JSON_TEXT:
        return []
    try:
        folders = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return []
    counts: Counter[str] = Counter()
    for tags in folders.values() if isinstance(folders, dict) else ():
        for tag, count in tags.items() if isinstance(tags, dict) else ():
            if isinstance(count, int) and not isinstance(count, bool) and 0 < count < 10**9:
                counts[clean(tag)] += count
    if not counts or len(counts) < 2:
        return [tag for tag in counts if tag]
    (tag, most), (_, second) = counts.most_common(2)
    return [tag] if tag and len(tag) <= 40 and most >= 2 * second else []

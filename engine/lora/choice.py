"""What a user chose: which LoRAs, how strongly, on or off; and whether a file fits a model. No torch here.

A choice names a LoRA by its hash, so that it is found again under any file name, and by the name it had, so that it can
be named when it is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import LoraError
from engine.lora.fit import TOWERS, Fit, KeyReport, fit, folder_shapes
from engine.lora.formats import read_lora
from engine.lora.keys import AUDIO, BRIDGE, HIGH, LOW
from engine.lora.library import Entry, Library

MAX_STRENGTH = 10.0
FITS, PARTLY, ASK, NO = "fits", "partly", "ask", "no"


@dataclass(frozen=True)
class Strengths:
    """How much of a LoRA is used. The bridge goes with the sound."""

    high: float = 1.0
    low: float = 1.0
    sound: float = 1.0

    def of(self, part: str) -> float:
        """The strength of one part of a model."""
        return {HIGH: self.high, LOW: self.low, AUDIO: self.sound, BRIDGE: self.sound}[part]

    def checked(self, name: str) -> Strengths:
        """Itself.

        Raises:
            LoraError: one lies outside -MAX_STRENGTH..MAX_STRENGTH.
        """
        for value in (self.high, self.low, self.sound):
            if not math.isfinite(value) or abs(value) > MAX_STRENGTH:
                nearest = 1.0 if math.isnan(value) else math.copysign(MAX_STRENGTH, value)
                raise LoraError(f"strength {value:g} of {name} is out of range; the nearest that is valid: {nearest:g}")
        return self


@dataclass(frozen=True)
class Choice:
    """One LoRA of a clip's settings.

    Attributes:
        sha256: of the file.
        name: as the user saw it.
        on: kept in the list, but without effect, where false.
        tower: the answer where neither the keys nor the file's name say which tower is meant.
    """

    sha256: str
    name: str = ""
    strengths: Strengths = Strengths()
    on: bool = True
    tower: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for settings that travel with a clip."""
        s = self.strengths
        value = {"sha256": self.sha256, "name": self.name, "high": s.high, "low": s.low, "sound": s.sound}
        return value | ({} if self.on else {"on": False}) | ({"tower": self.tower} if self.tower else {})

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Choice:
        """Back from `to_dict`, or from foreign JSON. A single "strength" stands for all three.

        Raises:
            LoraError: something is missing or out of range.
        """
        digest, name = str(value.get("sha256", "")).lower(), str(value.get("name", ""))[:200]
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise LoraError(f"LoRA {name[:80]!r} is given without the SHA-256 of its file")
        tower = value.get("tower")
        if tower is not None and tower not in TOWERS:
            raise LoraError(f"tower {str(tower)[:40]!r} is not one of {', '.join(TOWERS)}")
        given = [value.get(part, value.get("strength", 1.0)) for part in ("high", "low", "sound")]
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in given):
            raise LoraError(f"a strength of LoRA {name[:80]!r} is not a number")
        return cls(digest, name, Strengths(*map(float, given)).checked(name), bool(value.get("on", True)), tower)


@dataclass(frozen=True)
class Verdict:
    """How a LoRA goes with a model.

    Attributes:
        status: FITS, PARTLY (works; some keys have no place), ASK (the tower must be said first) or NO.
        text: one line for the user.
        report: what became of every key; empty for ASK and NO.
        warnings: a line each.
    """

    status: str
    text: str
    report: tuple[KeyReport, ...] = ()
    warnings: tuple[str, ...] = ()


def judge(entry: Entry, model: str | Path, tower: str | None = None) -> Verdict:
    """Whether a library entry can be used with the model in a folder; only headers are read."""
    if entry.fault is not None:
        return Verdict(NO, entry.fault)
    if entry.needs_tower and tower is None:
        return Verdict(ASK, "the file does not say which tower it is for: both, high, low or sound?")
    try:
        placed = fit(read_lora(entry.path), folder_shapes(model), tower or entry.tower)
    except LoraError as error:
        return Verdict(NO, str(error))
    warnings = (*placed.warnings, *(("it has no effect: all that it adds is zero",) if entry.weak else ()))
    whole = placed.count("applied") == len(placed.file.header.tensors) and not entry.weak
    return Verdict(FITS if whole else PARTLY, placed.summary(), placed.report, warnings)


def missing(choices: Iterable[Choice], library: Library) -> list[Choice]:
    """The choices whose file is not in the library (any more), or cannot be used."""
    there = {entry.sha256 for entry in library.entries() if entry.fault is None}
    return [choice for choice in choices if choice.sha256 not in there]


def triggers(choices: Iterable[Choice], library: Library) -> tuple[str, ...]:
    """The trigger words of the LoRAs that are on, each once, in their order: for the prompt and its enhancer."""
    known = {entry.sha256: entry.about.triggers for entry in library.entries()}
    words = (word for choice in choices if choice.on for word in known.get(choice.sha256, ()))
    return tuple(dict.fromkeys(words))


def place(choices: Sequence[Choice], library: Library, shapes: Any) -> list[tuple[Fit, Strengths]]:
    """The LoRAs that are on, placed in a model.

    Args:
        shapes: of the model's parameters by part, see `engine.lora.fit.folder_shapes` or `LoraStack.shapes`.

    Raises:
        LoraError: a file is missing, cannot be used or does not fit; the message names it.
    """
    known = {entry.sha256: entry for entry in library.entries()}
    placed = []
    for choice in choices:
        if not choice.on:
            continue
        entry = known.get(choice.sha256)
        if entry is None:
            raise LoraError(
                f"LoRA {choice.name or choice.sha256[:8]!r} (hash {choice.sha256[:8]}) is not in the library"
            )
        if entry.fault is not None:
            raise LoraError(entry.fault)
        tower = choice.tower or entry.tower
        placed.append((fit(read_lora(entry.path), shapes, tower), choice.strengths.checked(entry.name)))
    return placed

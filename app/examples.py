"""The example cards: a prompt and its first picture, from assets/examples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import RequestError

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "examples"


@dataclass(frozen=True)
class Example:
    """A card. Attributes: name, prompt, picture (the first frame's file), seed that was seen to work well."""

    name: str
    prompt: str
    picture: Path
    seed: int

    def view(self) -> dict[str, Any]:
        """What the page shows."""
        return {"name": self.name, "prompt": self.prompt, "image": f"/studio/examples/{self.name}"}


@cache
def examples() -> tuple[Example, ...]:
    """All cards, in the order of `examples.json`."""
    listed = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
    return tuple(Example(card["name"], card["prompt"], FOLDER / card["image"], card["seed"]) for card in listed)


def example(name: str) -> Example:
    """One card by name.

    Raises:
        RequestError: there is none.
    """
    for card in examples():
        if card.name == name:
            return card
    raise RequestError(f"there is no example {name!r}; choose one of {', '.join(card.name for card in examples())}")

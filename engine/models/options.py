"""Options that a config may name and that this engine has not built: refused when on, with their name."""

from __future__ import annotations

from typing import Any

from engine.errors import CheckpointError


def refuse_unbuilt(model: str, **options: Any) -> None:
    """Raises `CheckpointError` for the first option that is on.

    Args:
        model: the component's name, for the message.
        options: name -> value; anything truthy counts as on.
    """
    for name, value in options.items():
        if value:
            raise CheckpointError(f"{model}: option {name}={value!r} is not built; the released models have it off")


def require(model: str, condition: bool, message: str) -> None:
    """Raises `CheckpointError` with `message` where a config contradicts itself."""
    if not condition:
        raise CheckpointError(f"{model}: {message}")

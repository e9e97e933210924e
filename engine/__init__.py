"""Prompt and picture in, a clip whose sound belongs to its picture out.

`import engine` is cheap: torch and the networks load when `MovaPipeline` is first touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.pipeline import MovaOutput, MovaPipeline

__all__ = ["MovaOutput", "MovaPipeline"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from engine import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'engine' has no attribute {name!r}")

"""Gradio's number components for a form that judges its numbers itself.

Gradio's own refuse a number out of bounds with an error, and an empty box with an exception: both happen at every
other keystroke of someone who clears a box and writes a new number.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.quick_gradio import no_stubs

no_stubs()  # whoever imported Gradio: classes of components would get stub files beside this one


class TypedSlider(gr.Slider):
    """A slider whose event functions get what stands in its box: out of bounds, too; None where it is no number."""

    is_template = True  # drawn by Gradio's own slider

    def preprocess(self, payload: Any) -> float | None:  # type: ignore[override]
        return _typed(payload, self.precision)


class TypedNumber(gr.Number):
    """The same for a box alone."""

    is_template = True

    def preprocess(self, payload: Any) -> float | None:
        return _typed(payload, self.precision)


def _typed(payload: Any, precision: int | None) -> float | None:
    if isinstance(payload, bool) or not isinstance(payload, int | float):
        return None
    return gr.Number.round_to_precision(payload, precision)

"""The Library tab: every clip that was made, drawn by the page's own script from `channel`'s list."""

from __future__ import annotations

import gradio as gr

from app.tabs.parts import part


def build() -> gr.HTML:
    """Lays out the tab."""
    return part("library")

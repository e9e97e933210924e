"""The Log tab: the end of the studio's log, as it grows."""

from __future__ import annotations

import gradio as gr

from app.tabs.parts import part


def build(words: gr.I18n) -> tuple[gr.Column, gr.Markdown]:
    """Lays out the tab: what the owner sees, and what a guest sees instead."""
    with gr.Column(elem_classes="ownersonly") as inside:
        part("log", elem_id="logview")
    return inside, gr.Markdown(words("owner_only"), visible=False)

"""Parts of the page that are drawn by its own scripts: a place in the layout, and a wire to Python."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from app.guard import Visitor, shown, visitor_of
from app.words import language_of
from engine.errors import MovaError

log = logging.getLogger(__name__)

Answer = dict[str, Any]

# How events of the page are wired: nothing spins, nothing waits in Gradio's own queue, nothing is public.
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def part(name: str, value: Any = None, *, elem_id: str | None = None, visible: Any = True, **props: Any) -> gr.HTML:
    """A place that the script part `name` (assets/studio) draws into. `value` goes both ways, as JSON."""
    return gr.HTML(
        value=value,
        html_template='<div class="part"></div>',
        js_on_load=f"studio.mount('{name}', element, {{ props, trigger, server, watch }});",
        apply_default_css=False,
        elem_id=elem_id or name,
        visible=visible,
        **props,
    )


def answered(run: Callable[[Any, Visitor, str], Answer], name: str) -> Callable[[Any, gr.Request], Answer]:
    """A function for the page's scripts: ``run(data, visitor, language)``, with every error as {"error": text}.

    What the user can mend is said as it is, to guests without folders; a defect of ours goes to the log with its
    traceback.
    """

    def ask(data: Any, request: gr.Request) -> Answer:
        visitor = None
        try:
            visitor = visitor_of(request)
            return run(data if isinstance(data, dict) else {}, visitor, language_of(request))
        except MovaError as error:
            return {"error": str(error) if visitor is None else shown(str(error), visitor)}
        except Exception:
            log.exception("the page asked for %s", name)
            return {"error": "something went wrong inside the studio; the log tells what"}

    ask.__name__ = name
    return ask

"""`python launch.py`: wires the parts of the studio and serves the page until Ctrl-C."""

from __future__ import annotations

import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

# Before Gradio is imported: it asks these at import, and nothing of ours goes out.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from app.options import EXIT_WRONG, Options, parse
from app.quick_gradio import no_stubs
from engine.errors import MovaError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.core import Core
    from app.writer_setup import WriterSetup

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the studio; returns the exit code: 0, or 2 with one line for wrong input."""
    try:
        return run(parse(argv))
    except MovaError as error:
        print(f"studio: {error}", file=sys.stderr)
        return EXIT_WRONG


def run(options: Options) -> int:
    """Opens the folder, serves the page, closes.

    Raises:
        MovaError: the folder, the model or the port cannot be used.
    """
    no_stubs()  # what follows imports Gradio
    from app.core import open_core
    from app.drafts import Drafts
    from app.server import make_server, serve
    from app.writer_setup import WriterSetup

    core = open_core(options)
    drafts, writer = Drafts(core.settings), WriterSetup(options.offline)
    try:
        core.profile()  # a wrong --model is said at once, not by the first job
        app = make_server(core)
        mount_page(app, core, drafts, writer)
        serve(core, app, lambda address: opened(core, app, address, writer))
    except KeyboardInterrupt:  # the server has closed by then; this is how a studio is ended
        log.info("ended by Ctrl-C")
    finally:
        writer.stop()
        drafts.write()
        core.close()
    return 0


def mount_page(app: FastAPI, core: Core, drafts: Any, writer: WriterSetup | None = None) -> None:
    """Puts the page on the server's app; `writer` is what it tells about the enhancer's set-up."""
    import gradio as gr

    from app.early import EarlyHead
    from app.page import add_routes, build_page
    from app.theme import early_head, styles, theme
    from app.words import LANGUAGES, table
    from app.writer_setup import WriterSetup

    add_routes(app, core)
    page, words = build_page(core, app.state.sessions, drafts, writer or WriterSetup(core.options.offline))
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme(),
        css=styles(),
        i18n=words,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        show_error=True,
        max_file_size=core.settings.current.upload_megabytes << 20,
        favicon_path=None,
    )
    tables = {language: table(language) for language in LANGUAGES}

    def head() -> str:
        now = core.settings.current
        language = core.options.language if core.options.language != "auto" else now.language
        return early_head(tables, language, now.theme)

    app.add_middleware(EarlyHead, head=head)


def opened(core: Core, app: FastAPI, address: str, writer: WriterSetup) -> None:
    """The page answers: start the worker and what set-up left for later, say where the page is, show it."""
    core.start()
    writer.start()
    print(f"MOVA Studio is at {address}", flush=True)
    sessions = app.state.sessions
    if sessions.made:
        print(f"Guests need this password: {sessions.made}", flush=True)
    print("Ctrl-C ends it; what waits in the queue goes on at the next start.", flush=True)
    if core.options.browser:
        # A text browser would hold the studio up; a thread of its own cannot.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())

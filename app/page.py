"""The page: its tabs put together, and the routes that only the page uses."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import HTTPException, Request, UploadFile
from fastapi.responses import FileResponse, StreamingResponse

from app.drafts import Drafts
from app.examples import example, examples
from app.guard import Visitor, visitor_of
from app.receiving import received
from app.sessions import Sessions
from app.suggest import Suggestions
from app.tabs import channel, create, first_run, library, log, models, settings, train
from app.tabs.fields import preset_names, size_choices
from app.tabs.form import Form
from app.tabs.loras import add_lora
from app.tabs.parts import part
from app.theme import ASSETS, icons
from app.words import PRODUCT, labels
from app.writer_setup import WriterSetup
from engine.errors import LoraError, MediaError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.core import Core

CHUNK = 1 << 20


def build_page(core: Core, sessions: Sessions, drafts: Drafts, writer: WriterSetup) -> tuple[gr.Blocks, gr.I18n]:
    """The whole page and its words, for `gradio.mount_gradio_app`."""
    words = labels()
    with gr.Blocks(title=PRODUCT, analytics_enabled=False, fill_width=True, delete_cache=(3600, 86_400)) as page:
        gr.HTML(icons(), elem_id="icons", apply_default_css=False, js_on_load=None)
        part("topbar")
        opened = gr.State(False)
        wire = channel.build(core, sessions, writer)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab(words("create"), id="create"):
                first_run.build(core, writer)
                form, pricing = create.build(core, drafts, wire, words, examples(), opened)
            with gr.Tab(words("library"), id="library"):
                library.build()
            with gr.Tab(words("train"), id="train"):
                own_training = train.build(core, words)
            with gr.Tab(words("models"), id="models"):
                own_models = models.build(words)
            with gr.Tab(words("settings"), id="settings"):
                *own_settings, fields = settings.build(core, words)
            with gr.Tab(words("log"), id="log"):
                own_log = log.build(words)
        owned = [*own_models, *own_settings, *own_log, *own_training]
        _wire_opening(core, drafts, page, Opening(form, pricing, words, owned, fields, opened))
    return page, words


@dataclass(frozen=True)
class Opening:
    """What is filled in when a page opens.

    Attributes:
        form: as this visitor left it. pricing: its cost line, once it is filled.
        fields: of the Settings tab, for the owner.
        owned: in pairs, what the owner sees and what a guest sees instead.
        opened: true from then on.
    """

    form: Form
    pricing: create.Pricing
    words: gr.I18n
    owned: list[Any]
    fields: settings.OwnerFields
    opened: gr.State


def _wire_opening(core: Core, drafts: Drafts, page: gr.Blocks, at: Opening) -> None:
    preset = next(c for c in at.form.components if c.elem_id == "preset")
    size = next(c for c in at.form.components if c.elem_id == "size")

    def opened(request: gr.Request) -> list[Any]:
        visitor = visitor_of(request)
        values = at.form.remembered(drafts.of(visitor.owner))
        choices = {preset: preset_names(core, at.words), size: size_choices(core.profile(), at.words)}
        filled = [
            gr.update(value=value, choices=choices[component]) if component in choices else value
            for component, value in zip(at.form.components, values, strict=True)
        ]
        shown = [gr.update(visible=visitor.guest == (n % 2 == 1)) for n in range(len(at.owned))]
        own = [gr.skip() for _ in at.fields.fields] if visitor.guest else at.fields.values()
        return [*filled, *shown, *own, True]

    page.load(
        opened,
        None,
        [*at.form.components, *at.owned, *at.fields.fields.values(), at.opened],
        **create.QUIET,
    ).then(at.pricing.run, at.pricing.inputs, at.pricing.output, **create.QUIET)


def add_routes(app: FastAPI, core: Core) -> None:
    """What only the page asks for: files brought in, suggestions, the icon, pictures of the example cards."""

    @app.get("/studio/icon.svg", include_in_schema=False)
    def icon() -> FileResponse:
        return FileResponse(ASSETS / "icon.svg", media_type="image/svg+xml")

    @app.get("/studio/examples/{name}", include_in_schema=False)
    def example_picture(name: str) -> FileResponse:
        return FileResponse(example(name).picture, media_type="image/webp")

    @app.post("/studio/upload", include_in_schema=False)
    async def upload(request: Request, file: UploadFile) -> dict[str, Any]:
        visitor = visitor_of(request)
        return await _with_file(core, file, visitor, _take_picture)

    train.add_training_routes(app, core)
    suggestions = Suggestions(core)

    @app.post("/studio/suggest", include_in_schema=False)
    async def suggest(request: Request, asked: dict[str, Any]) -> StreamingResponse:
        lines = suggestions.lines(asked, visitor_of(request))
        return StreamingResponse(lines, media_type="application/x-ndjson", headers={"cache-control": "no-store"})

    @app.post("/studio/upload/lora", include_in_schema=False)
    async def bring_lora(request: Request) -> dict[str, Any]:
        visitor = visitor_of(request)
        visitor.require_owner()
        async with received(request, core.paths.work) as (path, name):
            return await _used(core, path, name, visitor, add_lora)

    @app.post("/studio/settings", include_in_schema=False)
    async def restore(request: Request, file: UploadFile) -> dict[str, Any]:
        visitor = visitor_of(request)
        return await _with_file(core, file, visitor, _read_settings)


def _take_picture(core: Core, path: Path, name: str, visitor: Visitor) -> dict[str, Any]:
    taken = core.uploads.add(path, visitor.owner, name, visitor.guest)
    return {"id": taken.id, "url": f"/media/uploads/{taken.id}", "width": taken.width, "height": taken.height}


def _read_settings(core: Core, path: Path, name: str, visitor: Visitor) -> dict[str, Any]:
    return {"spec": core.spec_from_file(path, visitor).to_dict()}


async def _with_file(core: Core, file: UploadFile, visitor: Visitor, use: Any) -> dict[str, Any]:
    """Lets `use` read an uploaded file, which is gone afterwards.

    Raises:
        HTTPException: 413 for a file over the limit.
        MovaError: the file cannot be used.
    """
    limit = core.settings.current.upload_megabytes << 20
    with tempfile.TemporaryDirectory(prefix="mova-") as folder:
        path, size = Path(folder) / "brought-in.bin", 0
        with path.open("wb") as target:
            while chunk := await file.read(CHUNK):
                size += len(chunk)
                if size > limit:
                    raise HTTPException(413, f"the file is larger than {limit >> 20} MB; the settings hold this limit")
                target.write(chunk)
        return await _used(core, path, file.filename or "file", visitor, use)


async def _used(core: Core, path: Path, called: str, visitor: Visitor, use: Any) -> dict[str, Any]:
    """What `use` makes of a file; its errors call the file as the visitor does."""
    from anyio import to_thread

    name = Path(called.replace("\\", "/")).name[:120] or "file"
    try:
        found: dict[str, Any] = await to_thread.run_sync(use, core, path, name, visitor)
        return found
    except (MediaError, LoraError) as error:  # names our copy; the user knows it by another name
        raise type(error)(str(error).replace(path.name, name)) from None

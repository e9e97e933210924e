"""The Create tab: the form on the left, the stage and the queue on the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from app.core import Core
from app.drafts import Drafts
from app.examples import Example, example
from app.guard import Visitor, shown, visitor_of
from app.spec import JobSpec
from app.tabs.enhance import beside, enhance_part, unwritten
from app.tabs.fields import Places, numbers_part, pictures_part, words_part
from app.tabs.form import Form
from app.tabs.loras import loras_part
from app.tabs.parts import QUIET as QUIET
from app.tabs.parts import Answer, part
from app.tabs.presets import wire_presets
from app.words import language_of, say
from engine.errors import MovaError, RequestError


def build(
    core: Core, drafts: Drafts, channel: gr.HTML, words: gr.I18n, examples: Sequence[Example], opened: gr.State
) -> tuple[Form, Pricing]:
    """Lays out the tab and wires its events. Returns the form, for those that fill it, and what prices it.

    Args:
        opened: false until the page has got what the form was left with.
    """
    with gr.Row(elem_id="create"):
        with gr.Column(elem_id="form", min_width=0):
            editing = part("editing")
            pictures = pictures_part()
            prompt = words_part(core, words)
            enhancer, enhance_place = enhance_part()
            numbers, places = numbers_part(core, words)
            loras, lora_place = loras_part()
            with gr.Column(elem_id="press", min_width=0):
                cost = part("cost")
                press = gr.Button(words("generate"), variant="primary", size="lg", elem_id="generate")
        with gr.Column(elem_id="show", min_width=0):
            part("stage", examples=[card.view() for card in examples])
            part("strip")
    answer = part("answer", visible="hidden")
    form = Form((pictures, prompt, enhancer, numbers, loras))
    pricing = _wire_changes(core, drafts, form, channel, cost, places, opened)
    wire_presets(core, form, places, lora_place, enhance_place, answer, _number)
    _wire_seed(core, places, answer)
    _wire_filling(core, form, channel, editing, answer, enhance_place)
    press.click(_submitting(core, drafts, form, places), [*form.components, editing], [answer, editing], **QUIET)
    return form, pricing


@dataclass(frozen=True)
class Pricing:
    """An event's function with what goes in and comes out: the cost line of the form as it stands."""

    run: Callable[..., Any]
    inputs: list[Any]
    output: gr.HTML


def _wire_changes(
    core: Core, drafts: Drafts, form: Form, channel: gr.HTML, cost: gr.HTML, places: Places, opened: gr.State
) -> Pricing:
    """Every change is remembered and priced; a finished clip ("price") teaches what the next one will take."""

    def changed(request: gr.Request, opened: bool, *values: Any) -> Any:
        if not opened:  # the form shows its defaults, which must neither replace what was left in it nor be priced
            return gr.skip()
        visitor = visitor_of(request)
        drafts.keep(visitor.owner, {name: list(group) for name, group in form.split(values).items()})
        return priced(core, form, values, visitor, places.count(form, values))

    pricing = Pricing(changed, [opened, *form.components], cost)
    changes = [component.change for component in form.components]  # type: ignore[attr-defined]
    gr.on(changes, pricing.run, pricing.inputs, pricing.output, trigger_mode="always_last", **QUIET)
    channel.price(pricing.run, pricing.inputs, pricing.output, **QUIET)
    return pricing


def priced(core: Core, form: Form, values: Sequence[Any], visitor: Visitor, count: int) -> Answer:
    """What the form's job would take, for the cost line; what is wrong with it under "error"."""
    try:
        spec = form.spec(values)
        if not spec.prompt.strip():
            spec = replace(spec, prompt="-")  # its price does not hang on the words
        settled = core.settle(spec, visitor)
        cost = core.cost(spec, visitor)
    except MovaError as error:
        return {"error": shown(str(error), visitor)}
    warm = core.supervisor.status().model == settled.model
    return {
        "width": settled.width,
        "height": settled.height,
        "seconds": settled.seconds,
        "time": None if cost.seconds is None else cost.seconds * count,
        "load": None if warm else cost.load_seconds,
        "memory": None if visitor.guest else cost.memory,
        "exact": cost.exact,
        "count": count,
    }


def _submitting(core: Core, drafts: Drafts, form: Form, places: Places) -> Callable[..., tuple[Answer, Any]]:
    def submit(request: gr.Request, *values: Any) -> tuple[Answer, Any]:
        visitor, language = visitor_of(request), language_of(request)
        *fields, job = values
        drafts.keep(visitor.owner, {name: list(group) for name, group in form.split(fields).items()})
        try:
            spec = form.spec(fields)
            if job:
                core.queue.edit(str(job), core.settle(spec, visitor), visitor.scope)
                return {"say": say(language, "edited"), "n": _number()}, None
            jobs = core.submit(spec, visitor, places.count(form, fields))
        except MovaError as error:
            return {"error": shown(str(error), visitor), "n": _number()}, gr.skip()
        told = {"say": say(language, "queued_many", n=len(jobs))} if len(jobs) > 1 else {}
        return {"submitted": [one.id for one in jobs], "n": _number(), **told}, gr.skip()

    return submit


def _wire_seed(core: Core, places: Places, answer: gr.HTML) -> None:
    def last_seed(request: gr.Request) -> tuple[Any, Answer]:
        newest = core.library.find(visitor_of(request).scope, limit=1)
        if not newest:
            return gr.skip(), {"error": say(language_of(request), "no_seed"), "n": _number()}
        return str(newest[0].spec.seed), {"n": _number()}

    places.seed_last.click(last_seed, None, [places.seed, answer], **QUIET)


def _wire_filling(
    core: Core, form: Form, channel: gr.HTML, editing: gr.HTML, answer: gr.HTML, enhancer: gr.HTML
) -> None:
    """Fills the form from a clip, a waiting job, an example or a dropped file."""

    def fill(request: gr.Request, event: gr.EventData, now: Any) -> list[Any]:
        visitor, language = visitor_of(request), language_of(request)
        data = event._data if isinstance(event._data, dict) else {}
        untouched = [gr.skip() for _ in form.components]
        try:
            spec = wanted(core, data, visitor)
        except MovaError as error:
            return [*untouched, gr.skip(), {"error": shown(str(error), visitor), "n": _number()}]
        values, place = form.from_spec(spec), form.components.index(enhancer)
        if data.get("from") in ("seed", "last_frame", "upload"):  # one thing only: the rest of the form stays
            fresh = form.from_spec(JobSpec(prompt=""))
            values = [None if new == old else new for new, old in zip(values, fresh, strict=True)]
        job = data.get("job") if data.get("from") == "job" and data.get("edit") else None
        if values[place] is not None:
            values[place] = (unwritten if job else beside)(values[place], now)
        filled = [gr.skip() if value is None else value for value in values]
        return [*filled, job, {"say": say(language, "filled"), "n": _number()}]

    channel.fill(fill, enhancer, [*form.components, editing, answer], **QUIET)


def wanted(core: Core, data: dict[str, Any], visitor: Visitor) -> JobSpec:
    """The spec that a "fill" asks for.

    Raises:
        MovaError: what it names is not there.
    """
    match data.get("from"):
        case "clip":
            return core.uploads.restore(*_of_clip(core, str(data.get("clip")), visitor))
        case "seed":
            return JobSpec(prompt="", seed=core.library.get(str(data.get("clip")), visitor.scope).spec.seed)
        case "last_frame":
            return JobSpec(prompt="", image=core.last_frame(str(data.get("clip")), visitor))
        case "job":
            return core.queue.get(str(data.get("job")), visitor.scope).spec
        case "upload":
            return JobSpec(prompt="", image=core.uploads.get(str(data.get("upload")), visitor.scope).id)
        case "example":
            chosen = example(str(data.get("name")))
            picture = core.uploads.add(chosen.picture, visitor.owner, chosen.picture.name, visitor.guest)
            return JobSpec(prompt=chosen.prompt, image=picture.id, seed=chosen.seed)
        case "spec":
            spec = JobSpec.from_dict(data["spec"] if isinstance(data.get("spec"), dict) else {})
            return core.uploads.restore(spec, {}, visitor.owner, visitor.guest)
    raise RequestError("the form cannot be filled from that; reload the page")


def _of_clip(core: Core, clip_id: str, visitor: Visitor) -> tuple[JobSpec, dict[str, Any], str, bool]:
    clip = core.library.get(clip_id, visitor.scope)
    return clip.spec, clip.settings, visitor.owner, visitor.guest


_answers = iter(range(1, 2**62))


def _number() -> int:
    """Rises with every answer, so that the page sees two equal ones as two."""
    return next(_answers)

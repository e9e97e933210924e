"""The presets of the Create form: choosing one, keeping what is set under a name, deleting it.

An own preset holds every number under "More", the words to avoid, the LoRAs and how the enhancer works. Pictures, the
prompt, length, size, seed and the number of clips belong to one clip and stay out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from app.core import Core
from app.guard import Visitor, visitor_of
from app.presets import built_in
from app.spec import JobSpec
from app.tabs.enhance import switched, switches
from app.tabs.fields import Places, preset_names, preset_values
from app.tabs.form import Form
from app.tabs.loras import lora_fields, lora_values
from app.tabs.parts import QUIET, Answer
from app.words import language_of, say
from engine.errors import MovaError, RequestError

LONGEST_NAME = 40


def wire_presets(
    core: Core, form: Form, places: Places, loras: gr.HTML, enhancer: gr.HTML, answer: gr.HTML, count: Callable[[], int]
) -> None:
    """The events of presets.

    Args:
        count: rises with every call, so that the page tells two equal answers apart.
    """
    numbers = places.numbers
    kept: list[Component] = [*numbers.values(), loras, enhancer]

    def choose(name: str, now: Any, request: gr.Request) -> list[Any]:
        return shown(preset_values(core, name), list(numbers), now, visitor_of(request))

    def save(request: gr.Request, name: str, *values: Any) -> tuple[Any, Answer, Any]:
        visitor_of(request).require_owner()
        language, name = language_of(request), " ".join((name or "").split())[:LONGEST_NAME]
        if not name:
            return gr.skip(), {"error": say(language, "preset_unnamed"), "n": count()}, gr.skip()
        try:
            if name in {preset.name for preset in built_in(core.profile())}:
                raise RequestError(say(language, "preset_built_in"))
            core.settings.change(presets=core.settings.current.presets | {name: held(list(numbers), values)})
        except MovaError as error:
            return gr.skip(), {"error": str(error), "n": count()}, gr.skip()
        told = {"say": say(language, "preset_saved", name=name), "n": count()}
        return gr.update(choices=preset_names(core, places.words), value=name), told, ""

    def delete(name: str, request: gr.Request) -> tuple[Any, Answer]:
        visitor_of(request).require_owner()
        language = language_of(request)
        own = dict(core.settings.current.presets)
        if name not in own:
            return gr.skip(), {"error": say(language, "preset_built_in"), "n": count()}
        del own[name]
        core.settings.change(presets=own)
        told = {"say": say(language, "preset_deleted", name=name), "n": count()}
        return gr.update(choices=preset_names(core, places.words), value="standard"), told

    places.preset.input(choose, [places.preset, enhancer], kept, **QUIET)
    places.preset_save.click(save, [places.preset_name, *kept], [places.preset, answer, places.preset_name], **QUIET)
    places.preset_delete.click(delete, places.preset, [places.preset, answer], **QUIET)
    for field, component in numbers.items():  # another number than the preset's is no preset
        component.input(_left(core, field), places.preset, places.preset, **QUIET)


def _left(core: Core, field: str) -> Callable[[str | None], Any]:
    """Whether the preset is still the chosen one after a number was changed by hand."""

    def left(name: str | None) -> Any:
        return gr.update(value=None) if name and field in preset_values(core, name) else gr.skip()

    return left


def held(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """What a preset holds, as fields of `JobSpec`.

    Args:
        names: of the numbers. values: theirs, then the value of the LoRA part and that of the enhancer's.

    Raises:
        RequestError: a LoRA that cannot be read.
    """
    *numbers, loras, enhancer = values
    fields = dict(zip(names, numbers, strict=True))
    chosen = lora_fields([loras]).get("loras", ())
    return fields | {
        "loras": [choice.to_dict() for choice in chosen],
        "enhancer": switches(enhancer if isinstance(enhancer, dict) else {}),
    }


def shown(values: dict[str, Any], names: Sequence[str], now: Any, visitor: Visitor) -> list[Any]:
    """What the components show for a preset: those it says nothing about stay as they are.

    Args:
        values: of the preset. now: the enhancer part's value, whose words stay. visitor: guests get no writer by name,
            which could be a path.
    """
    spec = JobSpec.from_dict({**values, "prompt": ""})  # settings are a file that can be edited
    found = [getattr(spec, name) if name in values else gr.skip() for name in names]
    found.append(lora_values(spec)[0] if "loras" in values else gr.skip())
    wanted = spec.enhancer or {}
    if "mode" not in wanted:
        return [*found, gr.skip()]
    return [*found, switched(now, {**wanted, "model": None} if visitor.guest else wanted)]

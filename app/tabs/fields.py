"""The fields of the Create form: pictures, words, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.core import Core
from app.presets import Preset
from app.spec import MAX_VARIATIONS, JobSpec
from app.tabs.form import Form, FormPart
from app.tabs.parts import part
from app.tabs.typed import TypedSlider
from engine.errors import RequestError
from engine.profile import ModelProfile
from engine.request import MAX_FRAMES, SOUND_STEPS, parse_size
from engine.timing import seconds_to_frames

BUILT_IN = ("draft", "standard", "best")
DEFAULT_SHIFT = 5.0  # what the released weights use


@dataclass(frozen=True)
class Places:
    """Components of the form that events need by name; `numbers` by fields of `JobSpec`, all that a preset may hold."""

    preset: gr.Radio
    numbers: dict[str, TypedSlider | gr.Textbox]
    seed: gr.Textbox
    seed_last: gr.Button
    variations: TypedSlider
    preset_name: gr.Textbox
    preset_save: gr.Button
    preset_delete: gr.Button
    seconds: TypedSlider
    size: gr.Dropdown
    words: gr.I18n

    def count(self, form: Form, values: Sequence[Any]) -> int:
        """How many clips the form asks for."""
        value = values[form.components.index(self.variations)]
        return min(max(int(value), 1), MAX_VARIATIONS) if isinstance(value, int | float) else 1


def pictures_part() -> FormPart:
    """First and last picture, each with its crop."""
    with gr.Row(elem_id="pictures"):
        slots = [part("picture", elem_id=f"picture-{which}", which=which) for which in ("first", "last")]

    def fields(values: Sequence[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for value, side, crop in zip(values, ("image", "last_image"), ("crop", "last_crop"), strict=True):
            if isinstance(value, dict) and isinstance(value.get("id"), str):
                at = value.get("crop")
                found |= {side: value["id"], crop: _point(at)}
        return found

    return FormPart("pictures", slots, fields, picture_values, lambda: [None, None])


def _point(at: Any) -> tuple[float, float] | None:
    if isinstance(at, list) and len(at) == 2 and all(isinstance(number, int | float) for number in at):
        return float(at[0]), float(at[1])
    return None


def picture_values(spec: JobSpec) -> list[Any]:
    """What both picture parts show for a spec; its sizes are filled in by the page, which sees the picture."""
    return [
        {"id": upload, "url": f"/media/uploads/{upload}", "crop": list(crop or (0.5, 0.5))} if upload else {}
        for upload, crop in ((spec.image, spec.crop), (spec.last_image, spec.last_crop))
    ]


def words_part(core: Core, words: gr.I18n) -> FormPart:
    """The prompt."""
    prompt = gr.Textbox(
        label=words("prompt"), placeholder=words("prompt_hint"), lines=4, max_lines=12, elem_id="prompt"
    )
    return FormPart(
        "words",
        [prompt],
        lambda values: {"prompt": str(values[0] or "")},
        lambda spec: [spec.prompt],
        lambda: [""],
    )


def numbers_part(core: Core, words: gr.I18n) -> tuple[FormPart, Places]:
    """Everything that is a number or a choice; the rarer ones under a fold."""
    profile = core.profile()
    with gr.Column(elem_id="numbers", min_width=0):
        preset = gr.Radio(preset_names(core, words), value="standard", label=words("preset"), elem_id="preset")
        seconds, size = _length_and_size(profile, words)
        seed, last, count = _seed_and_count(words)
        with gr.Accordion(words("more"), open=False, elem_id="more"):
            numbers = _rarer(profile, words)
            name, save, delete = _own_presets(words)
    places = Places(preset, numbers, seed, last, count, name, save, delete, seconds, size, words)

    def fields(values: Sequence[Any]) -> dict[str, Any]:
        return number_fields(core.profile(), values)

    def values(spec: JobSpec) -> list[Any]:
        return number_values(core.profile(), spec)

    def defaults() -> list[Any]:
        now = core.profile()
        return ["standard", _seconds(now), "auto", "", 1, *rare_defaults(now).values()]

    components = [preset, seconds, size, seed, count, *numbers.values()]
    return FormPart("numbers", components, fields, values, defaults), places


def _length_and_size(profile: ModelProfile, words: gr.I18n) -> tuple[TypedSlider, gr.Dropdown]:
    longest, usual = _longest(profile), _seconds(profile)
    with gr.Row(elem_classes="pair"):
        return (
            TypedSlider(0.2, longest, value=usual, step=0.1, label=words("seconds"), elem_id="seconds"),
            gr.Dropdown(
                size_choices(profile, words), value="auto", label=words("size"), allow_custom_value=True, elem_id="size"
            ),
        )


def _seed_and_count(words: gr.I18n) -> tuple[gr.Textbox, gr.Button, TypedSlider]:
    with gr.Row(elem_classes="pair"):
        with gr.Column(min_width=0, elem_classes="seed"):
            seed = gr.Textbox(label=words("seed_label"), placeholder=words("seed_random"), max_lines=1, elem_id="seed")
            last = gr.Button(words("seed_last"), size="sm", elem_id="seed-last")
        return seed, last, TypedSlider(1, 16, value=1, step=1, label=words("variations"), elem_id="variations")


def _rarer(profile: ModelProfile, words: gr.I18n) -> dict[str, TypedSlider | gr.Textbox]:
    """The fields under the fold, by those of `JobSpec`; all that a preset may hold."""
    values = rare_defaults(profile)
    negative = gr.Textbox(
        label=words("negative"),
        info=words("negative_info"),
        value=values["negative_prompt"],
        lines=2,
        max_lines=6,
        elem_id="negative",
    )
    # field of `JobSpec`: name of its words and of the element, lowest, highest, step
    sliders = {
        "steps": ("steps", 1, max(100, 2 * profile.steps), 1),
        "guidance": ("guidance", 1, 12, 0.1),
        "bridge_guidance": ("bridge", 1, 6, 0.1),
        "video_shift": ("video_shift", 0.5, 15, 0.1),
        "audio_shift": ("audio_shift", 0.5, 15, 0.1),
        "v2a_scale": ("v2a", 0, 2, 0.05),
        "a2v_scale": ("a2v", 0, 2, 0.05),
        "step_cache": ("step_cache", 0, 1, 0.01),
        "sound_steps": ("sound_steps", 1, SOUND_STEPS, 1),
    }
    made: dict[str, TypedSlider | gr.Textbox] = {"negative_prompt": negative}
    for field, (name, low, high, step) in sliders.items():
        label, info, place = words(name), words(f"{name}_info"), name.replace("_", "-")
        made[field] = TypedSlider(low, high, value=values[field], step=step, label=label, info=info, elem_id=place)
    return made


def _own_presets(words: gr.I18n) -> tuple[gr.Textbox, gr.Button, gr.Button]:
    name = gr.Textbox(label=words("preset_name"), max_length=40, max_lines=1, elem_id="preset-name")
    with gr.Row(elem_classes="pair"):
        save = gr.Button(words("preset_save"), size="sm", elem_id="preset-save")
        return name, save, gr.Button(words("preset_delete"), size="sm", elem_id="preset-delete")


def rare_defaults(profile: ModelProfile) -> dict[str, Any]:
    """What the fields under the fold hold on a fresh form, by fields of `JobSpec`; in the order of the page."""
    return {
        "negative_prompt": profile.negative_prompt,
        "steps": profile.steps,
        "guidance": profile.guidance,
        "bridge_guidance": profile.bridge_guidance,
        "video_shift": _shift(profile.video_shift),
        "audio_shift": _shift(profile.audio_shift),
        "v2a_scale": 1,
        "a2v_scale": 1,
        "step_cache": 0,
        "sound_steps": 1,
    }


def number_fields(profile: ModelProfile, values: Sequence[Any]) -> dict[str, Any]:
    """The numbers of the form as fields of `JobSpec`.

    Raises:
        RequestError: a size or seed that cannot be read.
    """
    _, seconds, size, seed, _, *rare = values
    given = dict(zip(rare_defaults(profile), rare, strict=True))
    width, height = (None, None) if size in (None, "", "auto") else parse_size(str(size))
    longest = (MAX_FRAMES - 1) / profile.fps
    for field in ("video_shift", "audio_shift"):  # one that the model leaves open stays open, unless it was moved
        if getattr(profile, field) is None and given[field] == DEFAULT_SHIFT:
            given[field] = None
    whole = {field: None if given[field] is None else round(given[field]) for field in ("steps", "sound_steps")}
    return {
        **given,
        "width": width,
        "height": height,
        "frames": None if seconds is None else seconds_to_frames(min(max(float(seconds), 0.0), longest), profile.fps),
        "seed": read_seed(seed),
        "negative_prompt": str(given["negative_prompt"] or ""),
        "steps": whole["steps"],
        "v2a_scale": 1.0 if given["v2a_scale"] is None else given["v2a_scale"],
        "a2v_scale": 1.0 if given["a2v_scale"] is None else given["a2v_scale"],
        "step_cache": given["step_cache"] or 0.0,
        "sound_steps": whole["sound_steps"] or 1,
    }


def number_values(profile: ModelProfile, spec: JobSpec) -> list[Any]:
    """What the number fields show for a spec; None where it says nothing."""
    size = "auto" if spec.width is None else f"{spec.width}x{spec.height}"
    seconds = round(spec.frames / (spec.fps or profile.fps), 1) if spec.frames else None
    rare = {field: getattr(spec, field) for field in rare_defaults(profile)}
    return [
        None,
        seconds,
        size if spec.width else None,
        None if spec.seed is None else str(spec.seed),
        None,
        *rare.values(),
    ]


def read_seed(text: Any) -> int | None:
    """A seed as written; None where the field is empty: random.

    Raises:
        RequestError: not a whole number.
    """
    written = str(text or "").strip()
    if not written:
        return None
    if not written.isascii() or not written.isdigit() or len(written) > 19:
        raise RequestError(f"seed {written[:24]!r} is not a whole number from 0 up; leave it empty for a random one")
    return int(written)


def size_choices(profile: ModelProfile, words: gr.I18n) -> list[tuple[Any, str]]:
    """ "auto" and the model's own sizes."""
    return [(words("size_auto"), "auto"), *((f"{w} × {h}", f"{w}x{h}") for w, h in profile.sizes)]  # noqa: RUF001


def preset_names(core: Core, words: gr.I18n) -> list[tuple[Any, str]]:
    """The presets to choose from: built in ones in the page's language, own ones as they were named."""
    return [(words(preset.name) if preset.name in BUILT_IN else preset.name, preset.name) for preset in core.presets()]


def preset_values(core: Core, name: str) -> dict[str, Any]:
    """The fields that a preset sets; none for a name that is gone."""
    found: list[Preset] = [preset for preset in core.presets() if preset.name == name]
    return found[0].values if found else {}


def _longest(profile: ModelProfile) -> float:
    """Seconds that the slider offers: half as long again as the model was trained for."""
    return round(max(1.0, 1.5 * profile.frames / profile.fps), 1)


def _seconds(profile: ModelProfile) -> float:
    return round(profile.frames / profile.fps, 1)


def _shift(shift: float | None) -> float:
    return DEFAULT_SHIFT if shift is None else shift

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
from engine.errors import RequestError
from engine.profile import ModelProfile
from engine.request import MAX_FRAMES, parse_size
from engine.timing import seconds_to_frames

BUILT_IN = ("draft", "standard", "best")
DEFAULT_SHIFT = 5.0  # what the released weights use


@dataclass(frozen=True)
class Places:
    """Components of the form that events need by name; `numbers` by fields of `JobSpec`, all that a preset may hold."""

    preset: gr.Radio
    numbers: dict[str, gr.Slider | gr.Textbox]
    seed: gr.Textbox
    seed_last: gr.Button
    variations: gr.Slider
    preset_name: gr.Textbox
    preset_save: gr.Button
    preset_delete: gr.Button
    seconds: gr.Slider
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
        with gr.Row(elem_classes="pair"):
            seconds = gr.Slider(
                0.2, _longest(profile), value=_seconds(profile), step=0.1, label=words("seconds"), elem_id="seconds"
            )
            size = gr.Dropdown(
                size_choices(profile, words), value="auto", label=words("size"), allow_custom_value=True, elem_id="size"
            )
        with gr.Row(elem_classes="pair"):
            with gr.Column(min_width=0, elem_classes="seed"):
                seed = gr.Textbox(
                    label=words("seed_label"), placeholder=words("seed_random"), max_lines=1, elem_id="seed"
                )
                last = gr.Button(words("seed_last"), size="sm", elem_id="seed-last")
            count = gr.Slider(1, 16, value=1, step=1, label=words("variations"), elem_id="variations")
        with gr.Accordion(words("more"), open=False, elem_id="more"):
            negative = gr.Textbox(
                label=words("negative"),
                info=words("negative_info"),
                value=profile.negative_prompt,
                lines=2,
                max_lines=6,
                elem_id="negative",
            )
            steps = gr.Slider(
                1,
                max(100, 2 * profile.steps),
                value=profile.steps,
                step=1,
                label=words("steps"),
                info=words("steps_info"),
                elem_id="steps",
            )
            guidance = gr.Slider(
                1,
                12,
                value=profile.guidance,
                step=0.1,
                label=words("guidance"),
                info=words("guidance_info"),
                elem_id="guidance",
            )
            bridge = gr.Slider(
                1,
                6,
                value=profile.bridge_guidance,
                step=0.1,
                label=words("bridge"),
                info=words("bridge_info"),
                elem_id="bridge",
            )
            picture_shift = gr.Slider(
                0.5,
                15,
                value=_shift(profile.video_shift),
                step=0.1,
                label=words("video_shift"),
                info=words("video_shift_info"),
            )
            sound_shift = gr.Slider(
                0.5,
                15,
                value=_shift(profile.audio_shift),
                step=0.1,
                label=words("audio_shift"),
                info=words("audio_shift_info"),
            )
            v2a = gr.Slider(0, 2, value=1, step=0.05, label=words("v2a"), info=words("v2a_info"))
            a2v = gr.Slider(0, 2, value=1, step=0.05, label=words("a2v"), info=words("a2v_info"))
            name = gr.Textbox(label=words("preset_name"), max_length=40, max_lines=1, elem_id="preset-name")
            with gr.Row(elem_classes="pair"):
                save = gr.Button(words("preset_save"), size="sm", elem_id="preset-save")
                delete = gr.Button(words("preset_delete"), size="sm", elem_id="preset-delete")
    components = [
        preset,
        seconds,
        size,
        seed,
        count,
        negative,
        steps,
        guidance,
        bridge,
        picture_shift,
        sound_shift,
        v2a,
        a2v,
    ]
    numbers: dict[str, gr.Slider | gr.Textbox] = {
        "negative_prompt": negative,
        "steps": steps,
        "guidance": guidance,
        "bridge_guidance": bridge,
        "video_shift": picture_shift,
        "audio_shift": sound_shift,
        "v2a_scale": v2a,
        "a2v_scale": a2v,
    }
    places = Places(preset, numbers, seed, last, count, name, save, delete, seconds, size, words)

    def fields(values: Sequence[Any]) -> dict[str, Any]:
        return number_fields(core.profile(), values)

    def values(spec: JobSpec) -> list[Any]:
        return number_values(core.profile(), spec)

    def defaults() -> list[Any]:
        now = core.profile()
        shifts = [_shift(now.video_shift), _shift(now.audio_shift)]
        guided = [now.steps, now.guidance, now.bridge_guidance]
        return ["standard", _seconds(now), "auto", "", 1, now.negative_prompt, *guided, *shifts, 1, 1]

    return FormPart("numbers", components, fields, values, defaults), places


def number_fields(profile: ModelProfile, values: Sequence[Any]) -> dict[str, Any]:
    """The numbers of the form as fields of `JobSpec`.

    Raises:
        RequestError: a size or seed that cannot be read.
    """
    _, seconds, size, seed, _, negative, steps, guidance, bridge, picture_shift, sound_shift, v2a, a2v = values
    width, height = (None, None) if size in (None, "", "auto") else parse_size(str(size))
    longest = (MAX_FRAMES - 1) / profile.fps
    return {
        "width": width,
        "height": height,
        "frames": None if seconds is None else seconds_to_frames(min(max(float(seconds), 0.0), longest), profile.fps),
        "seed": read_seed(seed),
        "negative_prompt": str(negative or ""),
        "steps": None if steps is None else round(steps),
        "guidance": guidance,
        "bridge_guidance": bridge,
        # A shift that the model leaves open stays open, unless it was moved.
        "video_shift": None if profile.video_shift is None and picture_shift == DEFAULT_SHIFT else picture_shift,
        "audio_shift": None if profile.audio_shift is None and sound_shift == DEFAULT_SHIFT else sound_shift,
        "v2a_scale": 1.0 if v2a is None else v2a,
        "a2v_scale": 1.0 if a2v is None else a2v,
    }


def number_values(profile: ModelProfile, spec: JobSpec) -> list[Any]:
    """What the number fields show for a spec; None where it says nothing."""
    size = "auto" if spec.width is None else f"{spec.width}x{spec.height}"
    seconds = round(spec.frames / (spec.fps or profile.fps), 1) if spec.frames else None
    return [
        None,
        seconds,
        size if spec.width else None,
        None if spec.seed is None else str(spec.seed),
        None,
        spec.negative_prompt,
        spec.steps,
        spec.guidance,
        spec.bridge_guidance,
        spec.video_shift,
        spec.audio_shift,
        spec.v2a_scale,
        spec.a2v_scale,
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

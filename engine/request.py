"""What may be asked of the engine: every validity rule, each with the nearest valid value in its message."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from engine.errors import RequestError
from engine.timing import nearest_frame_count

MAX_STEPS = 1000
MAX_GUIDANCE = 100.0
MAX_SHIFT = 100.0
MAX_STRENGTH = 10.0
MAX_SIDE = 4096  # pixels
MAX_FRAMES = 2401  # 100 s at 24 fps
MAX_PROMPT_CHARACTERS = 20_000  # far beyond 512 tokens; keeps a pasted file out of the tokenizer
SEED_LIMIT = 2**63
STEP_CACHE = 0.1  # threshold of the step cache where it is switched on without one
SOUND_STEPS = 8  # parts of a step that the sound may take, at most
FPS_RANGE = (1.0, 120.0)
SIZE_DIGITS = 12  # of a side that someone typed; more is no size, and int() refuses thousands
SHOWN_AT_MOST = 60  # characters of a wrong value in a message


@dataclass(frozen=True)
class SizeRules:
    """What the networks of one model allow.

    Attributes:
        multiple: width and height must be divisible by this (spatial stride x patch), in pixels.
        stride: frames per latent frame after the first; frames = stride * k + 1.
        sizes: the model's own (width, height) pairs, for `size="auto"`.
    """

    multiple: int = 16
    stride: int = 4
    sizes: tuple[tuple[int, int], ...] = ((640, 352), (352, 640))


@dataclass(frozen=True)
class ClipRequest:
    """One clip, all numbers checked by `checked`. Lengths in frames, sizes in pixels; a `step_cache` of 0 is off."""

    prompt: str
    width: int
    height: int
    frames: int
    fps: float = 24.0
    negative_prompt: str = ""
    steps: int = 50
    guidance: float = 5.0
    bridge_guidance: float = 1.0
    video_shift: float = 5.0
    audio_shift: float = 5.0
    a2v_scale: float = 1.0
    v2a_scale: float = 1.0
    seed: int = 0
    step_cache: float = 0.0
    sound_steps: int = 1

    def checked(self, rules: SizeRules) -> ClipRequest:
        """This request with numbers in their own types.

        Raises:
            RequestError: the first value that is not valid, with the nearest one that is.
        """
        return replace(
            self,
            prompt=check_prompt("prompt", self.prompt),
            negative_prompt=check_prompt("negative prompt", self.negative_prompt),
            width=check_side("width", self.width, rules.multiple),
            height=check_side("height", self.height, rules.multiple),
            frames=check_frames(self.frames, rules.stride),
            fps=check_number("fps", self.fps, *FPS_RANGE),
            steps=check_integer("steps", self.steps, 1, MAX_STEPS),
            guidance=check_number("guidance", self.guidance, 0.0, MAX_GUIDANCE),
            bridge_guidance=check_number("bridge guidance", self.bridge_guidance, 0.0, MAX_GUIDANCE),
            video_shift=check_number("video shift", self.video_shift, 0.01, MAX_SHIFT),
            audio_shift=check_number("audio shift", self.audio_shift, 0.01, MAX_SHIFT),
            a2v_scale=check_number("sound-to-picture strength", self.a2v_scale, 0.0, MAX_STRENGTH),
            v2a_scale=check_number("picture-to-sound strength", self.v2a_scale, 0.0, MAX_STRENGTH),
            seed=check_integer("seed", self.seed, 0, SEED_LIMIT - 1),
            step_cache=check_number("step cache", self.step_cache, 0.0, 1.0),
            sound_steps=check_integer("sound steps", self.sound_steps, 1, SOUND_STEPS),
        )


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """A finite number within [low, high]."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RequestError(f"{name} {_shown(value)} is not a number; use one from {low:g} to {high:g}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RequestError(f"{name} {number:g} is not a finite number; use one from {low:g} to {high:g}")
    if not low <= number <= high:
        nearest = min(max(number, low), high)
        raise RequestError(f"{name} {number:g} is out of range; the nearest valid value is {nearest:g}")
    return number


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """A whole number within [low, high]; a float without a fraction is one."""
    number = _whole(name, value, f"use one from {low} to {high}")
    if not low <= number <= high:
        nearest = min(max(number, low), high)
        raise RequestError(f"{name} {_short(number)} is out of range; the nearest valid value is {nearest}")
    return number


def check_side(name: str, value: Any, multiple: int) -> int:
    """A width or height: divisible by `multiple`, at most `MAX_SIDE`."""
    high = MAX_SIDE // multiple * multiple
    side = _whole(name, value, f"use a multiple of {multiple} up to {high}")
    nearest = nearest_side(side, multiple)
    if side != nearest:
        raise RequestError(
            f"{name} {_short(side)} is not a multiple of {multiple} up to {high}; the nearest valid value is {nearest}"
        )
    return side


def check_size(width: int, height: int, multiple: int) -> tuple[int, int]:
    """A picture's size, of which both sides are right as `check_side` has it; one message for both."""
    nearest = nearest_side(width, multiple), nearest_side(height, multiple)
    if (width, height) != nearest:
        raise RequestError(
            f"size {_short(width)}x{_short(height)} is not made of multiples of {multiple}, as this model needs, up to "
            f"{MAX_SIDE // multiple * multiple}; the nearest valid size is {nearest[0]}x{nearest[1]}"
        )
    return width, height


def nearest_side(side: int, multiple: int) -> int:
    """The width or height closest to a number that is divisible by `multiple` and at most `MAX_SIDE`."""
    return min(max(multiple * ((2 * side + multiple) // (2 * multiple)), multiple), MAX_SIDE // multiple * multiple)


def check_frames(value: Any, stride: int = 4) -> int:
    """A frame count of the form stride * k + 1, k >= 1, at most `MAX_FRAMES`."""
    frames = _whole("frames", value, f"use {stride}k+1, for instance {nearest_frame_count(49, stride)}")
    nearest = nearest_frame_count(min(max(frames, 1), MAX_FRAMES), stride)
    if frames != nearest:
        raise RequestError(
            f"frames {_short(frames)} is not of the form {stride}k+1 up to {MAX_FRAMES}; "
            f"the nearest valid value is {nearest}"
        )
    return frames


def _whole(name: str, value: Any, advice: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RequestError(f"{name} {_shown(value)} is not a whole number; {advice}")
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not number.is_integer():
        raise RequestError(f"{name} {number:g} is not a whole number; {advice}")
    return int(number)


def _short(number: int) -> str:
    """A number for a message, without hundreds of digits."""
    return str(number) if abs(number) < 10**24 else "of that size"


def _shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN_AT_MOST else text[:SHOWN_AT_MOST] + "..."


def check_prompt(name: str, value: Any) -> str:
    """A text without NUL characters, at most `MAX_PROMPT_CHARACTERS` long."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, not {type(value).__name__}")
    if len(value) > MAX_PROMPT_CHARACTERS:
        raise RequestError(f"{name} has {len(value)} characters; at most {MAX_PROMPT_CHARACTERS} are accepted")
    return value.replace("\x00", "")


def parse_size(text: str) -> tuple[int, int]:
    """ "WxH" -> (width, height). "auto" is not handled here."""
    parts = text.lower().replace("×", "x").split("x")  # noqa: RUF001 - people paste the sign
    if len(parts) != 2 or not all(p.strip().isdecimal() and len(p) <= SIZE_DIGITS for p in parts):
        raise RequestError(f"size {_shown(text)} is not WIDTHxHEIGHT; write for instance 640x352, or auto")
    return int(parts[0]), int(parts[1])


def auto_size(image_size: tuple[int, int] | None, sizes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The model's size whose aspect is closest to the image's; the first one without an image."""
    if image_size is None:
        return sizes[0]
    aspect = math.log(image_size[0] / image_size[1])
    return min(sizes, key=lambda s: abs(math.log(s[0] / s[1]) - aspect))

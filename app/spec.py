"""What one job shall make: every setting of the form as one frozen record, checked without loading a model."""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from app.paths import is_id
from engine.errors import LoraError, RequestError
from engine.lora import Choice
from engine.profile import ModelProfile
from engine.request import ClipRequest, SizeRules, check_number, check_prompt

log = logging.getLogger(__name__)

GIVEN = ("picture", "sound")
MAX_LORAS = 16
MAX_VARIATIONS = 64
UNKNOWN = "0" * 64  # stands for a hash while the rest of an entry is read
SEED_CHOICES = 2**32  # random seeds are short enough to be read out


@dataclass(frozen=True)
class Given:
    """A side that is kept from a finished clip.

    Attributes:
        kind: "picture" keeps the clip's picture and makes its sound again; "sound" the other way round.
        clip: the clip's id.
    """

    kind: str
    clip: str


@dataclass(frozen=True)
class JobSpec:
    """One clip to make. None means the model's own default; `settled` fills them in.

    Attributes:
        prompt: what is seen and heard, as the model gets it.
        idea: what the user wrote before the enhancer; kept beside the prompt.
        image, last_image: upload ids of the first and last frame.
        crop, last_crop: where the middle of the cut lies, fractions (x, y) of the picture from 0 to 1.
        width, height: pixels; frames: 4k+1; fps: frames per second.
        seed: None is drawn when the job is submitted, so that a job which runs again makes the same clip.
        step_cache: threshold below which most of a step is left out; 0 is off.
        sound_steps: parts in which the sound takes each step; 1 is off.
        model: name of an installed model; None is the one chosen in the settings.
        loras: known by the hash of their file; one that was asked for by name only gets its hash in `Core.settle`.
        enhancer: how the enhancer is asked, and what it answered; None when it was off. With {"mode": "automatic"} the
            worker lets it write the prompt once, before anything else: then `idea` holds what the user wrote, and
            "written_by" stands here. Besides that: "model", "language", "style", "length", as in `EnhanceRequest`.
        given: keep one side of a clip. extend_of: a clip's id; the new one continues from its last frame.
        group: shared by variations that were asked for together.
    """

    prompt: str
    idea: str = ""
    image: str | None = None
    last_image: str | None = None
    crop: tuple[float, float] | None = None
    last_crop: tuple[float, float] | None = None
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    bridge_guidance: float | None = None
    video_shift: float | None = None
    audio_shift: float | None = None
    a2v_scale: float = 1.0
    v2a_scale: float = 1.0
    step_cache: float = 0.0
    sound_steps: int = 1
    model: str | None = None
    loras: tuple[Choice, ...] = ()
    enhancer: dict[str, Any] | None = None
    given: Given | None = None
    extend_of: str | None = None
    group: str = ""

    def settled(self, profile: ModelProfile, model: str, rules: SizeRules | None = None) -> JobSpec:
        """This spec with every default filled in and every number checked; the seed is drawn here if none is given.

        Args:
            rules: of the model's networks; MOVA's own if not given.

        Raises:
            RequestError: the first value that is not valid, with the nearest one that is.
        """
        width, height = self.width, self.height
        if (width is None) != (height is None):
            raise RequestError("width and height go together; give both, or neither for the model's own size")
        if width is None or height is None:
            width, height = profile.sizes[0]
        request = ClipRequest(
            prompt=check_prompt("prompt", self.prompt),
            width=width,
            height=height,
            frames=_or(self.frames, profile.frames),
            fps=_or(self.fps, profile.fps),
            negative_prompt=_or(self.negative_prompt, profile.negative_prompt),
            steps=_or(self.steps, profile.steps),
            guidance=_or(self.guidance, profile.guidance),
            bridge_guidance=_or(self.bridge_guidance, profile.bridge_guidance),
            video_shift=_or(self.video_shift, _or(profile.video_shift, 5.0)),
            audio_shift=_or(self.audio_shift, _or(profile.audio_shift, 5.0)),
            a2v_scale=self.a2v_scale,
            v2a_scale=self.v2a_scale,
            seed=_or(self.seed, draw_seed()),
            step_cache=self.step_cache,
            sound_steps=self.sound_steps,
        ).checked(rules or SizeRules(sizes=profile.sizes))
        if not request.prompt.strip():
            raise RequestError("prompt is empty; say what is seen and heard")
        values = {name: getattr(request, name) for name in ClipRequest.__dataclass_fields__}
        # None stays None: the scheduler's own shift, which only the model's folder knows.
        for name in ("video_shift", "audio_shift"):
            if getattr(self, name) is None and getattr(profile, name) is None:
                values[name] = None
        return replace(self, **values, idea=check_prompt("idea", self.idea), model=model)._references_checked()

    def _references_checked(self) -> JobSpec:
        for name in ("image", "last_image"):
            if getattr(self, name) is not None and not is_id(getattr(self, name)):
                raise RequestError(f"{name} is not the id of an uploaded picture; upload it again")
        if self.extend_of is not None and not is_id(self.extend_of):
            raise RequestError("extend_of is not the id of a clip; choose one from the library")
        if self.given is not None and (self.given.kind not in GIVEN or not is_id(self.given.clip)):
            raise RequestError("given must name picture or sound, and the id of a clip; choose one from the library")
        if self.given is not None and self.extend_of is not None:
            raise RequestError("a clip cannot be extended and keep one side of another at once; choose one of the two")
        if len(self.loras) > MAX_LORAS:
            raise RequestError(f"{len(self.loras)} LoRAs; at most {MAX_LORAS} can be used together")
        crop, last_crop = _crop(self.crop), _crop(self.last_crop)
        for lora in self.loras:
            try:
                lora.strengths.checked(lora.name)
            except LoraError as error:
                raise RequestError(str(error)) from None
        return replace(self, crop=crop, last_crop=last_crop)

    def variation(self, seed: int) -> JobSpec:
        """The same with another seed."""
        return replace(self, seed=seed)

    @property
    def seconds(self) -> float:
        """Length in seconds; 0 while frames or fps are open."""
        return self.frames / self.fps if self.frames and self.fps else 0.0

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold, without the fields that say nothing."""
        known = asdict(self) | {"loras": [lora.to_dict() for lora in self.loras]}
        plain = {name: value for name, value in known.items() if value not in (None, "", (), [])}
        if self.negative_prompt is not None:
            plain["negative_prompt"] = self.negative_prompt  # "" means none at all, not the model's own
        return plain

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JobSpec:
        """A spec from settings, ours or a stranger's: unknown names are left out, wrong types become defaults.

        The numbers are not checked for range; `settled` does that. The settings of `generate` are accepted too.
        """
        known: dict[str, Any] = {}
        for field in fields(cls):
            if field.name in values:
                accepted = _ACCEPT[field.name](values[field.name])
                if accepted is not None:
                    known[field.name] = accepted
        return cls(**{"prompt": "", **known})

    @classmethod
    def from_json(cls, text: str) -> JobSpec:
        return cls.from_dict(json.loads(text))


def draw_seed() -> int:
    """A random seed of at most ten digits."""
    return secrets.randbelow(SEED_CHOICES)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _crop(crop: Any) -> tuple[float, float] | None:
    if crop is None:
        return None
    return check_number("crop", crop[0], 0.0, 1.0), check_number("crop", crop[1], 0.0, 1.0)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _id(value: Any) -> str | None:
    return value if is_id(value) else None


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


def _whole(value: Any) -> int | None:
    return int(value) if _number(value) is not None and float(value).is_integer() else None


def _pair(value: Any) -> tuple[float, float] | None:
    if isinstance(value, list | tuple) and len(value) == 2 and all(_number(part) is not None for part in value):
        return float(value[0]), float(value[1])
    return None


def _loras(value: Any) -> tuple[Choice, ...] | None:
    """LoRAs by hash, or by name alone; entries that say neither, or nonsense, are left out."""
    found = []
    for entry in value if isinstance(value, list | tuple) else ():
        by_name = isinstance(entry, Mapping) and not entry.get("sha256") and isinstance(entry.get("name"), str)
        try:
            if by_name and entry["name"].strip():
                found.append(replace(Choice.from_dict({**entry, "sha256": UNKNOWN}), sha256=""))
            elif isinstance(entry, Mapping):
                found.append(Choice.from_dict(entry))
        except (LoraError, OverflowError) as error:
            log.info("a LoRA in the settings is left out: %s", error)
    return tuple(found)


def _given(value: Any) -> Given | None:
    if isinstance(value, Mapping) and value.get("kind") in GIVEN and is_id(value.get("clip")):
        return Given(value["kind"], value["clip"])
    return None


def _dict(value: Any) -> dict[str, Any] | None:
    return dict(value) if isinstance(value, Mapping) else None


_ACCEPT = {
    "prompt": _text,
    "idea": _text,
    "image": _id,
    "last_image": _id,
    "crop": _pair,
    "last_crop": _pair,
    "negative_prompt": _text,
    "width": _whole,
    "height": _whole,
    "frames": _whole,
    "fps": _number,
    "seed": _whole,
    "steps": _whole,
    "guidance": _number,
    "bridge_guidance": _number,
    "video_shift": _number,
    "audio_shift": _number,
    "a2v_scale": _number,
    "v2a_scale": _number,
    "step_cache": _number,
    "sound_steps": _whole,
    "model": _text,
    "loras": _loras,
    "enhancer": _dict,
    "given": _given,
    "extend_of": _id,
    "group": _text,
}

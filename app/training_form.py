"""What the Train tab asks for, as the command that trains, and what that will take. Imports no torch.

The command is `python launch.py train lora`; what can be chosen and what is valid is the engine's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from app.settings import Settings
from app.training_clips import clip_folder
from engine.errors import RequestError
from engine.lora.library import safe_name
from engine.profile import read_profile
from engine.timing import nearest_frame_count
from engine.training.lora.clips import Format, format_of
from engine.training.lora.settings import LoraSettings

ROOT = Path(__file__).resolve().parents[1]
MODULE = "engine.training.cli"
PLAN_SECONDS = 180.0
SAMPLES = 4  # times in a run that it is looked at, where the form does not say
KEEP_PROMPTS = "keep-prompts.txt"
SAVE_SECONDS = 600.0  # of work that a power cut may cost
MAX_TEXT = 4000


def _sayable(text: str) -> str:
    """A text that a command can hold."""
    if "\x00" in text:
        raise ValueError("it holds a NUL character")
    return text


Line = Annotated[str, AfterValidator(_sayable)]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # what is in range is said by the engine's settings


class TrainingForm(BaseModel):
    """The form, as it comes from the page. Numbers are checked by the engine's settings.

    Attributes:
        data: folder of clips. name: what the LoRA is called. seconds, size: of the clips; None is the model's own.
        learn, modules, trigger, steps, rank, batch, rate, seed: as in `LoraSettings`; rate None is found by itself.
        keep: what must not be forgotten, a line each. looks: prompts of the samples, a line each.
        clips: "wait": clips in the queue wait until training pauses or ends; "first": training makes way for them.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    data: Line = Field(default="", max_length=MAX_TEXT)
    name: Line = Field(default="", max_length=100)
    trigger: Line = Field(default="", max_length=100)
    steps: Whole = 800
    rank: Whole = 16
    learn: str = "both"
    modules: str = "all"
    seconds: float | None = Field(default=None, gt=0, le=100)
    size: str | None = Field(default=None, pattern=r"^[1-9]\d{1,3}x[1-9]\d{1,3}$")
    batch: Whole = 4
    rate: float | None = None
    seed: Whole = 1
    keep: Line = Field(default="", max_length=MAX_TEXT)
    looks: Line = Field(default="", max_length=MAX_TEXT)
    clips: Literal["wait", "first"] = "wait"

    @classmethod
    def read(cls, values: Any) -> TrainingForm:
        """Raises `RequestError`: a value is not valid; the message names it."""
        try:
            form = cls.model_validate(values if isinstance(values, dict) else {})
        except ValidationError as error:
            first = error.errors()[0]
            raise RequestError(f"{'.'.join(map(str, first['loc']))}: {first['msg'][:200]}") from None
        form.settings()
        return form

    @property
    def folder_name(self) -> str:
        """Of the run's folder."""
        return safe_name(self.name)

    def settings(self, step_seconds: float | None = None) -> LoraSettings:
        """As the engine takes them.

        Args:
            step_seconds: what a step is thought to take, above 0; checkpoints are no further apart than `SAVE_SECONDS`.

        Raises:
            RequestError: a value is out of range; the message names the nearest.
        """
        save = 100 if not step_seconds else max(1, int(min(100.0, SAVE_SECONDS / step_seconds)))
        return LoraSettings(
            trigger=" ".join(self.trigger.split()), learn=self.learn, modules=self.modules, rank=self.rank,
            steps=self.steps, batch=self.batch, rate=self.rate, seed=self.seed,
            sample_every=max(1, -(-self.steps // SAMPLES)), save_every=save,
        )  # fmt: skip

    def format(self, model: Path) -> Format:
        """What clips are made into.

        Raises:
            RequestError: not valid for the model.
        """
        width, _, height = (self.size or "").partition("x")
        fps = read_profile(model).fps
        frames = nearest_frame_count(round(self.seconds * fps)) if self.seconds else None
        return format_of(model, (int(width), int(height)) if self.size else None, frames)


@dataclass(frozen=True)
class Place:
    """Where and on what a training runs. Attributes: folder: of the run; library: of LoRAs; settings: the studio's."""

    model: Path
    folder: Path
    library: Path
    settings: Settings


def arguments(form: TrainingForm, at: Place, step_seconds: float | None = None) -> list[str]:
    """What follows `launch.py train`.

    Raises:
        RequestError: a value is not valid.
    """
    made, chosen = form.format(at.model), form.settings(step_seconds)
    words = {
        "data": clip_folder(form.data), "name": form.name, "base": at.model, "work": at.folder,
        "library": at.library, "size": f"{made.width}x{made.height}", "frames": made.frames,
        "trigger": chosen.trigger, "learn": chosen.learn, "modules": chosen.modules, "rank": chosen.rank,
        "steps": chosen.steps, "batch": chosen.batch, "seed": chosen.seed, "rate": chosen.rate,
        "sample-every": chosen.sample_every, "save-every": chosen.save_every,
        "keep-prompts": at.folder / KEEP_PROMPTS if form.keep.strip() else None,
        "precision": at.settings.precision,
        "device": "cpu" if at.settings.memory == "cpu" else at.settings.device,
        "memory": at.settings.memory if at.settings.memory.isdecimal() else None,
    }  # fmt: skip
    looks = [line.strip() for line in form.looks.splitlines() if line.strip()]
    return [
        "lora",
        *(f"--{k}={v}" for k, v in words.items() if v is not None),
        *(f"--sample-prompt={x}" for x in looks),
    ]


def command(words: list[str]) -> list[str]:
    """The process that trains, in this environment."""
    return [sys.executable, "-P", "-m", MODULE, *words]


def plan(form: TrainingForm, at: Place) -> dict[str, Any]:
    """Asks a process of its own, since the planner needs torch.

    Returns:
        "why": how it fits into memory, in a sentence; "fits"; "step_seconds": by calculation, or None.

    Raises:
        RequestError: a value is not valid, or no plan could be made.
    """
    words = [word for word in arguments(form, at) if not word.startswith("--keep-prompts=")]
    try:
        done = subprocess.run(
            command([*words, "--plan"]), capture_output=True, text=True, encoding="utf-8", errors="replace",
            timeout=PLAN_SECONDS, check=False, env=environment(),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RequestError(f"the plan could not be made ({type(error).__name__}); the doctor may tell why") from None
    if done.returncode:
        raise RequestError(last_words(done.stderr) or "the plan could not be made; the doctor may tell why")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def environment() -> dict[str, str]:
    """Of a process that trains: our code, this machine's models, nothing from the network."""

    ours = {"PYTHONPATH": str(ROOT), "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    return {**os.environ, **ours, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def says_why(text: str) -> bool:
    """Whether a training that ended said why: its own error, or Python's. One that was killed says nothing."""
    return any(line.startswith(("train: ", "Traceback (most recent call last)")) for line in text.splitlines())


def last_words(text: str) -> str:
    """Why a training ended, as it said itself: its own error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line.removeprefix("train: ") for line in lines if line.startswith("train: ")]
    return (own or lines or [""])[-1][:400]

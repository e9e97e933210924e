"""Preferences that outlive a start: one JSON file, written whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import StudioError
from engine.media.publish import atomic_file

log = logging.getLogger(__name__)


class Settings(BaseModel):
    """All preferences. What a form offers is checked here; `form` and `presets` hold what pages like to keep.

    Attributes:
        language: "auto" follows the browser. theme: "dark", "light" or "auto".
        model: name or folder of the model for new jobs; "" is the bundled one. lora_folder: "" is the usual one.
        device, precision: as in `engine.device`. memory: what a model may take of the card, in GB; "auto" is all that
            is free, "cpu" leaves the card out.
        idle_minutes: after that long without work the worker ends and its memory is free; 0 keeps it.
        keep_latents: keep each clip's latents, so that "sound again" loses nothing (about 10 MB for 8 s at 360p).
        notify: "off", "sound" or "message" when a clip is done.
        guest_jobs: unfinished jobs a guest may have. share_hours: a shared page shuts to guests after that long.
        welcomed: the first-run panel was dismissed, or its first clip begun.
        upload_megabytes: largest picture or video that can be brought in.
        presets: own presets, name -> fields of `JobSpec`. form: the Create form as it was left.
    """

    model_config = ConfigDict(validate_assignment=True, extra="ignore")

    language: Literal["auto", "en", "zh"] = "auto"
    theme: Literal["dark", "light", "auto"] = "dark"
    model: str = ""
    lora_folder: str = ""
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    memory: Literal["auto", "8", "12", "16", "24", "48", "cpu"] = "auto"
    idle_minutes: float = Field(default=10.0, ge=0, le=10_000)
    keep_latents: bool = True
    notify: Literal["off", "sound", "message"] = "off"
    guest_jobs: int = Field(default=3, ge=1, le=100)
    share_hours: float = Field(default=8.0, gt=0, le=168)
    upload_megabytes: int = Field(default=64, ge=1, le=1024)
    welcomed: bool = False
    presets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    form: dict[str, Any] = Field(default_factory=dict)


class SettingsFile:
    """The settings of one studio. `current` is what holds; `change` writes through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.current = _read(path)

    def change(self, **values: Any) -> Settings:
        """Sets some preferences and writes the file.

        Raises:
            StudioError: a name or a value is not valid, or the file cannot be written (OutputError).
        """
        unknown = values.keys() - Settings.model_fields.keys()
        if unknown:
            raise StudioError(f"there is no setting {sorted(unknown)[0]!r}")
        with self._lock:
            try:
                changed = Settings.model_validate(self.current.model_dump() | values)
            except ValidationError as error:
                first = error.errors()[0]
                name = ".".join(str(part) for part in first["loc"])
                raise StudioError(f"setting {name}: {first['msg'][:200]}") from None
            text = changed.model_dump_json(indent=2) + "\n"
            with atomic_file(self._path) as part:
                part.write_text(text, encoding="utf-8")
            self.current = changed
            return changed


def _read(path: Path) -> Settings:
    """The file's settings; the defaults where there is none. A file that cannot be used is put aside, not lost."""
    if not path.exists():
        return Settings()
    try:
        return Settings.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        aside = path.with_name(f"{path.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}")
        os.replace(path, aside)
        log.warning("settings could not be read (%s); they are in %s, defaults hold", str(error).splitlines()[0], aside)
        return Settings()

"""What the studio hands to its worker. Knows no torch: both sides import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.spec import JobSpec


@dataclass(frozen=True)
class Order:
    """One job with everything it needs from the disk, so that the worker asks no database.

    Attributes:
        job, owner, spec: of the job. data: the studio's data folder. model: the model's folder.
        image, last_image: files of the pictures. source: the mp4 of the clip to extend or to keep a side of;
        source_latents: its latents, where they were kept. loras: the folder of the LoRAs; None is the usual one.
        memory: as in the settings.
    """

    job: str
    owner: str
    spec: JobSpec
    data: Path
    model: Path
    device: str
    precision: str
    keep_latents: bool
    image: Path | None = None
    last_image: Path | None = None
    source: Path | None = None
    source_latents: Path | None = None
    loras: Path | None = None
    memory: str = "auto"

    def to_message(self) -> dict[str, Any]:
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}
        return plain | {"do": "run", "spec": self.spec.to_dict()}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Order:
        values = {name: message[name] for name in cls.__dataclass_fields__}
        for name in ("data", "model", "image", "last_image", "source", "source_latents", "loras"):
            values[name] = None if values[name] is None else Path(values[name])
        return cls(**{**values, "spec": JobSpec.from_dict(message["spec"])})

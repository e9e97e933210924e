"""Latents of a job from its last step to its published clip: a failure after the steps costs none. Worker only."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.order import Order
from app.paths import StudioPaths
from engine.errors import OutputError
from engine.media.publish import flush

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Latents:
    """Both sides after the last step, float32 on the CPU.

    Attributes:
        truncated: the prompt was longer than the model reads.
        exact: a kept side came from saved latents, so its decoding is that side; otherwise it is copied from the mp4.
        loras: a line for each LoRA that was on the model: what of it was used, and what to know.
    """

    video: torch.Tensor
    audio: torch.Tensor
    truncated: bool = False
    exact: bool = True
    loras: tuple[str, ...] = ()

    @staticmethod
    def path(order: Order) -> Path:
        return StudioPaths(order.data).latents(order.job)

    def save(self, order: Order) -> None:
        """Writes them to the work folder, whole or not at all."""
        from safetensors.torch import save_file

        target = self.path(order)
        part = target.with_suffix(".part")
        marks = {"order": _fingerprint(order), "truncated": str(int(self.truncated)), "exact": str(int(self.exact))}
        marks["loras"] = json.dumps(self.loras)
        try:
            save_file({"video": self.video.contiguous(), "audio": self.audio.contiguous()}, part, marks)
            flush(part)
            os.replace(part, target)
        except OSError as error:
            raise OutputError(f"cannot keep the latents in {target.parent}: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, order: Order) -> Latents | None:
        """Those of an earlier attempt at the same job; None where there are none, or the job was changed since."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(cls.path(order), "pt") as file:
                marks = file.metadata() or {}
                if marks.get("order") != _fingerprint(order):
                    return None
                log.info("job %s goes on from its saved latents", order.job[:8])
                truncated, exact = marks.get("truncated") == "1", marks.get("exact") == "1"
                loras = tuple(json.loads(marks.get("loras", "[]")))
                return cls(file.get_tensor("video"), file.get_tensor("audio"), truncated, exact, loras)
        except (FileNotFoundError, SafetensorError):
            return None


def _fingerprint(order: Order) -> str:
    """Changes with anything that would change the latents."""
    text = json.dumps([order.spec.to_dict(), str(order.model), order.device, order.precision], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

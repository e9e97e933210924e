"""How far a training is, for whoever watches it: another process, a page. Imports no torch.

A run's folder has `run.json` (what it was started with), `stage.json` (what it is doing), `log.jsonl` (losses),
`samples/`, `checkpoint.pt`, and at the end NAME.safetensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.errors import OutputError
from engine.media.publish import atomic_file
from engine.training.log import read_lines

RUN, STAGE, LOG, CHECKPOINT, SAMPLES = "run.json", "stage.json", "log.jsonl", "checkpoint.pt", "samples"
RECENT = 20  # lines of log whose seconds a step say how fast it goes

Stage = Literal["load", "encode", "keep", "train", "finish"]


@dataclass(frozen=True)
class Progress:
    """One run as it stands.

    Attributes:
        steps: of the whole run; 0 while that is not known. step: done by now.
        stage: "load" (the model), "encode" (clips), "keep" (clips of what shall not be forgotten), "train", "finish".
        done, count: within "encode" and "keep".
        curves: records of the log that hold losses, one a step, in order.
        samples: clips that were made in between, the oldest first.
        saved: there is a checkpoint.
        file: the finished LoRA.
        step_seconds: a step takes now; None before the first.
    """

    steps: int
    step: int
    stage: Stage
    done: int
    count: int
    curves: tuple[dict[str, Any], ...]
    samples: tuple[Path, ...]
    saved: bool
    file: Path | None
    step_seconds: float | None


def tell(folder: Path, stage: Stage, done: int = 0, count: int = 0) -> None:
    """Writes down what a run is doing. Raises `OutputError` where that cannot be written."""
    try:
        with atomic_file(folder / STAGE) as part:
            part.write_text(json.dumps({"stage": stage, "done": done, "count": count}), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error


def read_progress(folder: Path) -> Progress:
    """Whatever a run has written so far; what is not there yet counts as nothing."""
    run, stage = _read(folder / RUN), _read(folder / STAGE)
    lines = read_lines(folder / LOG) if (folder / LOG).is_file() else []
    by_step = {line["step"]: line for line in lines if "loss" in line}  # steps that were done twice count as done last
    last = lines[-1]["step"] if lines else 0
    curves = tuple(by_step[step] for step in sorted(by_step) if step <= last)
    pace = sorted(line["step_seconds"] for line in curves[-RECENT:])
    return Progress(
        steps=int(run.get("settings", {}).get("steps", 0)),
        step=last,
        stage=stage.get("stage", "load"),
        done=stage.get("done", 0),
        count=stage.get("count", 0),
        curves=curves,
        samples=tuple(sorted((folder / SAMPLES).glob("step-*.mp4"))),
        saved=(folder / CHECKPOINT).is_file(),
        file=next(iter(sorted(folder.glob("*.safetensors"))), None),
        step_seconds=pace[len(pace) // 2] if pace else None,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

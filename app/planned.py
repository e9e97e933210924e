"""How a model's own clip would run here, in words: `python -m app.planned MODEL MEMORY DEVICE PRECISION`.

A process of its own, because planning measures the card with torch, which the page's process never loads.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from engine.errors import MovaError, RequestError
from engine.profile import read_profile

SECONDS = 120.0


def main(argv: list[str]) -> int:
    """Prints {"why": sentence, "advice": what would fit or ""} or {"error": sentence}."""
    from engine.memory.choose import plan_clip
    from engine.memory.sizes import Work, guidance_passes

    folder, memory, device, precision = Path(argv[0]), *argv[1:]
    try:
        profile = read_profile(folder)
        width, height = profile.sizes[0]
        passes = guidance_passes(profile.guidance, profile.bridge_guidance)
        work = Work(width, height, profile.frames, profile.fps, passes, profile.steps)
        plan = plan_clip(folder, work, device, precision, memory)
        print(json.dumps({"why": plan.why, "advice": plan.advice}))
    except MovaError as error:
        print(json.dumps({"error": str(error)}))
    return 0


def plan_in_words(folder: Path, memory: str, device: str, precision: str) -> dict[str, Any]:
    """Asks such a process.

    Returns:
        "why": the clip and how it would run. "advice": what would fit, where that does not.

    Raises:
        RequestError: no plan can be made, or the process gave no answer.
    """
    command = [sys.executable, "-m", "app.planned", str(folder), memory, device, precision]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=SECONDS, check=True)
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise RequestError(f"the plan could not be made ({type(error).__name__}); the doctor may tell why") from None
    if "error" in said:
        raise RequestError(str(said["error"]))
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

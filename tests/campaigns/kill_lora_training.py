"""Kills a LoRA training with SIGKILL at random moments: every checkpoint must be whole, and the end the same.

    python -m tests.campaigns.kill_lora_training --kills 20

The run that was killed again and again must end with the factors of one that never was.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from engine.training import checkpoint
from tests.unit.test_lora_training import PROFILE, TINY, clip, command, environment, kill_again_and_again


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        shutil.copytree(TINY, home / "model")
        (home / "model" / "studio.json").write_text(json.dumps(PROFILE), encoding="utf-8")
        (home / "clips").mkdir()
        for i in range(4):
            clip(home / "clips" / f"{i}.mp4", 9, i)
            (home / "clips" / f"{i}.txt").write_text(f"a zorb number {i}\n", encoding="utf-8")
        tally = kill_again_and_again(home, "killed", args.kills, args.seed)
        steps = str(max(12, 3 * args.kills))
        straight = [sys.executable, *command(home, "straight", "--steps", steps, "--save-every", "1")]
        subprocess.run(straight, env=environment(home), check=True, stdout=subprocess.DEVNULL)
        ours, theirs = (checkpoint.read(home / n / "checkpoint.pt")["average"] for n in ("killed", "straight"))
        same = all(torch.equal(v, theirs[k]) for k, v in ours.items())
    print(f"{tally}; the same factors as without: {same}")
    return 0 if tally["torn"] == 0 and tally["finished"] and not tally["left"] and same else 1


if __name__ == "__main__":
    sys.exit(main())

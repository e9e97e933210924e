"""Kills the studio's own process with SIGKILL, again and again, while jobs wait, run and are submitted.

    python tests/faults/kill_studio.py --kills 20

Every job that was acknowledged must be there after the next start and end done, with the clip that an undisturbed run
makes; no worker may outlive its studio, and nothing may be left over. Exits with 1 if anything of that fails.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.app_parts import MODEL, digest, python, stray_files, studio
from tests.faults.verdict import verdict

FIELDS = {"prompt": "a bell rings", "size": "32x32", "num_frames": 5, "num_inference_steps": 6, "guidance_scale": 1}


@dataclass
class Toll:
    """What a campaign came to. starts: seconds from each start to an answer."""

    kills: int = 0
    jobs: int = 0
    done: int = 0
    starts: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills of the studio, {self.jobs} jobs acknowledged, {self.done} done; starts took up to "
            f"{max(self.starts):.1f} s; {len(self.faults)} faults"
        )


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A studio's process and the port of its page, from when it answers. What is left of it is killed at the end."""
    arguments = ("-m", "app.studio", "--no-browser", "--port", "0", "--data-dir", str(folder), "--model", str(MODEL))
    process = python(*arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        said = b""
        for line in process.stdout:
            said += line
            if found := re.search(rb"http://127\.0\.0\.1:(\d+)", said):
                yield process, int(found[1])
                return
        raise AssertionError(f"the studio ended with {process.wait()}: {said!r}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def ask(port: int, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to /v1.

    Raises:
        OSError, HTTPException: the studio went down meanwhile.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(
            method, path, None if body is None else json.dumps(body), {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        assert answer.status == 200, found
        return found
    finally:
        connection.close()


def campaign(folder: Path, kills: int, seed: int, longest: float) -> Toll:
    """Starts, submits, kills; then lets the last studio finish.

    Args:
        longest: seconds that a studio lives at most after it answers.
    """
    dice, toll = random.Random(seed), Toll()
    asked: dict[str, int] = {}
    for number in range(kills + 1):
        began = time.monotonic()
        with running(folder) as (process, port):
            toll.starts.append(time.monotonic() - began)
            missing = asked.keys() - {video["id"] for video in _all(port)}
            toll.faults += [f"{job[:8]} is lost after kill {number}" for job in missing]
            for _ in range(2):
                asked[_submit(port, seed=dice.randrange(3))] = number
            if number == kills:
                toll.faults += _finish(port, asked)
                break
            worker = [child.pid for child in psutil.Process(process.pid).children()]
            end = time.monotonic() + dice.uniform(0, longest)
            with contextlib.suppress(OSError, http.client.HTTPException):
                while time.monotonic() < end:
                    if dice.random() < 0.02:
                        asked[_submit(port, seed=dice.randrange(3))] = number
                    time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            toll.kills += 1
        toll.faults += [f"worker {pid} outlives its studio" for pid in worker if not _ends(pid)]
    toll.jobs = len(asked)
    toll.done = sum(1 for _ in folder.glob("results/*/*.mp4"))
    toll.faults += _differences(folder, asked)
    toll.faults += [f"left over: {name}" for name in stray_files(folder)]
    return toll


def _submit(port: int, seed: int) -> str:
    return str(ask(port, "POST", "/v1/videos", {**FIELDS, "seed": seed})["id"])


def _all(port: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = ask(port, "GET", f"/v1/videos?limit=100{after}")
        found += page["data"]
        if not page["has_more"]:
            return found
        after = f"&after={page['last_id']}"


def _finish(port: int, asked: dict[str, int]) -> list[str]:
    """Waits for all jobs; what did not end done is a fault."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        videos = {video["id"]: video for video in _all(port)}
        if all(videos[job]["status"] in ("completed", "failed") for job in asked if job in videos):
            break
        time.sleep(0.2)
    return [f"{job[:8]} is {videos[job]}" for job in asked if job in videos and videos[job]["status"] != "completed"]


def _ends(pid: int, seconds: float = 15.0) -> bool:
    """Whether a process is gone within that time; one that is not is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    return False


def _differences(folder: Path, asked: dict[str, int]) -> list[str]:
    """Clips of one seed must be one clip, whenever they were made; every job must have one."""
    found, clips = [], {}
    with studio(folder) as core:
        for job_id in asked:
            job = core.queue.get(job_id)
            if job.result is None:
                found.append(f"{job_id[:8]} has no clip")
                continue
            made = digest(core.library.path(core.library.get(job.result)))
            if clips.setdefault(job.spec.seed, made) != made:
                found.append(f"{job_id[:8]} differs from another clip of seed {job.spec.seed}")
        if core.library.count() != len(asked):
            found.append(f"{core.library.count()} clips of {len(asked)} jobs")
    return found


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--kills", type=int, default=20)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--longest", type=float, default=12.0, help="seconds a studio may live at most")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="mova-kills-") as folder:
        toll = campaign(Path(folder), args.kills, args.seed, args.longest)
    return verdict(toll, toll.faults)


if __name__ == "__main__":
    sys.exit(main())

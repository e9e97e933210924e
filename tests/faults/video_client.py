"""OpenAI's own client against the studio's `/v1/videos`: what it expects is what it gets, errors included.

    pip install openai
    python tests/faults/video_client.py

The client is no dependency of the studio and of no test; without it this says so and does nothing. A studio with a
password, its worker and the tests' model answer on a port of this machine. Exits with 1 on any fault.
"""

from __future__ import annotations

import importlib
import io
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image

from app.core import Core
from app.server import make_server
from app.sessions import read_token
from engine.media import read_clip, read_settings
from tests.app_parts import stray_files, studio, wait
from tests.faults.verdict import verdict

SMALL = {"num_frames": 5, "num_inference_steps": 2, "guidance_scale": 1.0}


@dataclass
class Toll:
    """What was tried, and what went wrong."""

    tried: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def expect(self, what: str, good: bool, found: Any = "") -> None:
        self.tried.append(what)
        if not good:
            self.faults.append(f"{what}: {found}")

    def refused(self, what: str, kind: type[Exception], deed: Callable[[], Any]) -> Any:
        """The error that a deed must end with; None where it did not."""
        self.tried.append(what)
        try:
            deed()
        except kind as error:
            return error
        except Exception as error:
            self.faults.append(f"{what}: {type(error).__name__} instead of {kind.__name__}: {error}")
            return None
        self.faults.append(f"{what}: went well")
        return None


@contextmanager
def served(folder: Path) -> Iterator[tuple[Core, str, str]]:
    """A studio behind a password, its base address for clients, and its token."""
    with studio(folder, work=True, auth=(("ann", "secret"),)) as core:
        server = uvicorn.Server(uvicorn.Config(make_server(core), port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        try:
            port = server.servers[0].sockets[0].getsockname()[1]
            yield core, f"http://127.0.0.1:{port}/v1", read_token(core.paths.token)
        finally:
            server.should_exit = True
            thread.join(20)


def campaign(folder: Path, openai: Any) -> Toll:
    toll = Toll()
    with served(folder) as (core, base, token), openai.OpenAI(base_url=base, api_key=token, max_retries=0) as client:
        _one_clip(toll, client, folder)
        _pictures(toll, client)
        _lists(toll, client)
        _errors(toll, openai, client, base)
        for job in core.queue.find():
            wait(core, job)
        toll.expect("nothing is left over", stray_files(folder) == [], stray_files(folder))
    return toll


def _one_clip(toll: Toll, client: Any, folder: Path) -> None:
    asked = client.videos.create(prompt="a bell rings", model="sora-2", size="32x32", extra_body={**SMALL, "seed": 7})
    toll.expect("create", asked.status in ("queued", "in_progress") and asked.object == "video", asked)
    done = client.videos.poll(asked.id, poll_interval_ms=100)
    toll.expect("poll", done.status == "completed" and done.progress == 100 and done.error is None, done)
    toll.expect(
        "what was asked",
        (done.prompt, done.size, done.completed_at is not None) == ("a bell rings", "32x32", True),
        done,
    )
    content = client.videos.download_content(done.id)
    path = folder.with_suffix(".mp4")
    content.write_to_file(path)
    clip, settings = read_clip(path), read_settings(path) or {}
    path.unlink()
    toll.expect("download", clip.frames.shape == (5, 32, 32, 3) and len(clip.samples) > 0, clip.frames.shape)
    toll.expect("settings in the mp4", (settings.get("seed"), settings.get("steps")) == (7, 2), settings)
    with Image.open(io.BytesIO(client.videos.download_content(done.id, variant="thumbnail").read())) as picture:
        toll.expect("thumbnail", picture.format == "WEBP", picture.format)
    gone = client.videos.delete(done.id)
    toll.expect("delete", gone.deleted and gone.id == done.id, gone)


def _pictures(toll: Toll, client: Any) -> None:
    out = io.BytesIO()
    Image.fromarray(np.full((30, 40, 3), 120, np.uint8)).save(out, "PNG")
    sent = ("first.png", out.getvalue(), "image/png")
    made = client.videos.create_and_poll(
        prompt="x", size="32x32", input_reference=sent, poll_interval_ms=100, extra_body=SMALL
    )
    toll.expect("create and poll with a picture", made.status == "completed", made)


def _lists(toll: Toll, client: Any) -> None:
    made = [client.videos.create(prompt=f"clip {n}", size="32x32", extra_body=SMALL).id for n in range(5)]
    found = [video.id for video in client.videos.list(limit=2)]  # the client turns the pages
    toll.expect("all pages of the list", found[:5] == made[::-1] and len(set(found)) == len(found), found)
    cancelled = client.post(f"/videos/{made[-1]}/cancel", cast_to=object)
    ended = client.videos.retrieve(made[-1])
    good = ended.status == "completed" or (ended.error is not None and ended.error.code == "cancelled")
    toll.expect("cancel", good, (cancelled, ended))


def _errors(toll: Toll, openai: Any, client: Any, base: str) -> None:
    wrong = toll.refused("a wrong size", openai.BadRequestError, lambda: client.videos.create(prompt="x", size="33x33"))
    toll.expect("its advice", wrong is not None and "nearest valid value is 32" in str(wrong), wrong)
    empty = toll.refused("no prompt", openai.BadRequestError, lambda: client.videos.create(prompt=""))
    toll.expect("its code", empty is not None and bool(empty.code) and empty.type == "invalid_request_error", empty)
    toll.refused("no such video", openai.NotFoundError, lambda: client.videos.retrieve("0" * 32))
    toll.refused("no such content", openai.NotFoundError, lambda: client.videos.download_content("0" * 32))
    with openai.OpenAI(base_url=base, api_key="wrong", max_retries=0) as stranger:
        toll.refused("a wrong key", openai.AuthenticationError, lambda: stranger.videos.list())


def main() -> int:
    try:
        openai = importlib.import_module("openai")
    except ModuleNotFoundError:
        print("skipped: pip install openai, then run this again")
        return 0
    warnings.filterwarnings("ignore", "The Sora API", DeprecationWarning)  # theirs; ours goes on
    with tempfile.TemporaryDirectory(prefix="mova-client-") as folder:
        toll = campaign(Path(folder) / "data", openai)
    return verdict(f"openai {openai.__version__}: {len(toll.tried)} checks, {len(toll.faults)} faults", toll.faults)


if __name__ == "__main__":
    sys.exit(main())

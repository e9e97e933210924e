"""The studio as a process, and its page, for tests in a real browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import TimeoutError as TooSlow

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "data" / "mova-tiny" / "checkpoint"
PATIENCE = 240_000  # ms; the machine may have much else to do
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-background-networking", "--autoplay-policy=no-user-gesture-required")


def chromium() -> str | None:
    """The system's Chromium; None without one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def launched(playwright: Any) -> Any:
    """A running browser. Raises `RuntimeError`: the system has none."""
    found = chromium()
    if found is None:
        raise RuntimeError(f"none of {', '.join(BROWSERS)} is on this system")
    return playwright.chromium.launch(executable_path=found, args=list(FLAGS))


def small_model(folder: Path) -> Path:
    """The tiny model of tests/data with a profile of its own: sizes and lengths that take seconds."""
    model = folder / "small"
    model.mkdir()
    for part in TINY.iterdir():
        (model / part.name).symlink_to(part)
    profile = {
        "title": "Small",
        "sizes": [[96, 64], [64, 96]],
        "frames": 49,
        "steps": 6,
        "guidance": 3.0,
        "negative_prompt": "",
    }
    (model / "studio.json").write_text(json.dumps(profile))
    return model


def picture(path: Path, width: int = 240, height: int = 120) -> Path:
    """A PNG with a gradient, so that a crop can be told."""
    across = np.linspace(0, 255, width, dtype=np.uint8)
    pixels = np.stack(
        [np.tile(across, (height, 1)), np.full((height, width), 90, np.uint8), np.tile(across[::-1], (height, 1))], -1
    )
    Image.fromarray(pixels).save(path)
    return path


class RunningStudio:
    """One process of the studio; can be killed and started again on the same folder.

    Attributes:
        welcomed: a new folder begins without the first-run panel, so that the form is where it always is.
    """

    welcomed = True

    def __init__(self, data: Path, model: Path, *flags: str) -> None:
        self.data, self.model, self.flags = data, model, flags
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> float:
        """Starts it; returns the seconds until the page answered."""
        if self.welcomed and not self.data.exists():
            self.data.mkdir(parents=True)
            (self.data / "settings.json").write_text('{"welcomed": true}')
        began = time.monotonic()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "app.studio", "--no-browser", "--port", "0"),
                *("--data-dir", str(self.data), "--model", str(self.model)),
                *self.flags,
            ],
            cwd=ROOT,
            env=os.environ
            | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MOVA_LORAS": str(self.data.parent / "loras")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            found = re.search(r"http://\S+", line)
            if found:
                self.url = found[0]
                return time.monotonic() - began
        raise AssertionError("the studio did not start: " + "".join(said))

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.communicate(timeout=120)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate(timeout=120)

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """What the studio's database answers."""
        with closing(sqlite3.connect(self.data / "studio.sqlite3")) as database:
            return list(database.execute(question))

    def open(self, context: Any) -> Any:
        """A new page of the studio, ready to be used; `page.problems` lists errors of its console."""
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda said: said.type == "error" and page.problems.append(_located(said)))
        page.goto(self.url)
        ready(page)
        return page


def _located(said: Any) -> str:
    """A message of the console with the address it is about."""
    return f"{said.text} {said.location.get('url', '')}".strip()


def started(folder: Path) -> RunningStudio:
    """A studio of its own in an empty folder, with the small model, running."""
    studio = RunningStudio(folder / "data", small_model(folder))
    studio.start()
    return studio


def ready(page: Any) -> None:
    """Waits until the page shows the state of the studio and the form as it was left."""
    page.wait_for_selector("#generate")
    page.wait_for_function(
        "() => window.studio && studio.state.revision !== -1 && document.querySelector('.stage').dataset.view"
    )
    page.wait_for_function("() => document.querySelector('.costline b, .costline.wrong')")


def fill_form(page: Any, prompt: str, seconds: float = 1.0, steps: int | None = None, seed: str = "") -> None:
    page.fill("#prompt textarea", prompt)
    page.fill("#seed input", seed)
    number(page, "#seconds", seconds)
    if steps is not None:
        unfold(page)
        number(page, "#steps", steps)
        page.click("#more > button")


def unfold(page: Any) -> None:
    """Opens the fold *More*. A page just loaded may open it by itself, and a click at that moment closes it."""
    steps = page.locator("#steps input[type=number]")
    for patience in (5_000, 5_000, 30_000):
        if not steps.is_visible():
            page.click("#more > button")
        try:
            steps.wait_for(timeout=patience)
            return
        except TooSlow:
            if patience == 30_000:
                raise


def number(page: Any, field: str, value: float) -> None:
    box = page.locator(f"{field} input[type=number]")
    box.fill(str(value))
    box.press("Tab")


def clip_count(page: Any) -> int:
    count: int = page.evaluate("() => studio.state.clips.length")
    return count


def wait_for_clip(page: Any, before: int) -> None:
    """Waits until there is one clip more than `before`, and it is on the stage."""
    page.wait_for_function(f"() => studio.state.clips.length > {before}", timeout=3 * PATIENCE)
    page.wait_for_selector(".stage[data-view=clip]")


def make_clip(page: Any, prompt: str, **form: Any) -> None:
    fill_form(page, prompt, **form)
    before = clip_count(page)
    page.click("#generate")
    wait_for_clip(page, before)


def drop_file(page: Any, path: Path) -> None:
    """Drops a file on the page, as from the file manager."""
    page.evaluate(
        """async ([content, name]) => {
            const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name));
            for (const type of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(
                    new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [base64.b64encode(path.read_bytes()).decode(), path.name],
    )


def tab(page: Any, name: str) -> None:
    page.click(f'#tabs button[role="tab"][data-tab-id="{name}"]')


def tile_count(page: Any) -> int:
    count: int = page.locator(".library .card").count()
    return count

"""The pictures of the studio in the docs, taken of the studio as it is, with clips that the bundled model makes then.

python -m tests.pictures [--out docs/images]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from engine.folders import find_model
from tests.e2e.page_parts import ROOT, RunningStudio, make_clip, tab

PROMPTS = (
    "a small green ball bounces slowly on the grass; each bounce makes a dull thump",
    "a big yellow bell in the dark swings left and right, and dings",
    "a big blue drum on the grass is struck quickly by a stick",
    "a red face in a grey studio says ah, slowly",
)
BROWSER = ["--no-sandbox", "--disable-background-networking", "--autoplay-policy=no-user-gesture-required"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.pictures", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        studio = RunningStudio(Path(folder) / "data", find_model("demo"))
        studio.start()
        browser = playwright.chromium.launch(executable_path=options.browser, args=BROWSER)
        try:
            page = opened(studio, browser, 1440, 900)
            for seed, prompt in enumerate(PROMPTS, 1):
                make_clip(page, prompt, seconds=2.0, seed=str(seed))
            page.wait_for_timeout(1500)  # the waveform draws itself
            take(page, options.out / "studio-create.png")
            tab(page, "library")
            page.wait_for_timeout(2500)  # pictures of the clips load
            take(page, options.out / "studio-library.png")
            phone = opened(studio, browser, 390, 844)
            phone.wait_for_timeout(1500)
            take(phone, options.out / "studio-phone.png")
        finally:
            browser.close()
            studio.stop()


def opened(studio: RunningStudio, browser: Any, width: int, height: int) -> Any:
    context = browser.new_context(viewport={"width": width, "height": height}, locale="en-US", color_scheme="dark")
    return studio.open(context)


def take(page: Any, path: Path) -> None:
    """A screenshot in few colours: a third of the file, no difference to see."""
    page.screenshot(path=path)
    with Image.open(path, formats=["PNG"]) as shot:
        shot.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()

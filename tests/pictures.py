"""The pictures of the studio in the docs, taken of the studio as it is, with clips that the bundled model makes then.

Also a sheet of every tab: wide and on a phone, dark and light.

python -m tests.pictures [--out docs/images]
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from engine.folders import find_model
from tests.e2e.page_parts import ROOT, RunningStudio, launched, make_clip, tab

PROMPTS = (
    "a small green ball bounces slowly on the grass; each bounce makes a dull thump",
    "a big yellow bell in the dark swings left and right, and dings",
    "a big blue drum on the grass is struck quickly by a stick",
    "a red face in a grey studio says ah, slowly",
)
TABS = ("create", "library", "models", "train", "settings", "log")
SHEET_HEIGHT = 450  # of every picture in a sheet


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.pictures", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        studio = RunningStudio(Path(folder) / "data", find_model("demo"))
        studio.start()
        browser = launched(playwright)
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
            for name in TABS:
                sheet(page, phone, name, options.out / f"tab-{name}.png")
        finally:
            browser.close()
            studio.stop()


def opened(studio: RunningStudio, browser: Any, width: int, height: int) -> Any:
    context = browser.new_context(viewport={"width": width, "height": height}, locale="en-US", color_scheme="dark")
    return studio.open(context)


def take(page: Any, path: Path) -> None:
    """A screenshot in few colours: a third of the file, no difference to see."""
    save(shot(page), path)


def sheet(wide: Any, phone: Any, name: str, path: Path) -> None:
    """One tab four times, side by side: wide and on a phone, each dark and light."""
    shots = []
    for page in (wide, phone):
        tab(page, name)
        for look in ("dark", "light"):
            page.evaluate("look => window.studio.setTheme(look)", look)
            page.wait_for_timeout(1500)  # pictures load, colours have changed
            shots.append(shot(page))
        page.evaluate("window.studio.setTheme('dark')")
    shots = [
        s.resize((round(s.width * SHEET_HEIGHT / s.height), SHEET_HEIGHT), Image.Resampling.LANCZOS) for s in shots
    ]
    whole = Image.new("RGB", (sum(s.width for s in shots), SHEET_HEIGHT))
    left = 0
    for one in shots:
        whole.paste(one, (left, 0))
        left += one.width
    save(whole, path)


def shot(page: Any) -> Image.Image:
    with Image.open(io.BytesIO(page.screenshot()), formats=["PNG"]) as taken:
        return taken.convert("RGB")


def save(picture: Image.Image, path: Path) -> None:
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()

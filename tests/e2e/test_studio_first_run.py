"""The first-run panel in a real browser: what it says, a first clip by one button, gone for good, shown again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.page_parts import RunningStudio, ready, small_model, tab, wait_for_clip

NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1440, "height": 900}


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningStudio]:
    """A studio on a folder that was never used, in a home without models."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    running = RunningStudio(tmp_path / "data", small_model(tmp_path))
    running.welcomed = False
    running.start()
    yield running
    running.stop()


def visit(browser: Any, studio: RunningStudio, **more: Any) -> Any:
    return studio.open(browser.new_context(**{"viewport": WIDE, "locale": "en-US", **more}))


def is_gone(page: Any) -> bool:
    """Whether no panel comes; asked after the panel's own question was answered."""
    page.wait_for_timeout(1500)
    return page.locator(".welcome").count() == 0


def test_says_what_is_here_and_goes_for_good(browser: Any, studio: RunningStudio, tmp_path: Path) -> None:
    page = visit(browser, studio)
    panel = page.locator(".welcome")
    panel.wait_for()
    machine = page.inner_text("[data-facts=machine]")
    assert f"{psutil.cpu_count(logical=False)} cores" in machine
    free = shutil.disk_usage(tmp_path).free / 1e9
    said = float(re.search(r"([\d.]+) GB free for clips", machine)[1])
    assert said == pytest.approx(free, rel=0.1)
    models = page.inner_text("[data-facts=models]")
    assert "Works right now, offline" in models
    assert "MOVA-360p" in models
    assert "MOVA-720p" in models
    assert "78.0 GB" in models
    if not Path("/proc/driver/nvidia").exists() and not Path("/dev/kfd").exists():
        assert page.locator("[data-verdict=no_card]").count() == 2
    places = page.inner_text("[data-facts=places]")
    assert str(studio.data / "results") in places
    assert str(tmp_path / "home") in places
    # It blocks nothing: the form under it works as ever.
    page.fill("#prompt textarea", "words")
    page.click(".welcome [data-do=models]")
    page.wait_for_selector(".modelrow[data-name='MOVA-360p']")
    tab(page, "create")

    page.click(".welcome [data-do=dismiss]")
    panel.wait_for(state="detached")
    assert json.loads((studio.data / "settings.json").read_text())["welcomed"] is True
    page.reload()
    ready(page)
    assert is_gone(page)
    assert not page.problems
    page.context.close()
    studio.stop()
    studio.start()
    again = visit(browser, studio)  # another browser, after a restart
    assert is_gone(again)

    tab(again, "settings")
    again.click("[data-do=first]")
    again.wait_for_selector(".welcome")
    again.wait_for_function("() => document.activeElement.id === 'first-title'")
    again.click(".welcome [data-do=dismiss]")
    again.reload()
    ready(again)
    assert is_gone(again)
    assert not again.problems
    assert studio.process is not None
    maps = Path(f"/proc/{studio.process.pid}/maps")
    assert not maps.exists() or "libtorch" not in maps.read_text()  # the page's process looks at the machine without it


def test_one_button_makes_the_first_clip(browser: Any, studio: RunningStudio) -> None:
    page = visit(browser, studio)
    page.click(".welcome [data-do=make]")
    wait_for_clip(page, 0)
    assert page.locator(".welcome").count() == 0
    page.wait_for_function("() => studio.player.video.currentTime > 0.1")
    # What made it stands in the form, to be changed and tried again.
    page.wait_for_function("() => document.querySelector('#prompt textarea').value.includes('ball')")
    assert "ball" in page.inner_text(".about")
    page.reload()
    ready(page)
    assert is_gone(page)
    assert not page.problems


def test_a_studio_with_clips_has_no_first_run(browser: Any, studio: RunningStudio) -> None:
    """Settings that were lost do not make an old hand a beginner."""
    page = visit(browser, studio)
    page.click(".welcome [data-do=make]")
    wait_for_clip(page, 0)
    page.context.close()
    studio.stop()
    (studio.data / "settings.json").unlink()
    studio.start()
    assert is_gone(visit(browser, studio))


def test_language_and_phone(browser: Any, studio: RunningStudio) -> None:
    page = visit(browser, studio, viewport=NARROW, has_touch=True)
    page.wait_for_selector(".welcome")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= NARROW["width"]
    page.select_option(".welcome select", "zh")
    page.wait_for_selector(".welcome h2:has-text('欢迎')")
    assert json.loads((studio.data / "settings.json").read_text())["language"] == "zh"
    assert "内存" in page.inner_text("[data-facts=machine]")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= NARROW["width"]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_serious_finding_of_axe(browser: Any, studio: RunningStudio, theme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit(browser, studio)
    page.wait_for_selector(".welcome")
    page.evaluate("(theme) => studio.setTheme(theme)", theme)
    # Colours on their way from one theme to the other are neither's.
    page.wait_for_function("() => !document.getAnimations().some((one) => one instanceof CSSTransition)")
    found = Axe().run(page, context="#firstrun").response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []

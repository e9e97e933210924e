"""The player against the video's own clock: playhead, seeking, trimming, exports; and accessibility of every tab."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pytest

from engine.media import probe
from tests.e2e.page_parts import RunningStudio, make_clip, tab

FPS = 24.0


@pytest.fixture
def player(page: Any) -> Any:
    """The page with a clip of two seconds on the stage, paused."""
    if not page.evaluate("() => studio.state.clips.length"):
        make_clip(page, "a clip to be played", seconds=2.0, steps=2)
    page.wait_for_selector(".stage[data-view=clip] .badge")
    page.evaluate("() => { studio.player.video.pause(); studio.player.video.muted = true; }")
    return page


def test_the_playhead_is_where_the_video_is(player: Any) -> None:
    """20 samples while it plays, each at a painting: the place just drawn against the video's clock at that instant.

    In between two paintings nothing can be drawn, and a busy machine paints seldom: there only the middle one counts.
    """
    player.evaluate("() => studio.player.video.play()")
    player.wait_for_function("() => studio.player.video.currentTime > 0.05")
    painted, between = player.evaluate(
        """async () => {
            const { video, wave } = studio.player, painted = [], between = [];
            const apart = () => {
                const gap = Math.abs(video.currentTime - Number(wave.dataset.shown));
                return Math.min(gap, Math.abs(video.duration - gap));  // it may just have begun anew
            };
            while (painted.length < 20) {
                await new Promise((go) => setTimeout(go, 57));
                between.push(apart());
                painted.push(await new Promise((go) => requestAnimationFrame(() => go(apart()))));
            }
            return [painted, between];
        }"""
    )
    worst, middle = max(painted) * FPS, median(between) * FPS
    print(
        f"\nplayhead: at most {worst:.2f} frames from the video's clock where it is painted, "
        f"{middle:.2f} in the middle of what lies between (20 samples each)"
    )
    assert worst <= 2.0
    assert middle <= 2.0


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_click_seeks_within_a_frame(player: Any, share: float) -> None:
    box = player.locator(".stage .wave").bounding_box()
    player.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    player.wait_for_function("() => !studio.player.video.seeking")
    at, length = player.evaluate("() => [studio.player.video.currentTime, studio.player.video.duration]")
    off = abs(at - share * length) * FPS
    print(f"\nclick at {share:.0%}: {off:.2f} frames off")
    assert off <= 1.0


def test_drag_and_keys_seek(player: Any) -> None:
    wave = player.locator(".stage .wave")
    box = wave.bounding_box()
    y = box["y"] + box["height"] / 2
    player.mouse.move(box["x"] + 0.1 * box["width"], y)
    player.mouse.down()
    player.mouse.move(box["x"] + 0.6 * box["width"], y, steps=4)
    player.mouse.up()
    player.wait_for_function(
        "() => Math.abs(studio.player.video.currentTime / studio.player.video.duration - 0.6) < 0.03"
    )
    wave.focus()
    before = player.evaluate("() => studio.player.video.currentTime")
    player.keyboard.press("ArrowRight")
    player.wait_for_function(f"() => Math.abs(studio.player.video.currentTime - {before + 1 / FPS}) < 0.01")
    player.keyboard.press("Home")
    player.wait_for_function("() => studio.player.video.currentTime < 0.05")
    assert wave.get_attribute("role") == "slider"
    player.wait_for_function("() => Number(document.querySelector('.stage .wave').ariaValueNow) < 0.05")


def test_trim_and_every_export(player: Any, tmp_path: Path) -> None:
    player.click(".actions button:has-text('Trim')")
    ends = player.locator(".wave .handle")
    assert ends.count() == 2
    ends.nth(0).focus()
    player.keyboard.press("Shift+ArrowRight")  # ten frames
    ends.nth(1).focus()
    player.keyboard.press("Shift+ArrowLeft")
    start, end = player.evaluate("() => studio.player.range()")
    assert start == pytest.approx(10 / FPS, abs=0.01)
    for kind in ("mp4", "webm", "gif", "wav", "png"):
        player.click(".actions summary:has-text('Export')")
        with player.expect_download(timeout=120_000) as download:
            player.click(f".menu button:has(small:text-is('{kind}'))")
        path = tmp_path / f"export.{kind}"
        download.value.save_as(path)
        assert path.stat().st_size > 100
        if kind != "png":
            assert probe(path).seconds == pytest.approx(end - start, abs=0.12), kind
    player.click(".actions button:has-text('Trim')")
    assert player.evaluate("() => studio.player.range()") is None


def test_again_extend_and_the_last_frame(player: Any) -> None:
    """Each way to go on from a clip makes a job or fills the form."""
    player.evaluate("() => studio.act('hold', { on: true })")
    player.wait_for_function("() => studio.state.held")
    for number, item in enumerate(("Same seed", "New seed", "New sound", "New picture"), 1):
        player.click(".actions summary:has-text('Again')")
        player.click(f".menu button:has-text('{item}')")
        player.wait_for_function(f"() => studio.state.waiting.length === {number}")
    player.click(".actions summary:has-text('Extend')")
    player.click(".menu button:has-text('With the same words')")
    player.wait_for_function("() => studio.state.waiting.length === 5")
    player.click(".actions summary:has-text('Use')")
    player.click(".menu button:has-text('Last frame')")
    player.wait_for_selector("#picture-first .filled")
    player.click(".actions summary:has-text('Use')")
    player.click(".menu button:has-text('Use its seed')")
    player.wait_for_function("() => document.querySelector('#seed input').value === studio.state.clips[0].seed")
    player.evaluate("() => studio.act('cancel_waiting')")
    player.wait_for_function("() => studio.state.waiting.length === 0")
    player.evaluate("() => studio.act('hold', { on: false })")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_serious_finding_of_axe_on_any_tab(browser: Any, studio: RunningStudio, theme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US")
    context.add_init_script(f"localStorage.setItem('studio.theme', '{theme}')")
    page = studio.open(context)
    found = []
    for name in ("create", "library", "settings", "log"):
        tab(page, name)
        page.wait_for_timeout(800)
        if name == "create" and not page.is_visible("#steps"):
            page.click("#more > button")
            page.wait_for_timeout(300)
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                where = [node["target"] for node in violation["nodes"]][:4]
                found.append(f"{name}: {violation['id']} ({violation['impact']}) at {where}")
    print(f"\naxe-core, {theme}: {len(found)} serious findings on four tabs")
    context.close()
    assert not found, "\n".join(found)

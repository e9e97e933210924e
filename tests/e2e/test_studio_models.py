"""The Models tab in a real browser: fetched from a hub on this machine, paused, gone on with, verified, removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hub_parts import NAME, empty_home, local_hub
from tests.e2e.page_parts import RunningStudio, started, tab
from tests.hub_server import Fault, LocalHub, model_files


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalHub]:
    with local_hub(model_files(size=2**25)) as hub:  # slowly served it takes some seconds: time to press buttons
        yield hub


@pytest.fixture(scope="module")
def home(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with empty_home(hub, tmp_path_factory.mktemp("home")) as home:
        yield home


@pytest.fixture(scope="module")
def studio(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    running = started(tmp_path_factory.mktemp("studio"))
    yield running
    running.stop()


def condition(page: Any, name: str, wanted: str) -> Any:
    """Waits until a model is in a state; returns its row."""
    page.wait_for_selector(f".modelrow[data-name='{name}'][data-condition='{wanted}']")
    return page.locator(f".modelrow[data-name='{name}']")


def press(row: Any, what: str) -> None:
    row.locator(f"button[data-do={what}]").click()


def test_before_anything_is_fetched(page: Any, home: Path) -> None:
    tab(page, "models")
    row = condition(page, NAME, "absent")
    said = row.inner_text()
    assert "78.0 GB, Apache-2.0" in said
    assert "6 GB" in said  # what it needs
    assert str(home / "models") in said  # where it would go
    assert str(home / "enhancer") in condition(page, "qwen3-vl-2b", "absent").inner_text()
    bundled = condition(page, "demo", "unchecked")
    assert bundled.locator("button[data-do=remove]").count() == 0  # a part of the studio


def test_fetched_paused_gone_on_with_and_whole(page: Any, home: Path, hub: LocalHub) -> None:
    hub.fault = lambda *_: Fault("slow")
    tab(page, "models")
    press(condition(page, NAME, "absent"), "get")
    row = condition(page, NAME, "running")
    page.wait_for_function("() => document.querySelector('.moving progress')?.value > 0.1")
    assert page.locator(".modelrow[data-name='qwen3-4b'] button[data-do=get]").is_disabled()  # one at a time
    press(row, "pause")
    row = condition(page, NAME, "paused")
    assert not (home / "models" / NAME).exists()
    before = hub.sent
    page.reload()
    page.wait_for_selector("#generate")
    tab(page, "models")
    hub.fault = lambda *_: None
    row = condition(page, NAME, "paused")
    assert "MB of 50.3 MB" in row.inner_text()
    press(row, "get")
    row = condition(page, NAME, "verified")
    assert hub.sent - before < hub.size  # what had arrived did not come again
    assert "50.3 MB" in row.inner_text()
    assert (home / "models" / NAME / "model_index.json").is_file()


def test_damage_is_found_and_mended(page: Any, home: Path) -> None:
    tab(page, "models")
    victim = next((home / "models" / NAME / "video_dit").glob("*00001*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x00")
    press(condition(page, NAME, "verified"), "verify")
    row = condition(page, NAME, "damaged")
    assert victim.name in row.inner_text() or "damaged" in row.inner_text()
    assert row.locator("button[data-do=use]").count() == 0
    press(row, "repair")
    condition(page, NAME, "verified")
    press(page.locator(f".modelrow[data-name='{NAME}']"), "verify")
    page.wait_for_selector(f".modelrow[data-name='{NAME}'] :text('every byte checked')")


def test_removed_only_when_sure(page: Any, home: Path) -> None:
    tab(page, "models")
    press(condition(page, NAME, "verified"), "remove")
    dialog = page.locator("dialog.sure")
    assert str(home / "models" / NAME) in dialog.inner_text()
    dialog.locator("button:has-text('Keep it')").click()
    press(condition(page, NAME, "verified"), "remove")
    dialog.locator("button[data-do=sure]").click()
    condition(page, NAME, "absent")
    assert not (home / "models" / NAME).exists()


def test_a_cancelled_download_leaves_nothing(page: Any, home: Path, hub: LocalHub) -> None:
    hub.fault = lambda *_: Fault("slow")
    tab(page, "models")
    press(condition(page, NAME, "absent"), "get")
    page.wait_for_function("() => document.querySelector('.moving progress')?.value > 0.1")
    press(page.locator(f".modelrow[data-name='{NAME}']"), "cancel")
    page.locator("dialog.sure button[data-do=sure]").click()
    condition(page, NAME, "absent")
    hub.fault = lambda *_: None
    assert not [path for path in (home / "models" / ".incoming").iterdir() if path.name != "lock"]


def test_failure_and_wrong_folder_are_told(page: Any, home: Path, hub: LocalHub, tmp_path: Path) -> None:
    tab(page, "models")
    press(condition(page, "MOVA-720p", "absent"), "get")  # the local hub does not have it
    row = condition(page, "MOVA-720p", "failed")
    assert "MOVA-720p" in row.locator("small.bad").inner_text()
    where = page.locator(".modelsfoot input")
    where.fill("not a whole path")
    page.click(".modelsfoot button")
    page.wait_for_selector(".notice.bad:has-text('no whole path')")
    where.fill(str(tmp_path / "other drive"))
    page.click(".modelsfoot button")
    page.wait_for_selector(f".modelrow[data-name='{NAME}']:has-text('other drive')")
    where.fill(str(home / "models"))
    page.click(".modelsfoot button")
    page.wait_for_selector(f".modelrow[data-name='{NAME}']:has-text('{home / 'models'}')")


def test_phone_shows_all_of_it(browser: Any, studio: RunningStudio) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="en-US", has_touch=True)
    page = studio.open(context)
    tab(page, "models")
    condition(page, NAME, "absent")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    context.close()

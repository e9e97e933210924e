"""Who writes, who looks at the picture, and presets that keep both: in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prompt_enhancer.catalogue import BUNDLED_FILE
from tests.e2e.page_parts import RunningStudio, drop_file, number, picture, ready, small_model, tab, unfold
from tests.e2e.test_studio_words import lora_file
from tests.enhancer_parts import need_llama, write_projector

LOOK = ".looking .switch"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio on a machine that has no language model but the one in the box."""
    folder = tmp_path_factory.mktemp("studio")
    running = RunningStudio(folder / "data", small_model(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "home"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        running.start()
        yield running
        running.stop()


@pytest.fixture
def seeing(tmp_path: Path) -> Path:
    """A language model with its projector, somewhere on the machine."""
    need_llama()
    path = tmp_path / "Tiny-Eyes-F32.gguf"
    path.write_bytes(BUNDLED_FILE.read_bytes())
    write_projector(tmp_path / "mmproj-Tiny-Eyes-F16.gguf")
    return path


def mode(page: Any, name: str) -> None:
    page.click(f".modes button[data-mode={name}]")
    page.wait_for_selector(f".modes button[data-mode={name}][aria-checked=true]")


def open_panel(page: Any) -> None:
    if not page.is_visible(".writerset"):
        page.click(".tune")
    page.wait_for_selector(".writerset .looking")


def choose_own(page: Any, path: Path | str) -> None:
    open_panel(page)
    page.click(".writerset button:has-text('Own file')")
    page.fill(".ownfile input", str(path))
    page.click(".ownfile button")


def suggestion(page: Any) -> str:
    page.click(".suggest")
    page.wait_for_selector(".suggestion .cardfoot")
    text: str = page.inner_text(".suggestion")
    return text


def test_what_cannot_see_says_what_could_and_where_to_get_it(page: Any) -> None:
    mode(page, "suggest")
    open_panel(page)
    assert page.is_disabled(LOOK)
    assert page.get_attribute(LOOK, "aria-checked") == "false"
    assert "qwen3-vl-2b, 1.6 GB" in page.inner_text(".looking small")
    page.click(".looking .link")
    page.wait_for_selector("#models:visible >> text=qwen3-vl-2b")
    tab(page, "create")
    page.click(".writerlinks button:has-text('More writers')")
    page.wait_for_selector("#models:visible >> text=qwen3-4b")
    tab(page, "create")
    mode(page, "off")
    assert not page.is_visible(".tune")
    assert not page.is_visible(".writerset")


def test_an_own_file_writes_and_looks_if_it_is_let(page: Any, seeing: Path, tmp_path: Path) -> None:
    mode(page, "suggest")
    choose_own(page, tmp_path / "nothing.gguf")
    page.wait_for_selector(".notice.bad:has-text('cannot be read')")
    page.fill(".ownfile input", str(seeing))
    page.click(".ownfile button")
    page.wait_for_selector(f"{LOOK}[aria-checked=true]:enabled")
    assert "Tiny-Eyes-F32" in page.inner_text(".looking small")
    page.set_input_files("#picture-first input[type=file]", picture(tmp_path / "first.png"))
    page.wait_for_selector("#picture-first .filled .crop")
    page.fill("#prompt textarea", "A red ball bounces slowly.")
    told = suggestion(page)
    # of random weights: what they say may be used or not, but they were asked
    assert "The first frame is wide" not in told or "was not described" in told
    assert "Tiny-Eyes-F32" in told
    page.click(LOOK)
    page.wait_for_selector(f"{LOOK}[aria-checked=false]")
    told = suggestion(page)
    assert "was not described" not in told
    assert "The first frame is wide" in told
    page.wait_for_timeout(1500)  # the form is written a moment after the last change
    page.reload()
    ready(page)
    open_panel(page)
    assert page.get_attribute(LOOK, "aria-checked") == "false"
    assert page.evaluate("() => document.querySelector('.writerset select').value") == str(seeing)
    page.select_option(".writerset select", "demo")
    page.wait_for_selector(f"{LOOK}:disabled")
    page.click('#picture-first button[aria-label="Remove the picture"]')


def test_a_picture_alone_gets_a_suggestion(page: Any, tmp_path: Path) -> None:
    mode(page, "suggest")
    page.fill("#prompt textarea", "")
    page.set_input_files("#picture-first input[type=file]", picture(tmp_path / "first.png"))
    page.wait_for_selector("#picture-first .filled .crop")
    assert "The first frame is wide" in suggestion(page)
    page.click(".cardfoot button[aria-label='Dismiss']")
    page.click('#picture-first button[aria-label="Remove the picture"]')


def test_a_preset_brings_back_numbers_loras_and_enhancer(
    page: Any, studio: RunningStudio, seeing: Path, tmp_path: Path
) -> None:
    drop_file(page, lora_file(studio.model, tmp_path / "chalk.safetensors", "high", "Soft chalk", "chalk look", 1))
    page.wait_for_selector(".lora:has-text('Soft chalk')")
    strength = page.locator("input[type=number][aria-label='Strength of Soft chalk']")
    strength.fill("0.4")
    strength.press("Tab")
    choose_own(page, seeing)
    page.wait_for_selector(f"{LOOK}:enabled")
    if page.get_attribute(LOOK, "aria-checked") == "true":
        page.click(LOOK)
    mode(page, "automatic")
    page.click("#more > button")
    number(page, "#steps", 9)
    page.fill("#negative textarea", "fog")
    page.fill("#preset-name input, #preset-name textarea", "My  look")
    page.click("#preset-save")
    page.wait_for_selector(".notice:has-text('My look')")
    page.wait_for_selector("#preset label:has-text('My look') input:checked", state="attached")
    kept = json.loads((studio.data / "settings.json").read_text(encoding="utf-8"))["presets"]["My look"]
    assert kept["enhancer"] == {"mode": "automatic", "model": str(seeing), "look": False}
    assert [(one["name"], one["high"]) for one in kept["loras"]] == [("Soft chalk", 0.4)]

    page.click("#preset label:has-text('Draft')")
    page.wait_for_function("() => document.querySelector('#steps input[type=number]').value !== '9'")
    assert page.locator(".lora").count() == 1  # those of the model say nothing about LoRAs
    page.click("button[aria-label='Take Soft chalk out']")
    page.fill("#negative textarea", "rain")
    mode(page, "suggest")
    page.select_option(".writerset select", "rules")
    page.wait_for_timeout(1500)
    page.reload()
    ready(page)
    assert page.locator(".lora").count() == 0

    page.click("#preset label:has-text('My look')")
    page.wait_for_selector(".lora:has-text('Soft chalk')")
    page.wait_for_selector(".modes button[data-mode=automatic][aria-checked=true]")
    page.wait_for_function("() => studio.chosenLoras()[0].high === 0.4")
    unfold(page)
    page.wait_for_function("() => document.querySelector('#steps input[type=number]')?.value === '9'")
    assert page.input_value("#negative textarea") == "fog"
    open_panel(page)
    assert page.evaluate("() => document.querySelector('.writerset select').value") == str(seeing)
    assert page.get_attribute(LOOK, "aria-checked") == "false"
    assert page.is_checked("#preset label:has-text('My look') input")
    number(page, "#steps", 7)
    page.wait_for_selector("#preset label:has-text('My look') input:not(:checked)", state="attached")
    page.click("#preset label:has-text('My look')")
    page.click("#preset-delete")
    page.wait_for_selector(".notice:has-text('is deleted')")
    page.wait_for_selector("#preset label:has-text('My look')", state="detached")
    assert page.is_checked("#preset label:has-text('Standard') input")

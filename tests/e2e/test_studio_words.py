"""What changes the words: the enhancer under the prompt and LoRAs, in a real browser, down to the clip's sidecar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.lora.fit import folder_shapes
from tests.e2e.page_parts import RunningStudio, clip_count, drop_file, fill_form, make_clip, ready, wait_for_clip
from tests.lora_files import PREFIX

IDEA = 'A red ball bounces. A man says "Well done, Zoë!"'


def newest_sidecar(studio: RunningStudio) -> dict[str, Any]:
    path = max(studio.data.glob("results/**/*.json"), key=lambda one: one.stat().st_mtime)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def lora_file(model: Path, path: Path, part: str, title: str, trigger: str, seed: int) -> Path:
    """A LoRA for all self-attentions of one tower, with a name and a trigger word."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, shape in folder_shapes(model)[part].items():
        if name.endswith(".weight") and len(shape) == 2 and "self_attn" in name:
            module = f"{PREFIX[part]}.{name.removesuffix('.weight')}"
            tensors[f"{module}.lora_A.weight"] = torch.randn(2, shape[1], generator=generator) * 0.05
            tensors[f"{module}.lora_B.weight"] = torch.randn(shape[0], 2, generator=generator) * 0.05
    save_file(tensors, path, {"modelspec.title": title, "modelspec.trigger_phrase": trigger})
    return path


def mode(page: Any, name: str) -> None:
    page.click(f".modes button[data-mode={name}]")
    page.wait_for_selector(f".modes button[data-mode={name}][aria-checked=true]")


def test_suggest_see_edit_use_and_undo(page: Any) -> None:
    mode(page, "suggest")
    page.fill("#prompt textarea", IDEA)
    page.click(".suggest")
    page.wait_for_selector(".suggestion .cardfoot")
    written = page.inner_text(".suggestion .written")
    assert '"Well done, Zoë!"' in written
    fresh = page.locator(".suggestion ins").all_inner_texts()
    assert any("subtitles" in part for part in fresh)  # what is new is marked
    assert not any("Well done" in part for part in fresh)  # what is the user's own is not
    assert "Well done, Zoë!" in page.inner_text(".said")
    page.click(".cardfoot button:has-text('Edit')")
    area = page.locator("textarea.written")
    area.fill(area.input_value() + " It echoes.")
    page.click(".cardfoot button:has-text('Use it')")
    page.wait_for_function("() => document.querySelector('#prompt textarea').value.endsWith('It echoes.')")
    assert IDEA in page.inner_text(".idea")
    page.wait_for_timeout(1500)  # the form is written a moment after the last change
    page.reload()
    ready(page)
    page.wait_for_function("() => document.querySelector('#prompt textarea').value.endsWith('It echoes.')")
    assert IDEA in page.inner_text(".idea")
    page.click(".idea button:has-text('Undo')")
    page.wait_for_function("(idea) => document.querySelector('#prompt textarea').value === idea", arg=IDEA)
    assert not page.is_visible(".idea")


def test_other_words_forget_the_idea(page: Any) -> None:
    mode(page, "suggest")
    page.fill("#prompt textarea", IDEA)
    page.click(".suggest")
    page.wait_for_selector(".suggestion .cardfoot")
    page.click(".cardfoot button:has-text('Use it')")
    page.wait_for_selector(".idea:visible")
    page.fill("#prompt textarea", "Rain falls on dark water while nobody speaks")
    page.wait_for_selector(".idea", state="hidden")


def test_a_suggestion_can_be_dismissed_and_asked_anew(page: Any) -> None:
    mode(page, "suggest")
    page.fill("#prompt textarea", "")
    page.click(".suggest")
    page.wait_for_selector(".notice.bad")  # nothing to write about yet
    page.fill("#prompt textarea", "A bell rings twice.")
    page.click(".suggest")
    page.wait_for_selector(".suggestion .cardfoot")
    page.click(".cardfoot button:has-text('Another')")
    page.wait_for_selector(".suggestion .cardfoot")
    page.click(".cardfoot button[aria-label='Dismiss']")
    page.wait_for_selector(".suggestion", state="hidden")
    assert page.input_value("#prompt textarea") == "A bell rings twice."


def test_automatic_writes_when_the_clip_begins_and_keeps_both(page: Any, studio: RunningStudio) -> None:
    mode(page, "automatic")
    make_clip(page, "A yellow bell swings.", seconds=0.5, steps=2)
    page.wait_for_function("() => studio.state.clips[0].prompt === 'A yellow bell swings.'")
    assert page.input_value("#prompt textarea") == "A yellow bell swings."
    written = page.evaluate("() => studio.state.clips[0].written")
    assert "A yellow bell swings." in written
    assert written != "A yellow bell swings."
    kept = newest_sidecar(studio)
    assert json.dumps(written, ensure_ascii=False)[1:-1] in json.dumps(kept, ensure_ascii=False)
    page.click(".actions summary:has-text('Use')")
    page.click(".menu button:has-text('Use its settings')")
    page.wait_for_function("(text) => document.querySelector('#prompt textarea').value === text", arg=written)
    assert "A yellow bell swings." in page.inner_text(".idea")


def test_settings_of_a_clip_made_without_the_enhancer_leave_its_mode(page: Any) -> None:
    mode(page, "off")
    make_clip(page, "A grey drum is struck.", seconds=0.5, steps=2)
    mode(page, "automatic")
    page.fill("#prompt textarea", "something else")
    page.click(".actions summary:has-text('Use')")
    page.click(".menu button:has-text('Use its settings')")
    page.wait_for_function("() => document.querySelector('#prompt textarea').value === 'A grey drum is struck.'")
    page.wait_for_timeout(500)  # what the form was filled with has come to every part of it
    assert page.get_attribute(".modes button[data-mode=automatic]", "aria-checked") == "true"


@pytest.fixture
def two_loras(studio: RunningStudio, tmp_path: Path) -> list[Path]:
    drawn = [("high", "Soft chalk", "chalk look", 1), ("audio", "Old radio", "radio crackle", 2)]
    return [
        lora_file(studio.model, tmp_path / f"lora-{part}.safetensors", part, title, trigger, seed)
        for part, title, trigger, seed in drawn
    ]


def test_loras_dropped_chosen_used_and_restored(page: Any, studio: RunningStudio, two_loras: list[Path]) -> None:
    mode(page, "off")
    for number, path in enumerate(two_loras, 1):
        drop_file(page, path)
        page.wait_for_function(f"() => document.querySelectorAll('.lora').length === {number}")
    fill_form(page, "A bell rings.", seconds=0.5, seed="9", steps=2)
    page.click(".trigger:has-text('chalk look')")
    assert page.input_value("#prompt textarea") == "chalk look, A bell rings."
    strength = page.locator("input[type=number][aria-label='Strength of Old radio']")
    strength.fill("0.5")
    strength.press("Tab")
    page.wait_for_function("() => studio.chosenLoras()[1].sound === 0.5")
    page.wait_for_selector(".lora .badge:has-text('fits') >> nth=1")
    before = clip_count(page)
    page.click("#generate")
    wait_for_clip(page, before)
    used = newest_sidecar(studio)["loras"]
    assert [(one["name"], one["sound"]) for one in used] == [("Soft chalk", 1.0), ("Old radio", 0.5)]
    page.click("button[aria-label='Take Soft chalk out']")
    page.click("button[aria-label='Take Old radio out']")
    page.wait_for_function("() => document.querySelectorAll('.lora').length === 0")
    (studio.data.parent / "loras" / "lora-high.safetensors").unlink()
    clip = max(studio.data.glob("results/**/*.mp4"), key=lambda path: path.stat().st_mtime)
    drop_file(page, clip)
    page.wait_for_function("() => document.querySelectorAll('.lora').length === 2")
    page.wait_for_selector(".lora:has-text('Soft chalk')")
    page.wait_for_selector(".costline.wrong:has-text('Soft chalk')")  # what is missing is named before Generate
    page.click("button[aria-label='Take Soft chalk out']")
    page.wait_for_selector(".costline.wrong", state="detached")


def test_a_file_that_is_no_lora_is_refused_with_its_name(page: Any, tmp_path: Path) -> None:
    path = tmp_path / "holiday.safetensors"
    path.write_bytes(b"this is no LoRA at all")
    count = page.locator(".lora").count()
    drop_file(page, path)
    page.wait_for_selector(".notice.bad:has-text('holiday')")
    assert [problem for problem in page.problems if "400" not in problem] == []
    page.problems.clear()  # browsers tell of every refused request
    assert page.locator(".lora").count() == count

"""The page's words, and the parts of the form that change words: enhancer and LoRAs."""

from __future__ import annotations

import re
import sys
from typing import get_args

import pytest

from app.spec import JobSpec
from app.tabs.enhance import enhancer_fields, enhancer_values, unwritten, without_model
from app.tabs.loras import lora_fields, lora_values
from app.theme import ASSETS, SCRIPTS, early_head
from app.words import LANGUAGES, WORDS, table
from app.writer_setup import Phase
from engine.errors import RequestError
from tests.enhancer_parts import need_llama

DIGEST = "ab" * 32


def test_every_word_is_there_in_every_language() -> None:
    for key, texts in WORDS.items():
        assert len(texts) == len(LANGUAGES), key
        assert all(text.strip() for text in texts), key
        parts = {tuple(sorted(re.findall(r"\{(\w+)\}", text))) for text in texts}
        assert len(parts) == 1, f"{key}: the languages fill in different parts"


def test_scripts_ask_only_for_words_and_icons_that_exist() -> None:
    icons = set(re.findall(r'id="i-([a-z]+)"', (ASSETS / "icons.svg").read_text(encoding="utf-8")))
    for name in SCRIPTS:
        text = (ASSETS / name).read_text(encoding="utf-8")
        asked = set(re.findall(r'\bt\("([a-z_0-9]+)"', text))
        assert asked <= WORDS.keys(), f"{name}: {asked - WORDS.keys()}"
        drawn = set(re.findall(r'\bicon\("([a-z]+)"\)', text)) | set(re.findall(r'\bbutton\("([a-z]+)"', text))
        assert drawn <= icons, f"{name}: {drawn - icons}"


def test_words_cannot_end_the_script_they_stand_in() -> None:
    words = {"en": table("en") | {"create": "</script><b>"}}
    head = early_head(words, "en", "dark")
    assert "</script><b>" not in head


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"mode": "off", "idea": "a bell"}, {}),
        ({"mode": "suggest", "idea": ""}, {}),
        (
            {"mode": "automatic", "model": "rules", "idea": "left over"},
            {"enhancer": {"mode": "automatic", "model": "rules"}},
        ),
        (
            {"mode": "suggest", "idea": "a bell", "about": {"written_by": "demo", "other": 1}},
            {"idea": "a bell", "enhancer": {"mode": "suggest", "written_by": "demo"}},
        ),
        ("nonsense", {}),
    ],
)
def test_enhancer_fields(value: object, told: dict[str, object]) -> None:
    assert enhancer_fields([value]) == told


def test_a_written_prompt_comes_back_as_one_that_can_be_undone() -> None:
    spec = JobSpec(
        prompt="A bell rings. We hear it.", idea="a bell", enhancer={"mode": "automatic", "written_by": "demo"}
    )
    [value] = enhancer_values(spec)
    assert (value["mode"], value["idea"], value["text"]) == ("suggest", "a bell", spec.prompt)
    [waiting] = enhancer_values(JobSpec(prompt="a bell", enhancer={"mode": "automatic"}))
    assert waiting["mode"] == "automatic"
    assert enhancer_values(JobSpec(prompt="a bell")) == [{}]  # it says nothing of a mode


def test_a_waiting_job_without_the_enhancer_is_edited_without_it() -> None:
    [value] = enhancer_values(JobSpec(prompt="a bell"))
    for mode, shown in (("automatic", "suggest"), ("suggest", "suggest"), ("off", "off")):
        edited = unwritten(value, {"mode": mode, "model": "rules", "idea": "old"})
        assert edited == {"mode": shown, "model": "rules"}
        assert enhancer_fields([edited]) == {}
    waiting = {"mode": "automatic", "model": None, "look": True}
    assert unwritten(waiting, {"mode": "off"})["mode"] == "automatic"


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_said_where_no_model_can_run(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is being built one short line; how to mend it only where it failed."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # as if it were not installed
    advice = {phase: "launch.py setup" in without_model(phase, language) for phase in get_args(Phase)}
    assert [phase for phase, told in advice.items() if told] == ["failed"]
    for phase in ("waiting", "building"):
        assert 10 < len(without_model(phase, language)) < 80


def test_nothing_is_said_where_a_model_can_run() -> None:
    need_llama()
    assert {without_model(phase, "en") for phase in get_args(Phase)} == {""}


def test_loras_go_through_the_form_unchanged() -> None:
    chosen = [{"sha256": DIGEST, "name": "chalk", "high": 1.0, "low": 0.5, "sound": 0.0, "on": False, "tower": "both"}]
    fields = lora_fields([{"chosen": chosen}])
    assert lora_values(JobSpec(prompt="a bell", **fields)) == [{"chosen": chosen}]
    assert lora_fields([None]) == {}
    with pytest.raises(RequestError, match="SHA-256"):
        lora_fields([{"chosen": [{"name": "no hash"}]}])
    with pytest.raises(RequestError):
        lora_fields([{"chosen": ["text"]}])

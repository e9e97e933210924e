"""Own presets: everything that they hold comes back, through the settings' file, and for guests without paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from app.presets import built_in
from app.settings import SettingsFile
from app.tabs.enhance import enhancer_fields, switched
from app.tabs.loras import lora_fields
from app.tabs.presets import held, shown
from engine.profile import ModelProfile
from tests.app_parts import GUEST, OWNER

NAMES = [
    "negative_prompt",
    "steps",
    "guidance",
    "bridge_guidance",
    "video_shift",
    "audio_shift",
    "v2a_scale",
    "a2v_scale",
    "step_cache",
    "sound_steps",
]
NUMBERS = ["fog", 12, 3.5, 1.2, 4.0, 6.5, 0.8, 1.1, 0.15, 3]
LORAS = {
    "chosen": [
        {"sha256": "a" * 64, "name": "Chalk", "high": 1.0, "low": 0.5, "sound": 0.0},
        {"sha256": "b" * 64, "name": "Radio", "high": 0.3, "low": 0.3, "sound": 2.0, "on": False, "tower": "sound"},
    ]
}
ENHANCER = {"mode": "automatic", "model": "/models/own.gguf", "look": False, "idea": "mine", "text": "written"}


def through_the_file(tmp_path: Path, values: dict[str, Any]) -> dict[str, Any]:
    path = tmp_path / "settings.json"
    SettingsFile(path).change(presets={"mine": values})
    return SettingsFile(path).current.presets["mine"]


def test_a_preset_comes_back_with_numbers_loras_and_enhancer(tmp_path: Path) -> None:
    kept = through_the_file(tmp_path, held(NAMES, [*NUMBERS, LORAS, ENHANCER]))
    now = {"mode": "off", "model": None, "look": True, "file": {"path": "/models/own.gguf"}, "idea": "other"}
    *numbers, loras, enhancer = shown(kept, NAMES, now, OWNER)
    assert numbers == NUMBERS
    assert loras == LORAS
    assert lora_fields([loras]) == lora_fields([LORAS])
    assert enhancer == now | {"mode": "automatic", "model": "/models/own.gguf", "look": False}
    assert enhancer_fields([enhancer]) == enhancer_fields([ENHANCER])
    assert held(NAMES, [*numbers, loras, enhancer]) == kept
    assert "mine" not in json.dumps(kept), "a preset holds nobody's words"


def test_a_preset_without_loras_takes_them_out_and_built_in_ones_leave_them() -> None:
    *_, loras, enhancer = shown(held(NAMES, [*NUMBERS, {"chosen": []}, {"mode": "suggest"}]), NAMES, {}, OWNER)
    assert loras == {"chosen": []}
    assert enhancer == {"mode": "suggest", "model": None, "look": True}
    for preset in built_in(ModelProfile()):
        found = shown(preset.values, NAMES, ENHANCER, OWNER)
        assert found[NAMES.index("steps")] == preset.values["steps"]
        assert [one for one, name in zip(found, [*NAMES, "", ""], strict=True) if name not in preset.values] == [
            gr.skip()
        ] * 9


def test_guests_learn_no_path_from_a_preset() -> None:
    kept = held(NAMES, [*NUMBERS, LORAS, ENHANCER])
    assert "/models" not in json.dumps(shown(kept, NAMES, {}, GUEST))


def test_presets_of_before_and_damaged_ones_can_be_chosen() -> None:
    found = shown({"steps": 9, "guidance": 2.0, "bridge_guidance": 1.0}, NAMES, ENHANCER, OWNER)
    assert found[1:4] == [9, 2.0, 1.0]
    assert found[0] == found[-1] == gr.skip()
    damaged = {"steps": "many", "loras": [{"sha256": 3}, "x"], "enhancer": ["x"]}
    found = shown(damaged, NAMES, ENHANCER, OWNER)
    assert found[1] is None
    assert found[-2] == {"chosen": []}
    assert found[-1] == gr.skip()


def test_the_mode_alone_changes_and_what_is_written_stays() -> None:
    now = {"mode": "suggest", "idea": "a", "text": "b", "about": {"written_by": "demo"}}
    assert switched(now, {"mode": "off"}) == now | {"mode": "off", "model": None, "look": True}

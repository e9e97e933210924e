"""How LoRA training is planned: the released model on cards of several sizes, and shorter clips where nothing fits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.memory.machine import GIB, Machine, Rates
from engine.memory.sizes import RELEASED, read_sizes
from engine.training.lora.choose import plan_training, shortened
from engine.training.lora.memory import Load, account, load_of, make_train_plan, start
from engine.training.lora.progress import RUN
from engine.training.lora.run import LoraOrder
from engine.training.lora.settings import LoraSettings
from engine.training.lora.table import load_for
from tests.memory_parts import TINY


def card(vram: float) -> Machine:
    """A card with a fast link beside enough main memory."""
    return Machine(
        "cuda", "x", *[int(vram * GIB)] * 2, *[60 * GIB] * 2, 30 * GIB, rates=Rates(22e9, 7e9, 2.5e9, 140e12)
    )


@pytest.fixture(scope="module")
def released() -> Load:
    return load_for(193, LoraSettings())


@pytest.mark.parametrize(("vram", "whole"), [(12, False), (16, False), (24, False), (48, True)])
def test_the_released_model_is_trained_within_the_card(released: Load, vram: float, whole: bool) -> None:
    """8 s at 360p with exact weights; whole blocks only where they fit."""
    settings = LoraSettings()
    way = make_train_plan(card(vram - 0.5), RELEASED, released, settings, "cuda", "bfloat16")
    assert way.base.fits
    assert way.base.weights == "bfloat16"
    assert way.in_parts is not whole
    assert way.base.vram < 0.98 * (vram - 0.5) * GIB
    assert f"about {way.base.vram / GIB:.1f} GB" in way.why
    assert ("blocks are computed in parts" in way.why) is not whole
    assert "GB of main memory, about " in way.why
    forbidden = make_train_plan(
        card(vram - 0.5), RELEASED, released, replace(settings, in_parts="no"), "cuda", "bfloat16"
    )
    assert forbidden.base.fits is whole


def test_a_24_gb_card_has_room_left(released: Load) -> None:
    way = make_train_plan(card(23.5), RELEASED, released, LoraSettings(), "cuda", "bfloat16")
    assert way.base.vram < 20 * GIB
    assert way.base.ram < 40 * GIB
    least = account(card(23.5), RELEASED, released, start("cuda", "bfloat16", "bfloat16", "host", 4, True, True, True))
    assert least.base.vram < 12 * GIB


def test_where_nothing_fits_shorter_clips_are_taken_and_kept(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "model")
    profile = {"sizes": [[64, 64]], "frames": 33, "steps": 2}
    (tmp_path / "model" / "studio.json").write_text(json.dumps(profile), encoding="utf-8")
    order = LoraOrder(tmp_path, tmp_path / "model", "zorb", LoraSettings(rank=4), tmp_path / "run", device="cpu")

    def least(frames: int) -> float:
        """GB that the leanest way takes."""
        sizes, nothing = read_sizes(order.model), Machine("cpu", "x", GIB, GIB, GIB, GIB, 0)
        load = load_of(order.model, sizes, (64, 64, frames, 24.0), order.settings, 1, True)
        base = make_train_plan(nothing, sizes, load, order.settings, "cpu", "float32").base
        assert not base.fits
        return (base.vram + base.ram) / GIB

    order = replace(order, memory=(least(13) + least(25)) / 2)
    way = plan_training(order, torch.device("cpu"))
    assert way is not None
    assert not way.base.fits
    assert way.frames == 13
    assert "clips of 13 frames would fit" in way.why
    assert shortened(order, way) == 13
    assert shortened(replace(order, frames=33), way) == 33  # the user's own word
    begun = {"format": {"frames": 25}, "memory": {"frozen": "exact", "accumulate": 2, "in_parts": "yes"}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RUN).write_text(json.dumps(begun), encoding="utf-8")
    plenty = replace(order, memory=None)
    again = plan_training(plenty, torch.device("cpu"))
    assert again is not None
    assert (again.in_parts, again.accumulate) == (True, 2)
    assert shortened(plenty, again) == 25

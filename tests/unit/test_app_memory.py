"""The memory setting on its way from the settings to the planner."""

from __future__ import annotations

import io
import threading
import typing
from pathlib import Path

import pytest

from app.making import Maker
from app.order import Order
from app.planned import plan_in_words
from app.settings import Settings
from app.spec import JobSpec
from app.tabs.settings import CARD_SIZES
from app.worker import Line, Reporter
from engine.errors import RequestError
from engine.memory.choose import CHOICES
from engine.profile import read_profile
from tests.e2e.page_parts import TINY


def test_what_can_be_set_is_what_the_planner_knows() -> None:
    assert typing.get_args(Settings.model_fields["memory"].annotation) == CHOICES
    assert ("auto", *CARD_SIZES, "cpu") == CHOICES


def test_the_worker_gets_it(tmp_path: Path) -> None:
    order = Order("job", "owner", JobSpec(prompt="a bell"), tmp_path, tmp_path, "auto", "auto", True, memory="12")
    assert Order.from_message(order.to_message()) == order


def test_the_worker_plans_with_it(tmp_path: Path) -> None:
    spec = JobSpec(prompt="a bell", width=96, height=64).settled(read_profile(TINY), str(TINY))
    order = Order("job", "owner", spec, tmp_path, TINY, "cpu", "auto", True, memory="lots")
    with pytest.raises(RequestError, match="'lots' is not one of auto, 8"):
        Maker().make(order, Reporter(Line(io.BytesIO()), "job", threading.Event()))


def test_the_plan_in_words() -> None:
    said = plan_in_words(TINY, "cpu", "auto", "auto")
    assert "main memory" in said["why"]
    with pytest.raises(RequestError, match="'lots' is not one of auto, 8"):
        plan_in_words(TINY, "lots", "auto", "auto")

"""The short form of the kills of a training; kill_training.py says how to run its long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import kill_training


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    toll = kill_training.campaign(tmp_path, ("training", "both", "studio"), seed=2, longest=0.3, steps=16)
    assert toll.faults == []
    assert sum(toll.kills.values()) == 3

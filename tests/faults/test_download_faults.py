"""Downloads under faults, in short: one round of every kind. download_faults.py is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.download_faults import TROUBLES, campaign


@pytest.mark.slow
def test_every_kind_of_trouble_once(tmp_path: Path) -> None:
    toll = campaign(tmp_path, rounds=len(TROUBLES), seed=7)
    assert toll.faults == [], str(toll)
    assert toll.rounds.total() == len(TROUBLES)

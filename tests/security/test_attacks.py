"""The short form of the attacks; `attack_studio.py --paths 2000` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.attack_studio import campaign


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Gradio's and its dependencies' own, in their threads
def test_a_shared_studio_leaks_nothing_and_stays_up(tmp_path: Path) -> None:
    toll = campaign(tmp_path, paths=150, guesses=40, seed=3)
    assert toll.faults == []
    assert sum(toll.tried.values()) > 1000

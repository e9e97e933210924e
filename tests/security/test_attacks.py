"""The short form of the attacks; `attack_studio.py --paths 2000` is the long one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.security.attack_studio import campaign
from tests.security.attacked import target
from tests.security.page_events import page_works, press_generate
from tests.security.training_attacks import trainings


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # as below
def test_the_page_works_through_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with target(tmp_path) as at:
        page_works(at)
        assert at.toll.faults == []
        assert at.toll.statuses == {200: 6}
        monkeypatch.setattr("app.door.CLOSED", re.compile("/gradio_api/run"))  # shut too tight: that is noticed
        with pytest.raises(AssertionError, match="Generate -> 404"):
            press_generate(at, at.owner, prompt="x")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Gradio's and its dependencies' own, in their threads
def test_a_shared_studio_leaks_nothing_and_stays_up(tmp_path: Path) -> None:
    toll = campaign(tmp_path, paths=150, guesses=40, seed=3)
    assert toll.faults == []
    assert sum(toll.tried.values()) > 1000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # as above
def test_trainings_are_the_owners_and_nonsense_is_refused(tmp_path: Path) -> None:
    with target(tmp_path) as at:
        trainings(at)
        assert at.toll.faults == []
        assert at.toll.tried["trainings"] > 300

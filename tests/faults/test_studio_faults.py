"""Short forms of the campaigns on the studio; each module beside this one says how to run its long form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app_parts import MODEL, studio
from tests.faults import cancel_jobs, crowded_studio, fill_disk, kill_studio, kill_worker, long_queue, round_trip


@pytest.mark.slow
def test_killed_workers_cost_nothing_but_time(tmp_path: Path) -> None:
    toll = kill_worker.campaign(tmp_path, kills=2, jobs=3, seed=2, longest=2.0)
    assert toll.faults == []
    assert toll.done + toll.failed == toll.jobs


@pytest.mark.slow
def test_cancels_at_random_moments(tmp_path: Path) -> None:
    toll = cancel_jobs.campaign(tmp_path, cancels=4, seed=2)
    assert toll.faults == []


@pytest.mark.slow
def test_a_killed_studio_loses_no_job(tmp_path: Path) -> None:
    toll = kill_studio.campaign(tmp_path, kills=1, seed=2, longest=4.0)
    assert toll.faults == []
    assert toll.done == toll.jobs >= 4


@pytest.mark.slow
def test_a_queue_of_jobs_runs_without_a_fault(tmp_path: Path) -> None:
    with studio(tmp_path, work=True) as core:
        assert long_queue.campaign(core, jobs=20).faults == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the test client's
def test_a_crowded_studio_answers_and_comes_back_from_its_sidecars(tmp_path: Path) -> None:
    toll = crowded_studio.campaign(tmp_path, jobs=1000, clips=100, rounds=10)
    assert [fault for fault in toll.faults if " ms" not in fault] == []  # times are for a quiet machine


@pytest.mark.slow
def test_clips_come_back_bit_for_bit_and_join_without_a_click(tmp_path: Path) -> None:
    toll = round_trip.campaign(tmp_path, MODEL, clips=1, again=1, frames=9, steps=2, seed=3)
    assert toll.faults == []


@pytest.mark.slow
def test_a_full_disk_costs_no_clip_and_no_job(tmp_path: Path) -> None:
    try:
        toll = fill_disk.campaign(tmp_path, points=3)
    except fill_disk.NoDisk as error:
        pytest.skip(str(error))
    assert toll.faults == []
    assert sum(toll.ended.values()) == 3

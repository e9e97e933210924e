"""The step cache: exact where nothing may change, picture and sound together, the same with streamed blocks."""

from __future__ import annotations

import logging

import pytest
import torch

from engine import MovaPipeline
from engine.errors import RequestError
from engine.models import lean
from engine.step_cache import FIRST_STEPS, LAST_STEPS, StepCache
from tests.memory_parts import TINY, plan, run, same, storage


@pytest.fixture(scope="module")
def pipe() -> MovaPipeline:
    return MovaPipeline.from_pretrained(TINY)


def test_a_threshold_of_nothing_is_exact(pipe):
    assert same(run(pipe, step_cache=0.0), run(pipe))
    assert pipe.high_noise.step_cache is None  # nothing stays behind


def test_both_sides_are_left_out_together(pipe, caplog):
    with caplog.at_level(logging.INFO, "engine.pipeline"):
        cached = run(pipe, step_cache=1.0)
    computed, left_out = (int(word) for word in caplog.messages[-1].split() if word.isdigit())
    assert computed + left_out == 8
    assert left_out >= 2
    assert computed >= FIRST_STEPS + LAST_STEPS + 1  # each expert begins with a full evaluation
    exact = run(pipe)
    for a, b in zip(cached, exact, strict=True):
        assert not torch.equal(a, b)
        assert float((a - b).norm() / b.norm()) < 0.5


def test_streamed_blocks_are_left_out_too(pipe):
    expected = run(pipe, step_cache=1.0)
    for residents in (0, 1):
        streamed = MovaPipeline.from_pretrained(TINY, plan=plan(experts="swap", **storage("pageable", residents)))
        assert same(run(streamed, step_cache=1.0), expected)
        assert same(run(streamed), run(pipe))


def test_long_sequences_that_change_in_place(pipe, monkeypatch):
    expected = run(pipe, step_cache=1.0)
    monkeypatch.setattr(lean, "TOKENS", 16)
    found = run(pipe, step_cache=1.0)
    assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) <= 1e-4


def test_one_side_that_changes_is_enough():
    cache = StepCache(0.1)
    still, moved = torch.ones(2, 3, 4), torch.ones(2, 3, 4)
    moved[1] += 1  # one branch of the sound
    for audio, expected in ((still, "computed"), (still, "left out"), (moved + 1, "computed")):
        cache.step(5, 20)
        cache.begin(torch.zeros(2, 5, 4), torch.zeros(2, 3, 4))
        ahead = cache.first(0, torch.ones(2, 5, 4), audio)
        assert (ahead is None) == (expected == "computed")
        if ahead is None:
            cache.last(0, torch.full((2, 5, 4), 3.0), audio + 1)
        else:
            assert torch.equal(ahead[0], torch.full((2, 5, 4), 3.0))
    assert (cache.computed, cache.skipped) == (2, 1)


def test_a_threshold_out_of_range_is_refused(pipe):
    with pytest.raises(RequestError, match="step cache"):
        run(pipe, step_cache=-1.0)

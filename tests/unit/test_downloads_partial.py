"""Unfinished files: the arithmetic of what has arrived, and what is found after a process ended anywhere."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.downloads.partial import PartFile, merged, missing

intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


@given(intervals, st.integers(0, 60))
def test_what_is_there_and_what_is_missing_make_up_the_whole(have: list[tuple[int, int]], size: int) -> None:
    """Against sets of single bytes, the slow way."""
    there = {i for a, b in have for i in range(a, b) if i < size}
    joined = merged([(a, min(b, size)) for a, b in have])
    assert {i for a, b in joined for i in range(a, b)} == there
    assert all(a[1] < b[0] for a, b in pairwise(joined))  # apart, and in order
    gaps = missing(joined, size)
    assert {i for a, b in gaps for i in range(a, b)} == set(range(size)) - there


def fill(part: PartFile, start: int, data: bytes) -> None:
    with part.writer(start) as writer:
        writer.write(data)


def test_continues_after_the_end_of_a_process(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    part = PartFile(target, 10, "sha256:x")
    fill(part, 6, b"6789")
    fill(part, 0, b"01")
    part.close()
    again = PartFile(target, 10, "sha256:x")
    assert (again.gaps(), again.done) == ([(2, 6)], 6)
    fill(again, 2, b"2345")
    again.publish()
    assert target.read_bytes() == b"0123456789"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_another_file_begins_anew(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "f", 10, "sha256:x")
    fill(part, 0, b"012345")
    part.close()
    other = PartFile(tmp_path / "f", 10, "sha256:y")
    assert other.gaps() == [(0, 10)]
    assert other.path.stat().st_size == 0
    other.close()


@pytest.mark.parametrize("tail", ["", "4 7", "4 7\n9 3\n", "4 7\nnonsense\n", "4 99999\n", "-3 5\n", "\x00\x00\n"])
def test_log_that_was_cut_or_damaged_claims_too_little_never_too_much(tail: str, tmp_path: Path) -> None:
    part = PartFile(tmp_path / "f", 10, "sha256:x")
    fill(part, 0, b"01234567")
    part.close()
    header = part.log_path.read_text().split("\n")[0]
    part.log_path.write_text(f"{header}\n0 2\n{tail}")
    again = PartFile(tmp_path / "f", 10, "sha256:x")
    again.close()
    claimed = {i for a, b in missing(again.gaps(), 10) for i in range(a, b)}
    assert claimed <= {0, 1, 4, 5, 6}
    assert claimed >= {0, 1}


def test_log_without_its_bytes_claims_nothing(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "f", 10, "sha256:x")
    fill(part, 0, b"0123")
    part.close()
    part.path.write_bytes(b"01")
    again = PartFile(tmp_path / "f", 10, "sha256:x")
    again.close()
    assert again.gaps() == [(0, 10)]

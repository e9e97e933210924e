"""A requirement group that not every machine can build: without it everything else works, and `setup` tries again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootstrap import store
from tests.faults.test_setup import Project, write_wheel

pytestmark = pytest.mark.skipif(os.name == "nt", reason="makes environments the POSIX way")


def test_a_group_that_cannot_be_built_is_left_out_and_comes_later(tmp_path: Path) -> None:
    project = Project(tmp_path / "p")
    project.lock("enhancer", "llamathing==1.0")  # there is no such wheel yet

    first = project.start("test", "one")
    assert first.returncode == 0, first.stderr
    assert "tests" in first.stdout
    assert "'enhancer' could not be built; everything else works" in first.stderr
    assert set(stamp(project).groups) == {"base", "test"}

    second = project.start("test", "two")
    assert second.returncode == 0
    assert "enhancer" not in second.stderr, "it is told once, and not tried at every start"

    write_wheel(tmp_path / "p" / "requirements" / "wheels", "llamathing", "1.0", "")
    assert project.start("setup").returncode == 0
    assert set(stamp(project).groups) == {"base", "test", "enhancer"}
    assert not list((tmp_path / "p" / ".venv").glob("mova-without-*"))

    project.lock("base", "torch==2.13.0", "tinything==2.0")  # a rebuild keeps it
    assert project.start("test", "three").returncode == 0
    assert set(stamp(project).groups) == {"base", "test", "enhancer"}


def stamp(project: Project) -> store.Stamp:
    found = store.read_stamp(project.layout.env)
    assert found is not None
    return found

"""Blocks that are kept in 8 bits on disk: the same clip, packed once, and nothing damaged is ever used."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import pytest

import engine.memory.slabs as slabs
from engine import MovaPipeline
from engine.memory.packed import ABANDONED
from tests.memory_parts import TINY, plan, run, same, storage
from tests.unit.test_memory_eight_bit import twin

STREAMED = plan(weights="int8", experts="swap", **storage("mixed", 1))
QUICK = {"num_inference_steps": 8}
PARTS = 12  # four layers of two experts, and what both have in common of each


@pytest.fixture(scope="module")
def expected():
    return run(twin("int8"), **QUICK)


@pytest.fixture
def calls(monkeypatch):
    """How often a weight was packed."""
    seen, real = [], slabs.pack
    monkeypatch.setattr(slabs, "pack", lambda *a: (seen.append(1), real(*a))[1])
    return seen


def opened(folder, model=TINY):
    return MovaPipeline.from_pretrained(model, plan=STREAMED, packed=folder)


def files(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file())


def test_packed_once_and_never_again(tmp_path, expected, calls):
    assert same(run(opened(tmp_path), **QUICK), expected)
    kept, first = files(tmp_path), len(calls)
    assert len(kept) in (PARTS, PARTS - 1)  # a last layer may have nothing in common
    assert first > 0
    before = {file: file.stat().st_mtime_ns for file in kept}
    pipe = opened(tmp_path)
    assert same(run(pipe, **QUICK), expected)
    assert same(run(pipe, **QUICK), expected)
    assert len(calls) == first
    assert {file: file.stat().st_mtime_ns for file in files(tmp_path)} == before


def test_without_it_a_block_is_packed_at_every_step(calls):
    pipe = MovaPipeline.from_pretrained(TINY, plan=STREAMED)
    run(pipe, **QUICK)
    once = len(calls)
    run(pipe, **QUICK)
    assert len(calls) > once


def test_half_written_files_are_swept(tmp_path):
    opened(tmp_path)
    kept = files(tmp_path)
    old, new = kept[0].with_name("0-0.77"), kept[0].with_name("0-1.78")
    for file in (old, new):
        file.write_bytes(b"half")
    then = new.stat().st_mtime - ABANDONED - 60
    os.utime(old, (then, then))
    opened(tmp_path)
    assert files(tmp_path) == sorted([*kept, new])  # another process may be writing the young one


@pytest.mark.parametrize("how", ["cut", "flipped", "empty", "longer"])
def test_a_damaged_file_is_written_again(tmp_path, expected, how):
    opened(tmp_path)
    file = files(tmp_path)[3]
    good = file.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    file.write_bytes({"cut": good[:-9], "flipped": bytes(bad), "empty": b"", "longer": good + b"x"}[how])
    assert same(run(opened(tmp_path), **QUICK), expected)
    assert file.read_bytes() == good


def test_another_model_takes_the_place(tmp_path):
    copy = shutil.copytree(TINY, tmp_path / "model")
    opened(tmp_path / "packed")
    first = files(tmp_path / "packed")
    opened(tmp_path / "packed", copy)
    assert files(tmp_path / "packed") == first  # the same weights under another name
    weights = copy / "video_dit" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    opened(tmp_path / "packed", copy)
    second = files(tmp_path / "packed")
    assert not set(first) & set(second)
    assert len(second) == len(first)


@pytest.mark.parametrize("why", ["full", "closed"])
def test_without_room_it_goes_on_as_before(tmp_path, monkeypatch, expected, caplog, why):
    folder = tmp_path / "packed"
    if why == "full":
        monkeypatch.setattr("engine.memory.packed.shutil.disk_usage", lambda p: SimpleNamespace(free=5))
    else:
        folder.write_text("a file where the folder should be")
    assert same(run(opened(folder), **QUICK), expected)
    assert "8 bits" in caplog.text
    assert why == "closed" or not files(folder)

"""`bench` in short, as it is started: one table, with figures of every way to run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def bench(tmp_path, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600)


def test_everything_is_measured_on_a_processor(tmp_path):
    from tests.bench.__main__ import kernel_rows, step_rows, table

    done = bench(tmp_path, "--device", "cpu", "--steps", "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "neither the network of full size" in found["note"]
    ways = {one["way"]: one for one in found["steps"]}
    assert len(ways) == 6
    assert all(one["seconds"] > 0 for one in ways.values())
    held, streams, eight = (ways[n] for n in ("all on the device", "all streams", "all streams in 8 bits"))
    assert (held["streamed_a_step"], held["prefetched"]) == (0, [0, 0])
    assert streams["prefetched"] == [8, 8]
    assert ways["half streams"]["prefetched"] == [4, 4]
    assert 0.2 < eight["streamed_a_step"] / streams["streamed_a_step"] < 0.3
    assert not any(one["copied_back"] for one in ways.values())
    lines = table([*step_rows(found["steps"]), *kernel_rows(found["kernels"])]).splitlines()
    assert lines[0].split() == ["benchmark", "case", "measured", "beside", "it"]
    assert {line.split()[0] for line in lines[1:]} == {"step", "attention", "linear", "rate"}


def test_wrong_input_is_one_line(tmp_path):
    done = bench(tmp_path, "--device", "abacus")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "abacus" in done.stderr

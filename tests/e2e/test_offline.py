"""After set-up nothing needs a network: a clip is made in a network namespace that has none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests" / "data" / "mova-tiny" / "checkpoint"
UNSHARE = ["unshare", "--user", "--map-root-user", "--net"]


def can_unshare() -> bool:
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_unshare(), reason="network namespaces are not allowed here")


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    return subprocess.run(
        [*UNSHARE, sys.executable, "-m", *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


def test_there_is_really_no_network(tmp_path: Path) -> None:
    code = "import socket; socket.create_connection(('127.0.0.1', 9), 1)"
    (tmp_path / "reach.py").write_text(code)
    done = run("reach", home=tmp_path)
    assert "Network is unreachable" in done.stderr


def test_a_clip_without_a_network(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    arguments = ["--model", str(MODEL), "--prompt", "hello", "--size", "96x64", "--frames", "5", "--steps", "2"]
    done = run("engine.cli", *arguments, "--output", str(clip), home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert clip.stat().st_size > 1000


def test_doctor_and_models_without_a_network(tmp_path: Path) -> None:
    assert run("engine.doctor", "--json", home=tmp_path).returncode == 0
    assert run("engine.downloads.cli", "list", home=tmp_path).returncode == 0
    told = run("engine.downloads.cli", "get", "MOVA-360p", "--yes", "--offline", home=tmp_path)
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "switched off (--offline)" in told.stderr

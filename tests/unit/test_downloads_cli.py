"""The models command as a user gives it, in processes of its own, with a hub on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import REPOSITORY, Fault, LocalHub, model_files, serving, stray

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with serving() as hub:
        yield hub


def command(data: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "engine.downloads.cli", "--data-dir", str(data), *arguments]


def surroundings(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **more}


def run(data: Path, *arguments: str, text: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(data, *arguments),
        env=surroundings(**more),
        input=text,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def test_a_models_life(server: LocalHub, tmp_path: Path) -> None:
    """Listed, fetched, verified, damaged, repaired, moved, removed."""
    data = tmp_path / "data"
    listed = run(data, "list")
    assert "MOVA-360p    to fetch      78.0 GB" in listed.stdout
    assert "Apache-2.0" in listed.stdout
    asked = run(data, "get", REPOSITORY, "--mirror", server.url)
    assert asked.returncode == 2
    assert "add --yes" in asked.stderr
    assert "2.4 MB in 7 files" in asked.stdout
    got = run(data, "get", REPOSITORY, "--mirror", server.url, "--yes")
    assert got.returncode == 0, got.stderr
    assert "verified. 2.4 MB came over the network" in got.stdout
    folder = data / "models" / "model"
    assert run(data, "verify", "model").stdout.startswith("model is whole")
    (folder / "video_dit" / "config.json").write_bytes(b"{}")
    bad = run(data, "verify", "model")
    assert (bad.returncode, "video_dit/config.json" in bad.stdout) == (1, True)
    mended = run(data, "verify", "model", "--repair", "--mirror", server.url)
    assert mended.returncode == 0, mended.stderr
    moved = run(data, "move", "model", str(tmp_path / "other"))
    assert f"model is in {tmp_path / 'other' / 'model'} now" in moved.stdout
    assert str(tmp_path / "other") in run(data, "where").stdout
    report = json.loads(run(data, "list", "--json").stdout)
    assert [m["folder"] for m in report["installed"] if m["name"] == "model"] == [str(tmp_path / "other" / "model")]
    assert run(data, "remove", "model", "--yes").returncode == 0
    assert not (tmp_path / "other" / "model").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(os.name == "nt", reason="signals as on POSIX")
def test_paused_and_continued(how: signal.Signals, tmp_path: Path) -> None:
    """Of a model that is large against what four connections have on the wire when they are closed."""
    data = tmp_path / "data"
    with serving(model_files(size=24 * 2**19)) as server:
        server.fault = lambda *_: Fault("slow", wait=0.2)  # a loaded machine hears the signal late
        arguments = ("get", REPOSITORY, "--mirror", server.url, "--yes")
        process = subprocess.Popen(
            command(data, *arguments),
            env=surroundings(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        while server.sent < 3_000_000 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(how)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 130, said
        assert "Paused. The same command goes on where this one stopped." in said
        assert "Traceback" not in said
        assert "unfinished" in run(data, "list").stdout
        server.fault = lambda *_: None
        again = run(data, *arguments)
        assert again.returncode == 0, again.stderr
        assert server.sent <= 1.05 * server.size
        assert stray(data / "models") == []


def test_errors_are_one_line(server: LocalHub, tmp_path: Path) -> None:
    for arguments in (
        ("get", "nothing-like-it", "--yes"),
        ("get", "nobody/nothing", "--mirror", server.url, "--yes"),
        ("get", "MOVA-360p", "--offline", "--yes"),
        ("verify", "nothing"),
        ("remove", "nothing", "--yes"),
        ("get", REPOSITORY, "--mirror", "not an address", "--yes"),
    ):
        done = run(tmp_path, *arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.count("\n") == 1, done.stderr
        assert "Traceback" not in done.stderr


def test_token_is_kept_and_never_shown(server: LocalHub, tmp_path: Path) -> None:
    server.token = "hf_abcdefghijkl"  # noqa: S105
    refused = run(tmp_path, "get", REPOSITORY, "--mirror", server.url, "--yes", HF_TOKEN="")
    assert "models token" in refused.stderr
    kept = run(tmp_path, "token", text="hf_abcdefghijkl\n")
    assert kept.returncode == 0, kept.stderr
    got = run(tmp_path, "--verbose", "get", REPOSITORY, "--mirror", server.url, "--yes", HF_TOKEN="")
    assert got.returncode == 0, got.stderr
    for said in (refused, kept, got):
        assert "abcdefgh" not in said.stdout + said.stderr
    assert run(tmp_path, "token", "--forget").stdout == "The token is forgotten.\n"


def test_folder_that_one_has_is_used_as_it_is(server: LocalHub, tmp_path: Path) -> None:
    own = tmp_path / "own"
    for path, source in model_files().items():
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(source, bytes)
        (own / path).write_bytes(source)
    done = run(tmp_path / "data", "get", REPOSITORY, "--from", str(own), "--mirror", server.url)
    assert done.returncode == 0, done.stderr
    assert "verified; nothing was copied" in done.stdout
    assert server.sent == 0


def test_models_of_the_enhancer_go_where_it_looks(tmp_path: Path) -> None:
    from engine.downloads import Shelf, find_entry

    shelf = Shelf(tmp_path)
    assert shelf._usual_base(find_entry("qwen3-4b")) == tmp_path / "enhancer"
    assert shelf._usual_base(find_entry("MOVA-360p")) == tmp_path / "models"

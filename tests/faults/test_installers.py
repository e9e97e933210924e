"""install.sh and start.sh as a user runs them: odd folders, no network, broken remains, kills, two at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.installer_faults import campaign
from tests.faults.test_setup import SOURCE
from tests.installer_parts import UV, Installation, installation, tools_without_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="installs as on Linux")

CLOSED = "http://127.0.0.1:9"
NAMES = {
    "a space": "MOVA Studio",
    "an umlaut": "Größe übrig",
    "a quote": 'Ana\'s "new" copy',
    "signs of the shell": "a $HOME `id` & b; c (1)",
    "a dash in front": "-rf",
    "Chinese": "动画 工作室",
}


def works(project: Installation) -> None:
    started = project.start("generate", "7", "two words")
    assert started.returncode == 7, started.stderr
    told = json.loads(started.stdout)
    assert told["argv"] == ["7", "two words"]
    assert told["prefix"] == str(project.layout.env)
    assert project.orphans() == []


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_folder_names(name: str, tmp_path: Path) -> None:
    with installation(tmp_path / name, tmp_path / "side") as project:
        done = project.install()
        assert done.returncode == 0, done.stderr
        assert "Fetching uv 0.13.0" in done.stderr
        assert "Ready after" in done.stderr
        works(project)
        entries = list((tmp_path / "side" / "home").rglob("*.desktop"))
        assert len(entries) == 2
        if program := shutil.which("desktop-file-validate"):
            assert subprocess.run([program, entries[0]], capture_output=True, check=False).returncode == 0


def test_path_of_200_characters(tmp_path: Path) -> None:
    root = tmp_path
    while len(str(root)) < 200:
        root = root / ("x" * max(1, min(60, 200 - len(str(root)) - 1)))
    assert len(str(root)) >= 200
    with installation(root, tmp_path / "side") as project:
        done = project.install("--no-shortcuts")
        assert done.returncode == 0, done.stderr
        works(project)


def test_start_installs_where_nothing_is_yet(tmp_path: Path) -> None:
    with installation(tmp_path / "fresh", tmp_path / "side") as project:
        assert project.start("generate").returncode == 0
        works(project)


@pytest.fixture
def project(tmp_path: Path):  # type: ignore[no-untyped-def]
    with installation(tmp_path / "here", tmp_path / "side") as one:
        yield one


def test_without_network_this_machines_python_serves(project: Installation) -> None:
    done = project.install("--no-shortcuts", MOVA_UV_URL=CLOSED, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    assert not (project.root / ".uv" / "uv").exists()
    assert project.start("generate", PYTHONPATH="").returncode == 0


def test_without_network_and_python_it_says_so(project: Installation, tmp_path: Path) -> None:
    done = project.install(MOVA_UV_URL=CLOSED, PATH=tools_without_python(tmp_path / "bin"))
    assert done.returncode == 1
    assert "Python could not be fetched" in done.stderr
    assert "MOVA_UV_URL" in done.stderr
    assert not project.layout.env.exists()
    assert project.orphans() == []


def test_uv_alone_is_enough(project: Installation, tmp_path: Path) -> None:
    """No Python on the PATH: the one that uv brings is used."""
    done = project.install("--no-shortcuts", PATH=tools_without_python(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert (project.root / ".uv" / "path").read_text().strip() == sys.executable


def test_forged_uv_is_deleted_and_never_run(project: Installation, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    project.serve(f"#!/bin/sh\ntouch '{canary}'\n", promised="0" * 64)
    done = project.install(PATH=tools_without_python(tmp_path / "bin"))
    assert done.returncode == 1
    assert "its sha256 is another one" in done.stderr
    assert not canary.exists()
    assert project.orphans() == []
    assert not (project.root / ".uv" / "uv").exists()


def test_python_that_uv_cannot_bring(project: Installation) -> None:
    """uv is there, its Python is not to be had: this machine's serves."""
    done = project.install("--no-shortcuts", FAKE_UV_EXIT="2", PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    assert project.start("generate", PYTHONPATH="").returncode == 0


def broken_environment(project: Installation) -> None:
    shutil.rmtree(project.layout.env / "lib")


def environment_that_is_a_file(project: Installation) -> None:
    shutil.rmtree(project.layout.env)
    project.layout.env.write_text("not a folder")


def interpreter_gone(project: Installation) -> None:
    (project.layout.env / "bin" / "python").unlink()


def damaged_uv(project: Installation) -> None:
    (project.root / ".uv" / "uv").write_bytes(os.urandom(1000))


def path_to_nowhere(project: Installation) -> None:
    (project.root / ".uv" / "path").write_text("/nowhere/python\n")


def older_uv(project: Installation) -> None:
    (project.root / ".uv" / "uv").write_text(UV.replace("0.13.0", "0.1.0"))


@pytest.mark.parametrize(
    "damage",
    [broken_environment, environment_that_is_a_file, interpreter_gone, damaged_uv, path_to_nowhere, older_uv],
    ids=lambda damage: damage.__name__,
)
def test_broken_remains_are_mended(damage, project: Installation) -> None:  # type: ignore[no-untyped-def]
    assert project.install("--no-shortcuts").returncode == 0
    damage(project)
    done = project.install("--no-shortcuts")
    assert done.returncode == 0, done.stderr
    for kept in project.root.glob(".venv-before-*"):  # what was not ours is kept, and said
        assert kept.name in done.stderr
    works(project)


def test_twice_at_once(project: Installation) -> None:
    both = [project.begin() for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("Ready after" in text for text in said) == 1
    works(project)


def test_folder_that_cannot_be_written(project: Installation) -> None:
    (project.root / ".uv").write_text("a file where a folder is needed")
    done = project.install()
    assert done.returncode == 1
    assert "Cannot write in" in done.stderr


def test_moved_folder_sets_itself_up_again(project: Installation, tmp_path: Path) -> None:
    assert project.install("--no-shortcuts").returncode == 0
    os.rename(project.root, tmp_path / "elsewhere")
    project.root = tmp_path / "elsewhere"
    project.layout = type(project.layout)(project.root)
    started = project.start("generate")
    assert started.returncode == 0, started.stderr


def test_killed_and_run_again(tmp_path: Path) -> None:
    toll = campaign(tmp_path, kills=4)
    assert toll.faults == [], str(toll)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck_finds_nothing() -> None:
    scripts = [str(SOURCE / "install.sh"), str(SOURCE / "start.sh")]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, encoding="utf-8", check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["install.sh", "install.bat", "install.ps1"])
def test_installers_are_short(name: str) -> None:
    assert len((SOURCE / name).read_bytes().splitlines()) <= 60

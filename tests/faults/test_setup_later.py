"""The studio opens before the enhancer's group is built, and the build behind it can be killed at any moment."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from app.writer_setup import Phase, WriterSetup, _end_tree
from bootstrap import store
from tests.faults.test_setup import Project, write_wheel

pytestmark = pytest.mark.skipif(os.name == "nt", reason="makes environments the POSIX way")

# A package that has to be built, by a backend of its own: it takes its time, or fails, as its environment says.
BACKEND = """
import os, sys, time, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    seconds = float(os.environ.get("BUILD_SECONDS", "0"))
    if seconds < 0:
        sys.exit("no C++ compiler")
    time.sleep(seconds)
    name = "llamathing-1.0-py3-none-any.whl"
    files = {"llamathing.py": "VERSION = 1"}
    files["llamathing-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\\nName: llamathing\\nVersion: 1.0\\n"
    files["llamathing-1.0.dist-info/WHEEL"] = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    record = "".join(f"{path},,\\n" for path in files) + "llamathing-1.0.dist-info/RECORD,,\\n"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr("llamathing-1.0.dist-info/RECORD", record)
    return name
"""
BUILD = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
ABOUT = "Metadata-Version: 2.1\nName: llamathing\nVersion: 1.0\n"
STUDIO = "import sys\nprint('the studio is open', sys.prefix)\n"
KILLS = 6


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose studio has started once."""
    project = Project(tmp_path / "Größe mit Leerzeichen")
    wheels = project.root / "requirements" / "wheels"
    with tarfile.open(wheels / "llamathing-1.0.tar.gz", "w:gz") as archive:
        for name, text in {"backend.py": BACKEND, "pyproject.toml": BUILD, "PKG-INFO": ABOUT}.items():
            info = tarfile.TarInfo(f"llamathing-1.0/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    write_wheel(wheels, "pagething", "1.0", "")
    project.lock("studio", "pagething==1.0")
    project.lock("enhancer", "--no-binary llamathing", "llamathing==1.0")
    (project.root / "app" / "studio.py").write_text(STUDIO)
    for name in [name for name in os.environ if name.startswith(("PIP_", "MOVA_"))]:
        monkeypatch.delenv(name)
    for name, value in project.environment().items():
        monkeypatch.setenv(name, value)
    return project


def opened(project: Project) -> None:
    """Starts the studio, as far as set-up is concerned."""
    done = project.start()
    assert (done.returncode, "the studio is open" in done.stdout) == (0, True), done.stderr


def groups(project: Project) -> set[str]:
    stamp = store.read_stamp(project.layout.env)
    assert stamp is not None
    return set(stamp.groups)


def behind(project: Project) -> WriterSetup:
    return WriterSetup(layout=project.layout, prefix=str(project.layout.env))


def until(writer: WriterSetup, *phases: Phase, seconds: float = 300.0) -> Phase:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (phase := writer.state().phase) in phases:
            return phase
        time.sleep(0.02)
    raise AssertionError(f"{writer.state()} after {seconds:g} s")


def at_work(project: Project) -> list[str]:
    """Processes that still build here."""
    lines = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(project.root) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            lines.append(line)
    return lines


def has_it(project: Project) -> bool:
    command = [str(store.python_in(project.layout.env)), "-c", "import llamathing"]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_the_studio_does_not_wait_and_the_build_follows(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILD_SECONDS", "1.5")
    began = time.monotonic()
    opened(project)
    assert groups(project) == {"base", "studio"}
    took = time.monotonic() - began
    writer = behind(project)
    assert writer.state().phase == "waiting"
    writer.start()
    writer.start()  # once is enough
    until(writer, "building")
    opened(project)  # a start meanwhile waits for nobody
    assert groups(project) == {"base", "studio"}
    until(writer, "done")
    print(f"\nopen after {took:.1f} s of set-up; built {time.monotonic() - began - took:.1f} s later")
    assert groups(project) == {"base", "studio", "enhancer"}
    assert has_it(project)
    assert behind(project).state().phase == "there"
    assert not (project.layout.state / "wheels").exists()


def test_the_installer_does_not_wait_either(project: Project) -> None:
    assert project.start("setup").returncode == 0
    assert groups(project) == {"base", "studio"}
    assert project.start("setup").returncode == 0  # asked for again, it makes all of it
    assert groups(project) == {"base", "studio", "enhancer"}


def test_killed_at_any_moment_the_environment_stays_whole(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(project)
    monkeypatch.setenv("BUILD_SECONDS", "1")
    chance = random.Random(7)
    for _ in range(KILLS):
        writer = behind(project)
        if writer.state().phase == "there":  # it was quicker than the kill
            break
        writer.start()
        time.sleep(chance.uniform(0.1, 3.0))
        writer.stop()
        assert not at_work(project)
        assert groups(project) >= {"base", "studio"}
        done = project.start()
        assert done.returncode == 0, done.stderr
        assert "Setting up" not in done.stderr, "what was killed must not cost a new environment"
    monkeypatch.setenv("BUILD_SECONDS", "0")
    last = behind(project)
    last.start()
    until(last, "done", "there")
    assert has_it(project)
    assert not project.leftovers()
    assert {path.name for path in project.layout.state.iterdir() if path.is_dir()} == set(), "what killed builds left"


def test_one_that_cannot_be_built_is_told_once(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened(project)
    monkeypatch.setenv("BUILD_SECONDS", "-1")
    writer = behind(project)
    writer.start()
    until(writer, "failed")
    assert "no C++ compiler" in caplog.text  # pip's own words, for the log
    assert "everything else works without it" in caplog.text
    assert behind(project).state().phase == "failed"
    opened(project)
    monkeypatch.setenv("BUILD_SECONDS", "0")
    assert project.start("setup").returncode == 0  # a compiler is there now
    assert behind(project).state().phase == "there"


def test_two_studios_build_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(project)
    monkeypatch.setenv("BUILD_SECONDS", "1")
    one, two = behind(project), behind(project)
    one.start()
    until(one, "building")
    two.start()
    until(one, "done")
    until(two, "done")
    assert project.layout.log.read_text().count(" wheel --no-deps") == 1
    assert has_it(project)


def test_offline_and_strangers_environments_are_left_alone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(project)
    assert WriterSetup(layout=project.layout).state().phase == "absent"  # this test runs in another environment
    writer = WriterSetup(offline=True, layout=project.layout, prefix=str(project.layout.env))
    writer.start()
    assert writer.state().phase == "offline"
    monkeypatch.setenv("MOVA_OFFLINE", "1")
    assert behind(project).state().phase == "offline"
    assert groups(project) == {"base", "studio"}


def test_a_build_ends_before_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lives on to see its compiler killed would write down that nothing can be built here."""
    ended: list[int] = []
    kill = psutil.Process.kill
    monkeypatch.setattr(psutil.Process, "kill", lambda one: (ended.append(one.pid), kill(one)))
    script = "import subprocess, sys; c = [sys.executable, '-c', 'input()']; subprocess.run(c, stdin=sys.stdin)"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as build:
        while not (started := psutil.Process(build.pid).children()):
            time.sleep(0.01)
        _end_tree(build.pid)
        assert ended == [build.pid, started[0].pid]

"""install.bat and start.bat: read as text everywhere, and run where there is wine and a compiler for Windows.

The run needs wine and `pip install ziglang`; stand-ins take the places of curl, certutil, tar, uv and Python.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "data" / "windows" / "standin.c"
BATCHES = ("install.bat", "start.bat")
LONGEST_LINE = 200  # cmd takes 8191; longer than this nobody reads
TOGETHER = shutil.which("wine") is not None and importlib.util.find_spec("ziglang") is not None


def lines(name: str) -> list[str]:
    return (ROOT / name).read_bytes().decode("ascii").split("\r\n")


@pytest.mark.parametrize("name", [*BATCHES, "install.ps1"])
def test_line_ends_and_alphabet(name: str) -> None:
    """cmd jumps to wrong places in files without CR, and reads other alphabets by the console's code page."""
    raw = (ROOT / name).read_bytes()
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert raw.endswith(b"\r\n")
    assert raw.isascii()
    assert max(len(line) for line in lines(name)) <= LONGEST_LINE
    assert "-text" in (ROOT / ".gitattributes").read_text()


@pytest.mark.parametrize("name", BATCHES)
def test_every_label_that_is_jumped_to_exists_and_the_other_way_round(name: str) -> None:
    text = "\n".join(lines(name))
    jumps = set(re.findall(r"goto :(\w+)", text))
    labels = set(re.findall(r"^:(\w+)$", text, re.MULTILINE))
    assert jumps - {"eof"} <= labels
    assert labels <= jumps | {"failed"}  # reached by falling through, too


@pytest.mark.parametrize("name", BATCHES)
def test_every_path_is_in_quotes(name: str) -> None:
    """Also spaces, & and ( ) in the folder's name are then no more than letters."""
    for line in lines(name):
        if line.startswith(("rem ", "echo ")):
            continue
        for match in re.finditer(r"%~dp0|%(?:CD|ZIP|PYTHON|URL)%", line):
            assert line[: match.start()].count('"') % 2 == 1, line


@pytest.mark.parametrize("name", BATCHES)
def test_exit_codes_are_looked_at(name: str) -> None:
    """After every program that can fail the next line asks; && and || bind too loosely in cmd to be relied on."""
    text = lines(name)
    programs = re.compile(r'(curl |tar |"\.uv\\uv\.exe" |"%PYTHON%" launch\.py setup|call |cd )')
    for line, following in pairwise(text):
        assert "&&" not in line
        assert "||" not in line
        if programs.match(line):
            assert following.startswith("if errorlevel 1 "), line
    assert "setlocal EnableExtensions DisableDelayedExpansion" in text  # else a ! in a path is lost
    assert text[0] == "@echo off"


def test_the_same_uv_everywhere() -> None:
    batch, shell = "\n".join(lines("install.bat")), (ROOT / "install.sh").read_text()
    assert re.findall(r"UV=([\d.]+)", batch)[0] == re.findall(r"UV=([\d.]+)", shell)[0]
    assert len(set(re.findall(r"\b[0-9a-f]{64}\b", batch + shell))) == 4


# --- under wine --------------------------------------------------------------------------------------------------

CASES = {
    "plain": ("plain", {}, 0),
    "odd name": ("a b & c 'q' ü (1)!x", {}, 0),
    "offline": ("offline", {"FAKE_OFFLINE": "1"}, 1),
    "offline with Python": ("offline-py", {"FAKE_OFFLINE": "1", "FAKE_PY": "PYTHON"}, 0),
    "forged": ("forged", {"FAKE_SHA": "0" * 64}, 1),
    "set-up fails": ("fails", {"FAKE_EXIT": "1"}, 1),
    "no Python from uv": ("nopython", {"FAKE_NOPYTHON": "1"}, 1),
}
SAYS = {
    "offline": "Python could not be fetched",
    "forged": "its sha256 is another one. It was deleted.",
    "no Python from uv": "Python could not be fetched",
}


def windows(path: Path) -> str:
    return "Z:" + str(path).replace("/", "\\")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-windows-gnu", "-O1"]
    subprocess.run([*compiler, str(SOURCE), "-o", str(folder / "python.exe")], check=True)
    for name in ("curl", "certutil", "tar", "py"):
        shutil.copy(folder / "python.exe", folder / f"{name}.exe")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not TOGETHER, reason="needs wine and ziglang")
@pytest.mark.parametrize("case", CASES)
def test_under_wine(case: str, programs: Path, tmp_path: Path) -> None:
    name, answers, code = CASES[case]
    root, log = tmp_path / name, tmp_path / "log"
    root.mkdir()
    for file in BATCHES:
        shutil.copy(ROOT / file, root)
    [digest] = re.findall(r"SUM=(\w{64})", (ROOT / "install.bat").read_text())
    environment = {
        **os.environ,
        "WINEDEBUG": "-all",
        "WINEPATH": windows(programs),
        "LC_ALL": "C.UTF-8",
        "MOVA_QUIET": "1",
        "FAKE_LOG": windows(log),
        "FAKE_ZIP": windows(programs / "python.exe"),
        "FAKE_SHA": digest,
        "FAKE_PYTHON": windows(programs / "python.exe"),
        **{key: windows(programs / "python.exe") if value == "PYTHON" else value for key, value in answers.items()},
    }

    def run(*command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["wine", "cmd", "/d", "/c", *command], env=environment, cwd=root, capture_output=True)

    done = run("install.bat")
    said, called = done.stdout.decode("utf-8", "replace"), log.read_text(errors="replace")
    assert done.returncode == code, said
    assert SAYS.get(case, "") in said
    assert ("launch.py|setup" in called) == (case in ("plain", "odd name", "offline with Python", "set-up fails"))
    assert not list((root / ".uv").glob("*.zip"))
    if code == 0:
        assert "launch.py|shortcuts" in called
        assert run(".\\start.bat", "generate", "two words").returncode == 0
        assert log.read_text(errors="replace").splitlines()[-1].endswith("launch.py|generate|two words")

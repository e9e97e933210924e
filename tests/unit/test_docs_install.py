"""docs/install.md and the README: every command there is one that exists, with the options it is shown with."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import launch
from bootstrap import backend, package, setup, update
from engine.downloads import cli
from engine.downloads.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"(?:python3? launch\.py|sh start\.sh)((?: [^\s`]+)*)")


def shown() -> list[list[str]]:
    """The commands of the page, in code blocks and in sentences."""
    return [shlex.split(match[1]) for match in COMMAND.finditer(PAGE)]


@pytest.mark.parametrize("words", shown(), ids=lambda words: " ".join(words) or "(nothing)")
def test_command_exists_with_its_options(words: list[str], tmp_path: Path) -> None:
    if not words or words[0] == "--help":
        return
    name, rest = words[0], words[1:]
    assert name in launch.COMMANDS
    if name == "models":
        cli.build_parser().parse_args(rest)
    elif name == "update":
        with pytest.raises(SystemExit, match="0"):
            update.main([*rest, "--help"], tmp_path)
        assert rest


def test_commands_that_change_nothing_run(tmp_path: Path) -> None:
    for words in (["--help"], ["update", "--help"], ["uninstall", "--help"], ["package", "--help"]):
        done = subprocess.run([sys.executable, "launch.py", *words], cwd=ROOT, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        assert "usage" in done.stdout


def test_figures_and_names_are_those_of_the_program() -> None:
    assert f"longest path inside takes {setup.LONGEST_INSIDE}" in PAGE
    assert f"own path may have {setup.WINDOWS_PATH - 2 - setup.LONGEST_INSIDE}" in PAGE
    for tag, room in {**setup.DISK_GB, "CUDA": setup.CUDA_DISK_GB}.items():
        assert tag == backend.DEFAULT or f"{room:g} GB" in PAGE
    for tag in backend.TAGS:
        assert f"`{tag}`" in PAGE
    for name in re.findall(r"\b(?:MOVA-\d+p|qwen3[\w.-]+)(?=[` ])", PAGE):
        assert name in {entry.name for entry in CATALOGUE}
    for variable in re.findall(r"`(MOVA_\w+)`", PAGE):
        sources = [*ROOT.glob("bootstrap/*.py"), *ROOT.glob("engine/downloads/*.py"), ROOT / "install.sh"]
        assert any(variable in path.read_text(encoding="utf-8") for path in sources), variable


def test_release_archive_has_what_the_page_speaks_of() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    paths = package.shipped(ROOT)
    for name in ("install.sh", "install.bat", "install.ps1", "start.sh", "start.bat", "launch.py", "docs/install.md"):
        assert name in paths
    assert not [path for path in paths if path.startswith(("tests/", ".ci/", "runs/"))]


def test_same_tree_gives_same_archive(tmp_path: Path) -> None:
    """And Windows' scripts keep their line ends in it, the shell's can be started."""
    paths = ["install.bat", "install.sh", "launch.py", "pyproject.toml"]
    first = package.make(ROOT, tmp_path / "one", paths)
    assert package.sha256(first) == package.sha256(package.make(ROOT, tmp_path / "two", paths))
    release = package.unpack(first, tmp_path / "unpacked")
    assert sorted(release.files) == paths
    assert (tmp_path / "unpacked" / "install.bat").read_bytes().count(b"\r\n") > 50
    assert (tmp_path / "unpacked" / "install.sh").stat().st_mode & 0o111

"""The lock files: complete, exact, the same as pyproject.toml, and tied to no machine."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
EXTRAS = {"test": "dev"}  # lock file -> extra, where the names differ


def pins(path: Path) -> list[Requirement]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def here(requirements: list[Requirement]) -> dict[str, Requirement]:
    """Those that this machine and Python install, by name."""
    return {canonicalize_name(r.name): r for r in requirements if r.marker is None or r.marker.evaluate()}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_pins_are_exact_and_tied_to_no_machine(path: Path) -> None:
    assert "://" not in path.read_text(encoding="utf-8")
    options = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("-")]
    built = ["--no-binary llama-cpp-python"] if path.stem == "enhancer" else []  # published as source only
    assert options == ["--only-binary :all:", *built]
    for requirement in pins(path):
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert not requirement.name.startswith(("nvidia-", "cuda-", "triton"))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_hold_what_the_project_declares(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    group = path.stem
    names = EXTRAS.get(group, group)
    declared = project["dependencies"] if group == "base" else project["optional-dependencies"][names]
    locked = here(pins(ROOT / "requirements" / "base.txt")) | here(pins(path))
    for line in declared:
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate():
            pin = locked[canonicalize_name(wanted.name)]
            assert wanted.specifier == pin.specifier, line


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_are_complete_and_agree(path: Path) -> None:
    """Set-up installs with --no-deps: everything that a locked package needs must be locked, too, and fit."""
    base = here(pins(ROOT / "requirements" / "base.txt"))
    own = here(pins(path))
    assert path.stem == "base" or not set(own) & set(base), "an extra must not repeat or change a pin of the base"
    locked = base | own
    for name in own:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
        for need in map(Requirement, needs):
            needed = canonicalize_name(need.name)
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            if name == "torch" and needed.startswith(("nvidia-", "cuda-", "triton")):
                continue  # a CUDA build brings its own
            assert needed in locked, f"{name} needs {need}, which is not locked"
            version = next(iter(locked[needed].specifier)).version
            assert need.specifier.contains(version, prereleases=True), f"{name} needs {need}, locked is {version}"


def test_installed_versions_are_the_locked_ones() -> None:
    for name, requirement in here(pins(ROOT / "requirements" / "base.txt")).items():
        installed = importlib.metadata.version(name)
        assert requirement.specifier.contains(installed, prereleases=True), f"{requirement}, installed {installed}"

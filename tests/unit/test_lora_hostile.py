"""Files of strangers, the short form of tests/campaigns/hostile_lora.py, in a process of its own; and the library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import LoraError
from engine.lora import Library, describe
from engine.lora.convert import convert
from tests.campaigns import hostile_lora as campaign

ROOT = Path(__file__).parents[2]


def test_strangers_files_are_refused_within_bounds() -> None:
    command = [sys.executable, "-m", "tests.campaigns.hostile_lora", "--mutated", "1500", "--convert", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing escaped" in done.stdout
    assert "torch loaded: False, canary silent" in done.stdout


def test_there_are_over_two_hundred_hostile_files(tmp_path: Path) -> None:
    files = campaign.hostile(tmp_path, tmp_path / "canary")
    assert len(files) == len(set(files)) >= 200


def test_a_canary_that_is_unpickled_would_be_heard(tmp_path: Path) -> None:
    import pickle

    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(campaign.Canary(canary)))  # noqa: S301 - this is the proof that the canary sings
    assert canary.exists()


@pytest.mark.slow
def test_the_converter_opens_nothing_but_tensors(tmp_path: Path) -> None:
    assert campaign.convert_all(tmp_path, tmp_path / "canary", 3) == []
    assert not (tmp_path / "canary").exists()
    assert not list((tmp_path / "archives").glob("*.out.safetensors"))


def test_converter_refuses_before_anything_is_started(tmp_path: Path) -> None:
    for wrong, says in (("missing.pt", "no such file"), ("x.bin", "no such file")):
        with pytest.raises(LoraError, match=says):
            convert(tmp_path / wrong)
    with pytest.raises(LoraError, match=r"does not end in \.safetensors"):
        convert(tmp_path / "a.pt", tmp_path / "b.pt")
    with pytest.raises(LoraError, match="tower"):
        convert(tmp_path / "a.pt", tower="middle")


def good(path: Path, value: float = 0.1) -> Path:
    tensors = campaign.pair(value=value)
    notes = {"modelspec.trigger_phrase": "zorb", "modelspec.title": path.stem.title(), "modelspec.license": "CC0"}
    campaign.write(path, campaign.header_of(tensors, notes), campaign.body(tensors))
    return path


def test_library_keeps_finds_edits_and_removes(tmp_path: Path) -> None:
    library = Library(tmp_path / "loras")
    assert library.entries() == []
    preview = tmp_path / "p.png"
    preview.write_bytes(b"\x89PNG")
    entry = library.add(good(tmp_path / "cats.safetensors"), preview)
    assert (entry.name, entry.about.triggers, entry.about.licence) == ("Cats", ("zorb",), "CC0")
    assert entry.preview is not None
    assert library.add(tmp_path / "cats.safetensors").path == entry.path  # not twice
    second = library.add(good(tmp_path / "dogs.safetensors", 0.2))
    assert [e.name for e in library.entries()] == ["Cats", "Dogs"]
    assert library.find("Dogs") == library.find(second.sha256[:8]) == library.find("dogs.safetensors") == second
    edited = library.edit(second.sha256, title="Hounds", triggers=["wuff", "x\u202ey"], notes="mine", tower="high")
    assert (edited.name, edited.about.triggers, edited.notes, edited.tower) == (
        "Hounds",
        ("wuff", "x y"),
        "mine",
        "high",
    )
    assert edited.about.licence == "CC0"  # what the user did not say stays the maker's
    with pytest.raises(LoraError, match="cannot be edited"):
        library.edit(second.sha256, size=0)
    with pytest.raises(LoraError, match="there: cats, dogs"):
        library.find("birds")
    assert describe(edited)["name"] == "Hounds"
    library.remove(entry.sha256)
    assert [e.name for e in library.entries()] == ["Hounds"]
    assert not list(library.folder.glob("cats*"))


def test_library_notices_what_changed_behind_its_back(tmp_path: Path) -> None:
    library = Library(tmp_path)
    good(tmp_path / "a.safetensors")
    first = library.entries()[0]
    good(tmp_path / "a.safetensors", 0.7)
    (tmp_path / "a.safetensors").touch()
    assert library.entries()[0].sha256 != first.sha256
    (tmp_path / ".index.json").write_text("[" * 1000)
    assert len(library.entries()) == 1
    (tmp_path / "a.safetensors").write_bytes(b"GGUF" + bytes(100))
    assert "GGUF" in (library.entries()[0].fault or "")
    with pytest.raises(LoraError, match="GGUF"):
        library.add(tmp_path / "a.safetensors")

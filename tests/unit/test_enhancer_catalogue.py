"""Models by name: what is bundled, recommended and found, what pictures tell, and the rules of the package itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from engine.downloads.catalogue import find_entry
from prompt_enhancer import IdeaError, ModelError, catalogue, cli
from prompt_enhancer.catalogue import BUNDLED, BUNDLED_FILE, RECOMMENDED, Known, choose, damage, installed
from prompt_enhancer.pictures import measure
from prompt_enhancer.training.ideas import example
from prompt_enhancer.training.world import THINGS

ROOT = Path(__file__).resolve().parents[2]


def test_the_bundled_model_is_the_one_that_was_made() -> None:
    assert damage(BUNDLED) == ""
    assert BUNDLED_FILE.stat().st_size < 5_000_000


def test_recommended_models_say_what_they_are() -> None:
    assert any(one.projector for one in RECOMMENDED)
    assert len({file.sha256 for one in RECOMMENDED for file in one.files}) == sum(len(one.files) for one in RECOMMENDED)
    for one in RECOMMENDED:
        assert one.licence == "Apache-2.0"
        assert one.page == f"huggingface.co/{one.repository}"
        assert len(one.revision) == 40
        for file in one.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert 10**8 < file.size < 10**10
            assert file.name.endswith(".gguf")


@pytest.mark.parametrize("one", RECOMMENDED, ids=lambda one: one.name)
def test_what_can_be_downloaded_is_what_is_recommended(one: Known) -> None:
    entry = find_entry(one.name)
    assert (entry.kind, entry.licence, entry.repository) == ("enhancer", one.licence, one.repository)
    assert (entry.revision, entry.size) == (one.revision, one.size)
    assert set(entry.wanted) == {file.name for file in one.files}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalogue, "models_folder", lambda: tmp_path)
    return tmp_path


def test_files_of_the_user_are_found_with_their_projectors(folder: Path) -> None:
    (folder / "sub").mkdir()
    for name in ("mine.gguf", "Qwen3-4B-Q4_K_M.gguf", "sub/See-2B-Q4_K_M.gguf", "sub/mmproj-See-2B-F16.gguf", "x.txt"):
        (folder / name).write_bytes(b"GGUF")
    there = installed()
    assert set(there) == {"demo", "mine", "qwen3-4b", "See-2B-Q4_K_M"}
    assert there["See-2B-Q4_K_M"].projector == folder / "sub" / "mmproj-See-2B-F16.gguf"
    assert there["mine"].projector is None


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("qwen3-4b", "2.5 GB, Apache-2.0"),
        ("qwen3-vl-2b", "mmproj-Qwen3VL-2B-Instruct-Q8_0.gguf"),
        ("qwen4b", "did you mean 'qwen3-4b'"),
        ("no/such/file.gguf", "installed: demo, rules"),
    ],
)
def test_a_model_that_is_not_there_is_told_with_the_way_to_it(wanted: str, said: str, folder: Path) -> None:
    with pytest.raises(ModelError, match=said.replace(".", r"\.")):
        choose(wanted)


def test_a_damaged_download_is_seen(folder: Path) -> None:
    known = replace(BUNDLED, name="copy")
    data = BUNDLED_FILE.read_bytes()
    (folder / known.file).write_bytes(data)
    assert damage(known) == ""
    (folder / known.file).write_bytes(data[:-1])
    assert "4853471 bytes instead of 4853472" in damage(known)
    (folder / known.file).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "not the file it should be" in damage(known)
    (folder / known.file).unlink()
    assert "cannot be read" in damage(known)


def test_the_list_tells_of_a_damaged_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "damaged" not in cli.listed()
    broken = tmp_path / BUNDLED_FILE.name
    broken.write_bytes(BUNDLED_FILE.read_bytes()[:-1])
    monkeypatch.setattr(catalogue, "BUNDLED_FILE", broken)
    assert "demo           damaged    demo-enhancer.gguf has 4853471 bytes" in cli.listed()


def test_pictures_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (160, 90), (200, 20, 20)).save(path)
    facts = measure(path)
    assert (facts.width, facts.height, facts.colours, facts.light) == (160, 90, ("red",), "dark")
    Image.new("RGB", (90, 160), (250, 250, 250)).save(path)
    assert (measure(path).colours, measure(path).light) == (("white",), "bright")
    path.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(IdeaError, match=r"a\.png cannot be read"):
        measure(path)


def test_the_package_loads_nothing_heavy() -> None:
    code = "import sys, prompt_enhancer; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "gradio", "llama_cpp", "transformers", "engine", "app", "numpy"}


def test_training_texts_follow_from_their_seed_and_name_only_their_world() -> None:
    import random

    first, again = ([example(random.Random(f"x {n}")) for n in range(50)] for _ in range(2))
    assert first == again
    held_out = [example(random.Random(f"y {n}"), held_out=True) for n in range(200)]
    seen = {example(random.Random(f"x {n}")).idea for n in range(2000)}
    assert not {one.idea for one in held_out} & seen
    nouns = {noun for thing in THINGS.values() for noun in thing.nouns}
    assert all(any(noun in one.opening.lower() for noun in nouns) for one in held_out)
    assert all(one.answer.count("\n") == 3 and '"' not in one.answer for one in first)

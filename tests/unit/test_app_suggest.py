"""What the page may ask of the enhancer: which writers there are, an own file, the picture; and what guests may not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app import enhancing
from app.errors import NotAllowed
from app.spec import JobSpec
from app.suggest import NO_MODEL, request_of, view, writers
from app.tabs.enhance import beside, enhancer_fields, enhancer_values
from engine.errors import RequestError
from prompt_enhancer import EnhanceRequest, ModelError, catalogue, enhance
from prompt_enhancer.catalogue import BUNDLED_FILE, choose, choose_vision, own_file
from tests.app_parts import GUEST, OWNER, studio
from tests.enhancer_parts import need_llama, write_projector


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for language models."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(catalogue, "models_folder", lambda: folder)
    return folder


def seeing(folder: Path) -> Path:
    """A model with its projector in a folder."""
    path = folder / "Tiny-Eyes-F32.gguf"
    path.write_bytes(BUNDLED_FILE.read_bytes())
    write_projector(folder / "mmproj-Tiny-Eyes-F16.gguf")
    return path


def test_without_a_model_that_sees_one_is_named(models: Path) -> None:
    found = writers({}, OWNER)
    assert found["eyes"] == ""
    assert found["eyes_get"]["name"] == "qwen3-vl-2b"
    assert found["eyes_get"]["size"] > 1e9
    assert writers({}, GUEST)["eyes_get"] is None


def test_a_model_with_its_projector_sees(models: Path) -> None:
    seeing(models)
    found = writers({}, OWNER)
    assert found["eyes"] == "Tiny-Eyes-F32"
    assert {one["name"]: one["sees"] for one in found["models"] if one["there"]} == {
        "demo": False,
        "Tiny-Eyes-F32": True,
    }


def test_own_files_are_looked_at_before_they_are_chosen(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(BUNDLED_FILE.read_bytes())
    assert writers({"file": f' "{path}" '}, OWNER)["file"] == {"path": str(path), "title": "mine", "sees": False}
    with pytest.raises(NotAllowed):
        writers({"file": str(path)}, GUEST)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.gguf", None, "cannot be read"),
        ("notes.txt", b"GGUF", "does not end in .gguf"),
        ("picture.gguf", b"\x89PNG", "not a GGUF file"),
        ("mmproj-x.gguf", b"GGUF", "what a model sees with"),
    ],
)
def test_files_that_are_no_writer_are_told(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=words):
        writers({"file": str(tmp_path / name)}, OWNER)


def test_a_path_must_be_whole() -> None:
    with pytest.raises(ModelError, match="not a whole path"):
        own_file("models/x.gguf")


def test_the_page_s_question_becomes_a_request(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(BUNDLED_FILE.read_bytes())
    with studio(tmp_path / "data") as core:
        asked = {"idea": "a red ball bounces", "model": str(path)}
        assert request_of(core, asked, OWNER).model == str(path)
        assert request_of(core, asked, OWNER).vision is None
        assert request_of(core, {**asked, "look": False}, OWNER).vision == "off"
        with pytest.raises(RequestError, match="choose demo or rules"):
            request_of(core, asked, GUEST)
        with pytest.raises(RequestError, match="no idea yet"):
            request_of(core, {"idea": " \n"}, OWNER)
        path.unlink()
        with pytest.raises(ModelError, match="cannot be read"):
            request_of(core, asked, OWNER)


def test_an_own_file_writes(tmp_path: Path) -> None:
    need_llama()
    path = tmp_path / "mine.gguf"
    path.write_bytes(BUNDLED_FILE.read_bytes())
    with studio(tmp_path / "data") as core:
        result = enhance(request_of(core, {"idea": "A red ball bounces slowly.", "model": str(path)}, OWNER))
    assert result.written_by == "mine"
    assert result.tokens > 0


def test_a_suggestion_by_rules_says_why_in_a_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # as if it were not installed
    told = view(enhance(EnhanceRequest("A red ball bounces.")), OWNER)
    assert told["written_by"] == "rules"
    assert told["why_rules"] == NO_MODEL
    assert writers({}, OWNER, "not yet")["missing"] == "not yet"
    assert writers({}, GUEST, "not yet")["missing"] == ""


def test_the_writer_that_sees_is_the_one_that_looks(models: Path, tmp_path: Path) -> None:
    seeing(models)
    other = tmp_path / "elsewhere"
    other.mkdir()
    own = own_file(str(seeing(other)))
    assert choose_vision(None, own) == own
    assert choose_vision(None, choose("demo")) == choose("Tiny-Eyes-F32")
    assert choose_vision("off", own) is None


def test_automatic_jobs_keep_the_switches(tmp_path: Path) -> None:
    part = {"mode": "automatic", "model": "qwen3-4b", "look": False}
    spec = JobSpec("a ball", seed=1, **enhancer_fields([part]))
    assert spec.enhancer == {"mode": "automatic", "model": "qwen3-4b", "look": False}
    assert enhancing.check(spec, guest=False).enhancer == spec.enhancer
    assert enhancing._request(spec, None, ()).vision == "off"
    assert enhancing._request(JobSpec("a", **enhancer_fields([{"mode": "automatic"}])), None, ()).vision is None
    assert enhancer_values(JobSpec.from_json(spec.to_json())) == [part]


def test_settings_of_a_clip_leave_the_choice_of_writer() -> None:
    now = {"mode": "suggest", "model": "qwen3-4b", "look": False, "file": None, "idea": "old"}
    assert beside(enhancer_values(JobSpec("x"))[0], now) == {
        "mode": "suggest",
        "model": "qwen3-4b",
        "look": False,
        "file": None,
    }

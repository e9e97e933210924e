"""A first frame looked at through llama.cpp: a projector of random weights stands in for a downloaded one.

What it makes the bundled model say is nonsense; that it sees, remembers, refuses and stops is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prompt_enhancer import EnhanceRequest, ModelError, catalogue, enhance, vision
from prompt_enhancer.catalogue import BUNDLED_FILE, Chosen, choose_vision
from prompt_enhancer.chat import DESCRIPTION
from prompt_enhancer.guarantees import verify
from prompt_enhancer.writer import Reply, Writer
from tests.enhancer_parts import need_llama, write_projector


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with one model that sees."""
    path = tmp_path_factory.mktemp("models")
    (path / "Tiny-Eyes-F32.gguf").write_bytes(BUNDLED_FILE.read_bytes())
    write_projector(path / "mmproj-Tiny-Eyes-F16.gguf")
    return path


@pytest.fixture
def eyes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chosen:
    need_llama()
    monkeypatch.setattr(catalogue, "models_folder", lambda: folder)
    monkeypatch.setattr(vision, "cache_folder", lambda: tmp_path / "cache")
    found = choose_vision(None)
    assert found is not None
    assert found.projector is not None
    return found


@pytest.fixture(scope="module")
def model() -> Iterator[Writer]:
    one = Writer()
    yield one
    one.release()


def picture(path: Path, colour: tuple[int, int, int], kind: str = "PNG") -> Path:
    image = Image.new("RGB", (160, 90), colour)
    image.paste((255, 255, 255), (20, 20, 70, 70))
    image.save(path, kind)
    return path


def test_the_model_reads_the_picture_and_the_text_around_it(folder: Path, tmp_path: Path) -> None:
    need_llama()
    import llama_cpp

    from prompt_enhancer.eyes import Eyes, read_picture
    from prompt_enhancer.llama import Llama

    model = Llama(folder / "Tiny-Eyes-F32.gguf", 1)
    eyes = Eyes(folder / "mmproj-Tiny-Eyes-F16.gguf", model, 1)

    def after(colour: tuple[int, int, int], task: str, control: bool = False) -> tuple[int, np.ndarray]:
        shown = read_picture(picture(tmp_path / "frame.png", colour))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(model.state), True)
        place = eyes.show(model, shown, [("<|idea|>", True), (task, control), None, ("<|write|>", True)])
        logits = llama_cpp.llama_get_logits_ith(model.state, -1)
        return place, np.ctypeslib.as_array(logits, shape=(1536,)).copy()

    red, again, blue = after((200, 10, 10), "x"), after((200, 10, 10), "x"), after((10, 10, 200), "x")
    assert np.array_equal(red[1], again[1])
    assert np.abs(red[1] - blue[1]).max() > 0.1
    assert red[0] == 1 + 1 + 4 + 1, "28 pixels in patches of 14 are four tokens"
    assert after((200, 10, 10), "<|end|>", True)[0] == red[0]
    assert after((200, 10, 10), "<|end|>", False)[0] > red[0], "control only where it is our own"


def test_a_look_writes_whole_sentences(eyes: Chosen, tmp_path: Path, model: Writer) -> None:
    assert eyes.projector is not None
    image = picture(tmp_path / "frame.png", (200, 10, 10))
    reply = model.look(eyes.path, eyes.projector, image, "a ball", DESCRIPTION, time.monotonic() + 60)
    assert reply.reason == "end"
    assert reply.text.endswith((".", "!"))


def test_a_description_is_made_once_and_opens_the_prompt(
    eyes: Chosen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Writer
) -> None:
    looked = []

    def look(self: Writer, path: Path, projector: Path, image: Path, *more: object) -> Reply:
        looked.append(image)
        return Reply("A red wall with a white door, and the word OPEN.", 12, "end", 0.1)

    monkeypatch.setattr(Writer, "look", look)
    image = picture(tmp_path / "frame.png", (200, 10, 10))
    request = EnhanceRequest("The door opens.", image=image, model="rules")
    for _ in range(2):
        result = enhance(request, writer=model)
        assert "The first frame shows this: A red wall with a white door, and the word OPEN." in result.text
        assert verify(result, request) == []
    assert looked == [image]
    copy = tmp_path / "copy.png"
    copy.write_bytes(image.read_bytes())
    enhance(EnhanceRequest("A man walks in.", image=copy, model="rules"), writer=model)
    assert looked == [image], "the same bytes are the same picture"
    other = picture(tmp_path / "other.png", (10, 200, 10))
    enhance(EnhanceRequest("A man walks in.", image=other, model="rules"), writer=model)
    assert looked == [image, other]


@pytest.mark.parametrize(
    "reply", ["", "short", 'It says "BUY".', "wall wall wall wall wall.", "这是一面墙和一扇白色的门。"]
)
def test_nonsense_about_a_picture_is_left_out(
    reply: str, eyes: Chosen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Writer
) -> None:
    monkeypatch.setattr(Writer, "look", lambda self, *more: Reply(reply, 9, "end", 0.1))
    image = picture(tmp_path / "frame.png", (200, 10, 10))
    result = enhance(EnhanceRequest("The door opens.", image=image, model="rules"), writer=model)
    assert any("was not described" in one for one in result.refused)
    assert "mostly red" in result.text, "then only what is measured"
    assert not list((tmp_path / "cache").glob("*"))


def test_a_real_look_ends_in_a_valid_prompt(eyes: Chosen, tmp_path: Path, model: Writer) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        image = picture(tmp_path / f"frame.{kind.lower()}", (10, 160, 20), kind)
        request = EnhanceRequest('A man opens the door and says "Come in".', image=image)
        assert verify(enhance(request, writer=model), request) == []


def test_vision_can_be_off(eyes: Chosen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Writer) -> None:
    monkeypatch.setattr(Writer, "look", lambda self, *more: pytest.fail("it looked"))
    image = picture(tmp_path / "frame.png", (200, 10, 10))
    result = enhance(EnhanceRequest("The door opens.", image=image, model="rules", vision="off"), writer=model)
    assert "mostly red and white" in result.text or "mostly red" in result.text


def test_wrong_projectors_are_told(eyes: Chosen, tmp_path: Path, model: Writer) -> None:
    image = picture(tmp_path / "frame.png", (200, 10, 10))
    wide, broken = tmp_path / "mmproj-wide.gguf", tmp_path / "mmproj-broken.gguf"
    write_projector(wide, width=64)
    assert eyes.projector is not None
    broken.write_bytes(eyes.projector.read_bytes()[:3000])
    for projector in (wide, broken, BUNDLED_FILE):
        with pytest.raises(ModelError):
            model.look(eyes.path, projector, image, "x", DESCRIPTION, time.monotonic() + 60)
    reply = model.look(eyes.path, eyes.projector, image, "x", DESCRIPTION, time.monotonic() + 60)
    assert reply.tokens > 0, "and the right one still works"


def test_a_model_without_eyes_is_refused(eyes: Chosen) -> None:
    with pytest.raises(ModelError, match="cannot see"):
        enhance(EnhanceRequest("a ball", vision="demo"))
    with pytest.raises(ModelError, match="did you mean 'qwen3-vl-2b'"):
        enhance(EnhanceRequest("a ball", vision="qwen3-vl"))

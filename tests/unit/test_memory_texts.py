"""Kept text embeddings: a text that was read before needs no text encoder, and nothing damaged is ever used."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from engine import MovaPipeline
from engine.errors import CheckpointError
from engine.texts import ABANDONED, SAMPLE, WHOLE, TextCache, file_digest
from tests.memory_parts import TINY, plan, run, same, storage


@pytest.fixture(scope="module")
def expected():
    return run(MovaPipeline.from_pretrained(TINY))


def opened(folder, texts, **values):
    return MovaPipeline.from_pretrained(folder, texts=TextCache(texts), **values)


@pytest.mark.parametrize("planned", [False, True])
def test_a_rerun_never_loads_the_text_encoder(tmp_path, expected, planned):
    values = {"plan": plan(**storage("pageable", 1))} if planned else {}
    first = opened(TINY, tmp_path, **values)
    assert same(run(first), expected)
    assert (first.text_loads, first.texts.made, first.texts.found) == (1, 2, 0)
    again = opened(TINY, tmp_path, **values)
    assert same(run(again), expected)
    assert (again.text_loads, again.texts.made, again.texts.found) == (0, 0, 2)
    assert same(run(again, num_inference_steps=2), run(first, num_inference_steps=2))
    assert again.text_loads == 0
    assert again.encode_prompt("another text").embeds.shape == (1, 512, again.text_encoder.config.d_model)
    assert again.text_loads == 1


def test_what_is_kept_is_all_of_the_embedding(tmp_path):
    long = "a bell " * 600
    for texts in (["a bell rings"], ["a bell", "  a   drum &amp; a ball "], [""], [long]):
        plain = MovaPipeline.from_pretrained(TINY).encode_prompt(texts)
        opened(TINY, tmp_path).encode_prompt(texts)
        pipe = opened(TINY, tmp_path)
        kept = pipe.encode_prompt(texts)
        assert pipe.text_loads == 0
        assert torch.equal(kept.embeds, plain.embeds)
        assert torch.equal(kept.token_ids, plain.token_ids)
        assert kept.truncated == plain.truncated
        assert kept.embeds.dtype == plain.embeds.dtype
    assert kept.truncated == [True]


def test_another_model_precision_or_text_is_not_taken_for_this_one(tmp_path):
    opened(TINY, tmp_path / "cache").encode_prompt("a bell")
    copy = shutil.copytree(TINY, tmp_path / "renamed")
    assert opened(copy, tmp_path / "cache").encode_prompt("a bell") is not None
    for text, values in (("a bell!", {}), (["a bell"] * 2, {}), ("a bell", {"torch_dtype": torch.bfloat16})):
        pipe = opened(copy, tmp_path / "cache", **values)
        pipe.encode_prompt(text)
        assert pipe.text_loads == 1, text
    pipe = opened(copy, tmp_path / "cache")
    pipe.encode_prompt("a bell")
    assert pipe.text_loads == 0  # the folder's name does not matter
    for file in ("tokenizer/tokenizer.json", "text_encoder/model.safetensors"):
        change(copy / file)
        pipe = opened(copy, tmp_path / "cache")
        pipe.encode_prompt("a bell")
        assert pipe.text_loads == 1, file


def change(file):
    """Another content of the same form and length."""
    data = bytearray(file.read_bytes())
    if file.suffix == ".json":
        data += b" "
    else:
        data[-2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "junk", "other"])
def test_a_damaged_entry_is_computed_again(tmp_path, how, caplog):
    good = opened(TINY, tmp_path).encode_prompt("a bell").embeds
    (entry,) = tmp_path.iterdir()
    data = bytearray(entry.read_bytes())
    if how == "flipped":
        data[-40] ^= 16
    if how == "other":
        opened(TINY, tmp_path / "b").encode_prompt(["a drum"] * 2)
        data = next((tmp_path / "b").iterdir()).read_bytes()[:-8]
    entry.write_bytes({"cut": data[:-40], "empty": b"", "junk": b"\xff" * 99}.get(how, data))
    pipe = opened(TINY, tmp_path)
    assert torch.equal(pipe.encode_prompt("a bell").embeds, good)
    assert (pipe.text_loads, pipe.texts.mended) == (1, 1)
    assert "damaged" in caplog.text
    after = opened(TINY, tmp_path)
    assert torch.equal(after.encode_prompt("a bell").embeds, good)
    assert (after.text_loads, after.texts.mended) == (0, 0)


def test_the_folder_is_bounded_and_the_oldest_go(tmp_path):
    texts = TextCache(tmp_path / "texts")
    pipe = MovaPipeline.from_pretrained(TINY, texts=texts)
    pipe.encode_prompt("text 0")
    (first,) = texts.folder.iterdir()
    texts.limit = 5 * first.stat().st_size + 100
    for n in range(1, 12):
        for age, file in enumerate(sorted(texts.folder.iterdir(), key=lambda f: f.stat().st_mtime)):
            os.utime(file, (1e9 + age, 1e9 + age))
        assert pipe.encode_prompt("text 0") is not None  # in use all the time
        pipe.encode_prompt(f"text {n}")
        assert sum(f.stat().st_size for f in texts.folder.iterdir()) <= texts.limit
    assert texts.found == 11
    assert first.exists()
    made = texts.made
    pipe.encode_prompt("text 1")
    assert texts.made == made + 1
    texts.limit = 0
    pipe.encode_prompt("one that has no room but itself")
    assert len(list(texts.folder.iterdir())) == 1


def test_half_written_files_are_never_read_and_swept(tmp_path):
    pipe = opened(TINY, tmp_path)
    pipe.encode_prompt("a bell")
    (entry,) = tmp_path.iterdir()
    old, new = tmp_path / f"{entry.name}.1-1", tmp_path / f"{entry.name}.2-2"
    for file in (old, new):
        file.write_bytes(b"half")
    then = new.stat().st_mtime - ABANDONED - 60
    os.utime(old, (then, then))
    pipe.encode_prompt("a drum")
    assert (old.exists(), new.exists()) == (False, True)  # another process may be writing the young one


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "texts").write_text("a file where the folder should be")
    pipe = opened(TINY, tmp_path / "texts")
    plain = MovaPipeline.from_pretrained(TINY).encode_prompt("a bell").embeds
    assert torch.equal(pipe.encode_prompt("a bell").embeds, plain)


def test_a_broken_text_encoder_is_found_when_the_model_is_opened(tmp_path):
    copy = shutil.copytree(TINY, tmp_path / "model")
    file = copy / "text_encoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        opened(copy, tmp_path / "texts")


def test_large_files_are_known_by_size_time_and_pieces(tmp_path):
    file = tmp_path / "weights"
    with file.open("wb") as stream:
        stream.truncate(WHOLE + 12345)
    first = file_digest(file)
    found = file.stat()
    with file.open("r+b") as stream:
        stream.seek(WHOLE + 12345 - SAMPLE)
        stream.write(b"x")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    second = file_digest(file)
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns + 1000))
    assert len({first, second, file_digest(file)}) == 3

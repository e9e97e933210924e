"""Files of other kinds to our own form: the same LoRA comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.lora.cli import main
from engine.lora.convert import convert
from engine.lora.fit import fit, folder_shapes
from engine.lora.formats import read_lora
from engine.lora.values import load
from tests import lora_files as makers

MODEL = Path(__file__).parents[1] / "data" / "mova-tiny" / "checkpoint"
SHAPES = folder_shapes(MODEL)


def same(path: Path, lora: makers.Canonical, scales: dict[str, float]) -> None:
    placed = fit(read_lora(path), SHAPES)
    assert {(part, pair.module) for part, pair in placed.pairs} == {(lora.part, m) for m in lora.pairs}
    for _, pair in placed.pairs:
        down, up, _ = lora.pairs[pair.module]
        wanted = scales[pair.module] * (up.double() @ down.double())
        header = placed.file.header
        found = pair.scale * (load(header, pair.up).double() @ load(header, pair.down).double())
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_archives_of_both_trainers_come_out_as_they_were(tmp_path: Path) -> None:
    lora = next(
        c for c in (makers.draw(SHAPES, n, same_alpha=True) for n in range(99)) if next(iter(c.pairs.values()))[2]
    )
    makers.mova_low_resource(lora, tmp_path / "small.pt")
    done = convert(tmp_path / "small.pt")
    same(done.path, lora, {m: lora.scale(m) for m in lora.pairs})
    assert done.path.name == "small.mova.safetensors"
    makers.mova_fsdp(lora, tmp_path / "large.pt")  # says 16 whatever it was: taken as the rank, and said so
    done = convert(tmp_path / "large.pt")
    same(done.path, lora, dict.fromkeys(lora.pairs, 1.0))
    assert any("--alpha" in note for note in done.notes)


def test_the_tower_that_was_said_travels_with_the_file(tmp_path: Path) -> None:
    lora = makers.draw(SHAPES, 5)
    makers.kohya(lora, tmp_path / "cat.safetensors")
    done = convert(tmp_path / "cat.safetensors", tmp_path / "out.safetensors", tower="high")
    same(done.path, lora, {m: lora.scale(m) for m in lora.pairs})
    assert any("--tower" in note for note in convert(tmp_path / "cat.safetensors", tmp_path / "b.safetensors").notes)


def test_the_command_shows_adds_and_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    makers.mova(makers.draw(SHAPES, 6), tmp_path / "cat.safetensors")
    library = ["--library", str(tmp_path / "library")]
    assert main([*library, "list"]) == 0
    assert "no LoRA in" in capsys.readouterr().out
    assert main([*library, "add", str(tmp_path / "cat.safetensors")]) == 0
    assert main([*library, "show", "cat", "--model", str(MODEL)]) == 0
    assert "high noise" in capsys.readouterr().out
    assert main([*library, "list"]) == 0
    assert "cat" in capsys.readouterr().out
    assert main([*library, "show", "dog", "--model", str(MODEL)]) == 2
    assert "there: cat" in capsys.readouterr().err

"""LoRAs on a loaded model: the sum is right, strengths change, and nothing stays behind."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine import MovaPipeline
from engine.errors import LoraError
from engine.lora import Choice, Library, LoraStack, Strengths, missing, triggers, use
from engine.lora.convert import Factors, write
from engine.lora.fit import folder_shapes
from engine.lora.formats import read_lora
from tests import lora_files as makers

MODEL = Path(__file__).parents[1] / "data" / "mova-tiny" / "checkpoint"
SHAPES = folder_shapes(MODEL)


@pytest.fixture(scope="module")
def pipe() -> MovaPipeline:
    return MovaPipeline.from_pretrained(MODEL)


@pytest.fixture
def stack(pipe: MovaPipeline) -> LoraStack:
    return LoraStack(pipe.high_noise, pipe.low_noise)


def fingerprint(pipe: MovaPipeline) -> str:
    """Of every name, dtype and byte of both experts."""
    digest = hashlib.sha256()
    for expert in (pipe.high_noise, pipe.low_noise):
        for name, value in expert.state_dict().items():
            digest.update(f"{name} {value.dtype}".encode())
            digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def velocities(pipe: MovaPipeline, timestep: float, seed: int = 5) -> Tensor:
    """Both velocities of one evaluation, as one row."""
    g = torch.Generator().manual_seed(seed)
    c = pipe.high_noise.config
    z, n = c.video["out_dim"], c.audio["in_dim"]
    video, audio = torch.randn(1, z, 2, 4, 4, generator=g), torch.randn(1, n, 9, generator=g)
    condition = torch.randn(1, c.video["in_dim"] - z, 2, 4, 4, generator=g)
    text = torch.randn(1, 6, c.video["text_dim"], generator=g)
    return torch.cat([v.flatten() for v in pipe.velocity(video, audio, condition, text, timestep)])


def native(folder: Path, seed: int, part: str = "high") -> tuple[makers.Canonical, Path]:
    lora = makers.draw(SHAPES, seed, part)
    path = folder / f"{part}-{seed}.safetensors"
    makers.mova(lora, path)
    return lora, path


def weights_by_hand(pipe: MovaPipeline, loras: list[tuple[makers.Canonical, float]], stack: LoraStack) -> None:
    """Adds strength * scale * up @ down to the weights themselves, in float64."""
    for lora, strength in loras:
        for module, (down, up, _) in lora.pairs.items():
            weight = stack._places[lora.part, module].layer.weight
            change = strength * lora.scale(module) * (up.double() @ down.double())
            weight.data = (weight.double() + change.view(weight.shape)).to(weight.dtype)


def test_three_at_once_equal_the_sum_by_hand(pipe: MovaPipeline, stack: LoraStack, tmp_path: Path) -> None:
    before = fingerprint(pipe)
    plain = {t: velocities(pipe, t) for t in (950.0, 300.0)}
    drawn = [native(tmp_path, seed, part) for seed, part in ((1, "high"), (2, "audio"), (3, "low"))]
    strengths = (Strengths(high=0.7), Strengths(sound=-0.4), Strengths(low=1.3))
    for (_, path), strength in zip(drawn, strengths, strict=True):
        applied = stack.attach(stack.fit(read_lora(path)), strength)
        assert applied.has_effect
    found = {t: velocities(pipe, t) for t in plain}
    stack.merge()
    merged = {t: velocities(pipe, t) for t in plain}
    stack.detach_all()
    assert fingerprint(pipe) == before
    kept = {n: p.detach().clone() for n, p in pipe.high_noise.named_parameters()}
    kept_low = {n: p.detach().clone() for n, p in pipe.low_noise.named_parameters()}
    weights_by_hand(pipe, [(lora, s) for (lora, _), s in zip(drawn, (0.7, -0.4, 1.3), strict=True)], stack)
    for t, plain_velocity in plain.items():
        wanted = velocities(pipe, t)
        torch.testing.assert_close(found[t], wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(merged[t], wanted, rtol=1e-5, atol=1e-5)
        assert (wanted - plain_velocity).abs().max() > 1e-3
    for expert, state in ((pipe.high_noise, kept), (pipe.low_noise, kept_low)):
        for name, parameter in expert.named_parameters():
            parameter.data = state[name]
    assert fingerprint(pipe) == before


@pytest.mark.slow
def test_fifty_rounds_leave_every_bit_in_its_place(pipe: MovaPipeline, stack: LoraStack, tmp_path: Path) -> None:
    before, rng = fingerprint(pipe), random.Random(7)
    plain = velocities(pipe, 950.0)
    files = [native(tmp_path, seed, part)[1] for seed, part in ((4, "high"), (5, "low"), (6, "audio"))]
    lora = makers.draw(SHAPES, 7)
    lora.deltas = {
        "blocks.0.norm3.weight": torch.randn(64),
        "blocks.1.self_attn.q.bias": torch.randn(64),
        "blocks.1.modulation": torch.randn(1, 6, 64),
    }
    makers.lightx2v(lora, tmp_path / "high_noise.safetensors")
    files.append(tmp_path / "high_noise.safetensors")
    changed = set()
    for _ in range(50):
        for path in rng.sample(files, rng.randint(1, len(files))):
            stack.attach(stack.fit(read_lora(path)), Strengths(*(rng.uniform(-2, 2) for _ in range(3))))
        for applied in rng.sample(stack.applied, rng.randint(0, len(stack.applied))):
            stack.set_strengths(applied.name, Strengths(*(rng.choice((0.0, 0.5, 1.0)) for _ in range(3))))
        if rng.random() < 0.3:
            stack.merge()
            stack.unmerge()
        changed.add(bool((velocities(pipe, 950.0) != plain).any()))
        for applied in rng.sample(stack.applied, len(stack.applied)):
            stack.detach(applied.name)
        assert fingerprint(pipe) == before
        assert torch.equal(velocities(pipe, 950.0), plain)
    assert True in changed


def test_strength_zero_is_no_change_and_parts_are_apart(pipe: MovaPipeline, stack: LoraStack, tmp_path: Path) -> None:
    _, path = native(tmp_path, 8, "low")
    plain = {t: velocities(pipe, t) for t in (950.0, 300.0)}
    applied = stack.attach(stack.fit(read_lora(path)))
    assert torch.equal(velocities(pipe, 950.0), plain[950.0])  # the other expert does not know of it
    assert not torch.equal(velocities(pipe, 300.0), plain[300.0])
    stack.set_strengths(applied.name, Strengths(low=0.0))
    assert torch.equal(velocities(pipe, 300.0), plain[300.0])
    stack.detach_all()


def test_the_order_of_the_past_does_not_change_a_bit(pipe: MovaPipeline, stack: LoraStack, tmp_path: Path) -> None:
    fits = [stack.fit(read_lora(native(tmp_path, seed)[1])) for seed in (11, 12, 13)]
    wanted = [(f, Strengths(0.5, 0.5, 0.5)) for f in fits]
    stack.arrange(wanted)
    straight = velocities(pipe, 950.0)
    for f in reversed(fits):
        stack.arrange([(f, Strengths())])
    stack.arrange([wanted[2], wanted[0]])
    loaded = {a.name for a in stack.applied}
    stack.arrange(wanted)
    assert loaded < {a.name for a in stack.applied}  # two were not loaded again
    assert torch.equal(velocities(pipe, 950.0), straight)
    stack.detach_all()


def test_a_lora_that_fails_leaves_the_model_as_it_was(pipe: MovaPipeline, stack: LoraStack, tmp_path: Path) -> None:
    lora, good = native(tmp_path, 14)
    stack.arrange([(stack.fit(read_lora(good)), Strengths())])
    before = velocities(pipe, 950.0)
    name = next(iter(lora.pairs))
    lora.pairs[name][1][0, 0] = float("inf")
    makers.mova(lora, tmp_path / "bad.safetensors")
    bad = stack.fit(read_lora(tmp_path / "bad.safetensors"))
    with pytest.raises(LoraError, match="NaN or infinite"):
        stack.arrange([(bad, Strengths()), (stack.fit(read_lora(good)), Strengths(0.1))])
    with pytest.raises(LoraError, match="nearest that is valid"):
        stack.arrange([(stack.fit(read_lora(good)), Strengths(high=99.0))])
    assert torch.equal(velocities(pipe, 950.0), before)
    stack.detach_all()


def test_one_that_does_nothing_says_so(pipe: MovaPipeline, stack: LoraStack, tmp_path: Path) -> None:
    base = "video_dit.blocks.0.self_attn.q"
    zeros = {f"{base}.lora_A.weight": torch.ones(2, 64), f"{base}.lora_B.weight": torch.zeros(64, 2)}
    save_file(zeros, tmp_path / "zero.safetensors")
    applied = stack.attach(stack.fit(read_lora(tmp_path / "zero.safetensors")))
    assert not applied.has_effect
    assert any("no effect" in w for w in applied.warnings)
    stack.detach_all()


def test_use_by_hash_after_renaming(pipe: MovaPipeline, tmp_path: Path) -> None:
    before = fingerprint(pipe)
    library = Library(tmp_path / "library")
    down, up = torch.randn(3, 64), torch.randn(64, 3)
    write(tmp_path / "cat.safetensors", [Factors("high", "blocks.0.self_attn.q", down, up, 3.0)],
          {"modelspec.trigger_phrase": "zxq cat"})  # fmt: skip
    entry = library.add(tmp_path / "cat.safetensors")
    choice = Choice(entry.sha256, entry.name, Strengths(0.5, 0.5, 0.5))
    assert Choice.from_dict(choice.to_dict()) == choice
    entry.path.rename(entry.path.with_name("renamed.safetensors"))
    plain = velocities(pipe, 950.0)
    assert use(pipe, [choice], library)[0].has_effect
    changed = velocities(pipe, 950.0)
    assert (changed - plain).abs().max() > 1e-3
    assert triggers([choice], library) == ("zxq cat",)
    gone = Choice("0" * 64, "lost one")
    assert missing([choice, gone], library) == [gone]
    with pytest.raises(LoraError, match="lost one"):
        use(pipe, [gone], library)
    assert torch.equal(velocities(pipe, 950.0), changed)
    assert use(pipe, [], library) == ()
    assert fingerprint(pipe) == before

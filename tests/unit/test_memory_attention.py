"""Attention by card: what is chosen, and that a kernel which does not compute attention is never used."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine import MovaPipeline
from engine.attention import product_attention
from engine.errors import RequestError
from engine.memory import backends
from engine.memory.backends import KERNELS, choose_attention, fault, installed, preferred, settled
from engine.memory.choose import layout, plan_clip
from engine.memory.machine import Machine
from engine.memory.sizes import Work
from tests.memory_parts import TINY, plan, run, same

CPU = torch.device("cpu")
ALL = frozenset(KERNELS)
PLAIN = frozenset(n for n, (_, module, _) in KERNELS.items() if not module)


def machine(kind="cuda", capability=(8, 9)):
    return Machine(kind, "card", 2**34, 2**34, 2**36, 2**36, 2**34, capability)


@pytest.mark.parametrize(
    ("kind", "capability", "there", "dtype", "first"),
    [
        ("cuda", (9, 0), ALL, "bfloat16", "flash-attn-3"),
        ("cuda", (9, 0), PLAIN, "bfloat16", "cudnn"),
        ("cuda", (8, 9), ALL, "bfloat16", "flash-attn"),
        ("cuda", (8, 6), PLAIN, "bfloat16", "flash"),
        ("cuda", (12, 0), ALL, "bfloat16", "native"),
        ("cuda", (7, 5), ALL, "float32", "native"),
        ("cuda", (9, 0), ALL, "float32", "native"),
        ("rocm", (9, 4), ALL, "bfloat16", "native"),
        ("mps", (0, 0), ALL, "float32", "native"),
        ("cpu", (0, 0), ALL, "float32", "native"),
    ],
)
def test_the_choice_by_card(kind, capability, there, dtype, first):
    names = preferred(machine(kind, capability), there, dtype)
    assert names[0] == first
    assert names[-1] == "native"
    assert not set(names) & set(backends.INEXACT)  # 8 bits are never chosen by themselves
    assert set(names) <= there


def test_what_works_on_a_processor_is_found_to_work():
    assert fault("native", CPU, torch.float32, (32, 128)) == ""
    assert fault("math", CPU, torch.float32, (24,)) == ""
    assert fault("cudnn", CPU, torch.float32)  # there is no card
    for name in KERNELS.keys() - installed():
        assert "not installed" in fault(name, CPU, torch.float32)


@pytest.mark.parametrize("how", ["scale", "nan", "zeros", "raises"])
def test_a_kernel_with_wrong_results_is_left_out(monkeypatch, caplog, how):
    def broken(q, k, v):
        good = product_attention(q, k, v)
        if how == "raises":
            raise RuntimeError("no kernel image is available")
        return {"scale": good * 1.01, "nan": good / 0.0 * 0.0, "zeros": good * 0}[how]

    fault.cache_clear()
    monkeypatch.setattr(backends, "attention", broken)
    assert fault("math", CPU, torch.float32, (16,)) != ""
    assert settled("math", CPU, torch.float32, (16,)) == "native"
    assert "left out" in caplog.text
    with pytest.raises(RequestError, match="cannot be used here"):
        choose_attention(machine("cpu", (0, 0)), "float32", "math")
    monkeypatch.undo()
    fault.cache_clear()
    assert settled("math", CPU, torch.float32, (16,)) == "math"


def test_the_plan_says_it_and_the_run_uses_it(monkeypatch):
    work = Work(96, 64, 9)
    automatic, asked = plan_clip(TINY, work, "cpu"), plan_clip(TINY, work, "cpu", attention="math")
    assert (automatic.attention, asked.attention) == ("native", "math")
    assert "attention by plain products" in asked.why
    assert layout(asked) != layout(automatic)
    with pytest.raises(RequestError, match="'fast' is not one of auto, native"):
        plan_clip(TINY, work, "cpu", attention="fast")

    from diffusers.models import attention_dispatch

    used, real = set(), attention_dispatch.dispatch_attention_fn
    seen = lambda *a, **k: (used.add(attention_dispatch._AttentionBackendRegistry.get_active_backend()[0].value),  # noqa: E731
                            real(*a, **k))[1]  # fmt: skip
    monkeypatch.setattr("engine.attention.dispatch_attention_fn", seen)
    exact = run(MovaPipeline.from_pretrained(TINY))
    assert used == {"native"}
    used.clear()
    for settled_plan in (asked, replace(plan(), attention="math")):
        got = run(MovaPipeline.from_pretrained(TINY, plan=settled_plan))
        assert used == {"_native_math"}
        error = max(float((a - b).abs().max()) for a, b in zip(got, exact, strict=True))
        print(f"plain products against torch's choice: {error:.1e}")
        assert error <= 1e-4
    pipe = MovaPipeline.from_pretrained(TINY, plan=replace(plan(), attention="cudnn"))  # there is no card
    used.clear()
    assert same(run(pipe), exact)
    assert used == {"native"}


def test_the_doctor_says_it():
    from engine.doctor import check_plan

    found = check_plan()
    assert found.summary == "no model to plan for" or "attention by" in found.summary

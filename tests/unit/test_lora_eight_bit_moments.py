"""AdamW with 8-bit moments: a stand-in of bitsandbytes' interface, and the real one where it is installed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from engine.errors import RequestError
from engine.training import checkpoint
from engine.training.loop import Optimization
from engine.training.lora.choose import plan_training
from engine.training.lora.memory import factor_bytes
from engine.training.lora.optimizer import choose_optimizer, make_eight_bit
from engine.training.lora.run import train_lora
from engine.training.lora.settings import LoraSettings
from engine.training.lora.table import load_for
from tests.unit.test_lora_training import _own_cache, home, order  # noqa: F401  (fixtures)

CPU = torch.device("cpu")
MORE = {"steps": 6, "sample_every": 0, "optimizer": "adamw8bit"}


class Coarse(torch.optim.Optimizer):
    """AdamW whose moments are bytes with one scale a tensor: the interface of bitsandbytes' AdamW8bit."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):  # type: ignore[no-untyped-def]
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def load_state_dict(self, state_dict):  # type: ignore[no-untyped-def]
        kinds = {
            (i, k): v.dtype for i, s in state_dict["state"].items() for k, v in s.items() if isinstance(v, torch.Tensor)
        }
        super().load_state_dict(state_dict)  # casts states to the parameters' precision
        for i, p in enumerate(p for g in self.param_groups for p in g["params"]):
            for k, v in self.state.get(p, {}).items():
                if isinstance(v, torch.Tensor):
                    self.state[p][k] = v.to(kinds[i, k])

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[no-untyped-def]
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                s = self.state[p]
                if not s:
                    s["step"] = 0
                    for n in ("1", "2"):
                        s[f"state{n}"], s[f"absmax{n}"] = torch.zeros_like(p, dtype=torch.uint8), torch.zeros(1)
                s["step"] += 1
                moments = []
                for n, beta, new in (("1", group["betas"][0], p.grad), ("2", group["betas"][1], p.grad.square())):
                    low = 128.0 if n == "1" else 0.0
                    value = (s[f"state{n}"].float() - low) / 127.0 * s[f"absmax{n}"] if s["step"] > 1 else 0.0 * p
                    value = beta * value + (1 - beta) * new
                    s[f"absmax{n}"] = value.abs().max().view(1).clamp_min(1e-20)
                    s[f"state{n}"] = (value / s[f"absmax{n}"] * 127.0 + low).round().clamp(0, 255).to(torch.uint8)
                    moments.append(value / (1 - beta ** s["step"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.addcdiv_(moments[0], moments[1].sqrt() + 1e-3, value=-group["lr"])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    package, optim = ModuleType("bitsandbytes"), ModuleType("bitsandbytes.optim")
    optim.AdamW8bit = Coarse  # type: ignore[attr-defined]
    package.optim = optim  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)


def held(path: Path) -> tuple[int, int]:
    """Bytes of the optimizer's moments, and how many numbers they are for."""
    states = checkpoint.read(path)["optimizer"]["state"].values()
    flat = [{**s, **s.get("__bnb_optimizer_quant_state__", {})} for s in states]  # where the real one puts them
    moments = [s[k] for s in flat for k in s if k in ("state1", "state2", "exp_avg", "exp_avg_sq")]
    return sum(m.numel() * m.element_size() for m in moments), sum(m.numel() for m in moments) // 2


def test_moments_take_a_quarter_and_a_resumed_run_is_the_same(home: Path, stand_in: None) -> None:  # noqa: F811
    whole, cut = order(home, "bytes-whole", **MORE), order(home, "bytes-cut", **MORE)
    assert train_lora(whole) is not None
    assert train_lora(cut, until=2) is None
    assert train_lora(cut) is not None
    ours, theirs = (checkpoint.read(o.folder / "checkpoint.pt") for o in (cut, whole))
    for part in ("model", "average"):
        assert all(torch.equal(v, ours[part][n]) for n, v in theirs[part].items())
    size, numbers = held(whole.folder / "checkpoint.pt")
    assert size == 2 * numbers > 0
    assert '"optimizer": "adamw8bit"' in (whole.folder / "run.json").read_text(encoding="utf-8")


def test_the_real_one_learns_in_bytes_and_comes_back(home: Path) -> None:  # noqa: F811
    pytest.importorskip("bitsandbytes")
    more = MORE | {"rank": 64}  # tensors under 4,096 numbers stay in float32
    whole, cut = order(home, "real-whole", **more), order(home, "real-cut", **more)
    assert train_lora(whole) is not None
    assert train_lora(cut, until=2) is None
    assert train_lora(cut) is not None
    ours, theirs = (checkpoint.read(o.folder / "checkpoint.pt") for o in (cut, whole))
    assert all(torch.equal(v, ours["model"][n]) for n, v in theirs["model"].items())
    size, numbers = held(whole.folder / "checkpoint.pt")
    print(f"bitsandbytes: {size} bytes of moments for {numbers} numbers")
    assert size < 8 * numbers


def test_what_is_chosen_and_said(monkeypatch: pytest.MonkeyPatch, stand_in: None) -> None:
    card = torch.device("cuda")
    assert choose_optimizer("auto", CPU) == "adamw"
    assert choose_optimizer("auto", card) == choose_optimizer("adamw8bit", CPU) == "adamw8bit"
    assert choose_optimizer("adamw", card) == "adamw"
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed
    assert choose_optimizer("auto", card) == "adamw"
    with pytest.raises(RequestError, match="pip install bitsandbytes, or take --optimizer adamw"):
        choose_optimizer("adamw8bit", card)
    with pytest.raises(RequestError, match="auto, adamw, adamw8bit"):
        LoraSettings(optimizer="sgd")


def test_groups_and_rates_are_torch_s(stand_in: None) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    made = make_eight_bit([{"params": [weight], "scale": 2.0}], Optimization(10, 1e-3))
    (group,) = made.param_groups
    assert (group["lr"], group["scale"], group["betas"], group["weight_decay"]) == (1e-3, 2.0, (0.9, 0.98), 0.001)


def test_less_memory_is_foretold(home: Path, stand_in: None) -> None:  # noqa: F811
    full, less = (load_for(193, LoraSettings(optimizer=name)) for name in ("adamw", "adamw8bit"))
    assert factor_bytes(full)[0] - factor_bytes(less)[0] == pytest.approx(5.96 * full.factors, rel=1e-6)
    ways = [plan_training(replace(order(home, "x"), settings=LoraSettings(optimizer=n)), CPU) for n in
            ("adamw", "adamw8bit")]  # fmt: skip
    assert [w.optimizer for w in ways if w] == ["adamw", "adamw8bit"]
    assert ways[0].base.vram > ways[1].base.vram  # type: ignore[union-attr]

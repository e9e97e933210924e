"""The loop that all stages share: steps, learning rate, average of weights, checkpoints, signals, logs.

A stage gives a ``Task``: a module whose forward is the loss, and a batch for each step. The batch is a pure function
of (seed, step, rank), so a run that is interrupted anywhere and resumed takes the same steps to the same bits on one
device. accelerate is the frame: the same command runs on one CPU, one GPU or many.
"""

from __future__ import annotations

import ctypes
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from engine.device import choose_device, multiplies_bfloat16
from engine.training import checkpoint
from engine.training.log import JsonLines

log = logging.getLogger(__name__)

Figures = dict[str, Any]
BREAK = [getattr(signal, name) for name in ("SIGBREAK",) if hasattr(signal, name)]  # what other processes can send
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # options of mallopt, from malloc.h
EMA_WARMUP = 10.0  # steps; early averages forget faster, (1 + step) / (EMA_WARMUP + step)


@dataclass(frozen=True)
class Optimization:
    """How a stage learns.

    Attributes:
        steps: the whole run.
        rate: the highest learning rate, reached after ``warmup`` steps and left on a half cosine.
        again: pairs (step, rate) in order: from that step on, another half cosine from that rate.
        final: of ``rate``, at the end of a cosine.
        ema: how much of the averaged weights stays at each step.
    """

    steps: int
    rate: float
    warmup: int = 100
    final: float = 0.05
    again: tuple[tuple[int, float], ...] = ()
    decay: float = 0.001
    clip: float = 1.0
    ema: float = 0.998
    betas: tuple[float, float] = (0.9, 0.98)

    def rate_at(self, step: int, fresh: int = 0) -> float:
        """Learning rate of step 0, 1, ...: a straight climb, then a half cosine down to ``final``.

        ``fresh`` is the step where the optimizer knew nothing: from there too, the rate climbs for ``warmup`` steps.
        """
        climbed = min(1.0, (step - fresh + 1) / max(1, self.warmup))
        return climbed * self._turned(step)

    def _turned(self, step: int) -> float:
        if step < self.warmup:
            return self.rate
        begins = [(self.warmup, self.rate), *self.again, (self.steps, 0.0)]
        turn = max(i for i, (begin, _) in enumerate(begins[:-1]) if step >= begin)
        return self._cosine(step, begins[turn][1], begins[turn][0], begins[turn + 1][0])

    def _cosine(self, step: int, top: float, begin: int, end: int) -> float:
        share = min(1.0, (step - begin) / max(1, end - begin))
        low = self.final * self.rate
        return low + (top - low) * 0.5 * (1.0 + math.cos(math.pi * share))

    def ema_at(self, step: int) -> float:
        """How much of the average stays at step 0, 1, ..."""
        return min(self.ema, (1.0 + step) / (EMA_WARMUP + step))


@dataclass(frozen=True)
class Rhythm:
    """How often things happen, in steps."""

    log: int = 25
    evaluate: int = 500
    save: int = 250


class Task(Protocol):
    """What a stage trains: ``module(**batch(step))`` is (loss, figures)."""

    name: str
    module: nn.Module

    def batch(self, step: int, rank: int, world: int) -> dict[str, Any]: ...

    def before_step(self, step: int, average: Average) -> None:
        """Called before every step, for what changes in the course of a run."""

    def evaluate(self, module: nn.Module, step: int) -> Figures: ...


class Average:
    """Exponential moving average of a module's parameters, float32."""

    def __init__(self, module: nn.Module) -> None:
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, keep: float) -> None:
        """average = keep * average + (1 - keep) * parameter."""
        pairs = [(self.values[name], p) for name, p in module.named_parameters()]
        torch._foreach_lerp_([a for a, _ in pairs], [p.detach() for _, p in pairs], 1.0 - keep)

    @torch.no_grad()
    def freeze(self, module: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
        """Gives some of the module's parameters their averages, to stay so: they get no gradient any more."""
        names = {id(p): name for name, p in module.named_parameters()}
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.copy_(self.values[names[id(parameter)]])
                parameter.requires_grad_(False)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Within the block the module has the averaged weights."""
        with torch.no_grad():
            kept = {name: p.detach().clone() for name, p in module.named_parameters()}
            for name, p in module.named_parameters():
                p.copy_(self.values[name])
            try:
                yield
            finally:
                for name, p in module.named_parameters():
                    p.copy_(kept[name])


class Stop:
    """Becomes true on SIGTERM, SIGINT or Windows' Ctrl-Break, so that a run ends on a step's edge with a checkpoint."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, *BREAK):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        log.warning("signal %d: stopping after this step", number)
        self.asked = True


def make_accelerator(device: str = "auto") -> Accelerator:
    """On whatever device accelerate finds, or on the CPU when asked for; bf16 autocast where that is fast."""
    half = multiplies_bfloat16(torch.device("cpu") if device == "cpu" else choose_device())
    return Accelerator(mixed_precision="bf16" if half else "no", cpu=device == "cpu")


def train(
    task: Task,
    how: Optimization,
    folder: Path,
    rhythm: Rhythm | None = None,
    accelerator: Accelerator | None = None,
    until: int | None = None,
    groups: Callable[[nn.Module], list[dict[str, Any]]] | None = None,
    prepare: Callable[[nn.Module], None] | None = None,
    split: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None,
    evaluate_together: bool = False,
    make_optimizer: Callable[[list[dict[str, Any]], Optimization], torch.optim.Optimizer] | None = None,
) -> dict[str, Tensor]:
    """Trains to ``how.steps``, from the checkpoint in ``folder`` if there is one.

    Args:
        folder: gets ``checkpoint.pt`` and ``log.jsonl``.
        until: stop at this step instead, with a checkpoint (a run in parts).
        groups: optimizer groups of the module; a group's ``scale`` multiplies its learning rate.
        prepare: called with the module before the optimizer is made.
        evaluate_together: every process evaluates, since a network is shared out among them; the first one writes.
        make_optimizer: of groups; None is `adamw`.
        split: cuts a batch into some that are computed one after the other; their losses and figures add up to its own.

    Returns:
        The averaged parameters, on the CPU.

    Raises:
        KeyboardInterrupt: a signal asked to stop; a checkpoint was written.
    """
    rhythm = rhythm or Rhythm()
    accelerator = accelerator or make_accelerator()
    rank, world, first = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    path = folder / "checkpoint.pt"
    module = task.module.to(accelerator.device)
    if prepare is not None:
        prepare(module)
    grouped = groups(module) if groups else [{"params": list(module.parameters())}]
    optimizer = (make_optimizer or adamw)(grouped, how)
    scales = [float(g.get("scale", 1.0)) for g in optimizer.param_groups]
    average, step, fresh = Average(module), 0, 0
    if path.is_file():
        step, fresh = _load(checkpoint.read(path), module, optimizer, average)
        log.info("%s: goes on from step %d of %d", task.name, step, how.steps)
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    lines = JsonLines(folder / "log.jsonl")
    end = min(how.steps, how.steps if until is None else until)
    meter = Meter()

    def save() -> None:
        accelerator.wait_for_everyone()
        if first:
            checkpoint.write_atomically(path, _state(step, module, optimizer, average, fresh))
        accelerator.wait_for_everyone()

    def evaluate() -> None:
        if first or evaluate_together:
            # compiled for training's shapes; here every batch is of another size
            with average.applied(module), accelerator.autocast(), torch.compiler.set_stance("force_eager"):
                module.eval()
                found = task.evaluate(module, step)
                if first:
                    lines.write(step=step, held_out=found)
                module.train()
        accelerator.wait_for_everyone()
        meter.reset()

    with Stop() as stop:
        module.train()
        while step < end and not _asked(stop, accelerator):
            task.before_step(step, average)
            batch = {
                k: v.to(accelerator.device) if isinstance(v, Tensor) else v
                for k, v in task.batch(step, rank, world).items()
            }
            for group, scale in zip(optimizer.param_groups, scales, strict=True):
                group["lr"] = how.rate_at(step, fresh) * scale
            optimizer.zero_grad(set_to_none=True)
            loss, figures = _learn(wrapped, [batch] if split is None else split(batch), accelerator)
            norm = accelerator.clip_grad_norm_(module.parameters(), how.clip)
            if bool(torch.isfinite(norm)):
                optimizer.step()
                average.update(module, how.ema_at(step))
            else:
                log.warning("%s: step %d skipped, its gradient is not finite", task.name, step)
            step += 1
            meter.add({"loss": loss, "norm": norm, **figures})
            if first and step % rhythm.log == 0:
                lines.write(step=step, rate=how.rate_at(step - 1, fresh), **meter.means())
                meter.reset()
            if step % rhythm.evaluate == 0 or step == how.steps:
                evaluate()
            if step % rhythm.save == 0 and step < end:
                save()
        save()
    if stop.asked:
        raise KeyboardInterrupt(f"{task.name} stopped at step {step}")
    return {name: value.cpu() for name, value in average.values.items()}


def adamw(groups: list[dict[str, Any]], how: Optimization) -> torch.optim.Optimizer:
    """torch's own, in one kernel where there is one."""
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=how.rate, betas=how.betas, weight_decay=how.decay, fused=fused)


def _asked(stop: Stop, accelerator: Accelerator) -> bool:
    """Whether any process was asked to stop: all of them stop at the same step, or none could go on."""
    if accelerator.num_processes == 1:
        return stop.asked
    told = torch.tensor(float(stop.asked), device=accelerator.device)
    asked = bool(accelerator.reduce(told, "sum"))
    stop.asked = stop.asked or asked
    return asked


class Meter:
    """Figures of the steps since the last line of the log."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._began, self._steps = time.monotonic(), 0
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, figures: Figures) -> None:
        """The figures of one more step; what is NaN does not count."""
        self._steps += 1
        for name, figure in figures.items():
            value = float(figure)
            if not math.isnan(value):
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value, count + 1)

    def means(self) -> Figures:
        """Mean of every figure, and seconds a step."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        return {"step_seconds": (time.monotonic() - self._began) / self._steps, **means}


def _learn(wrapped: nn.Module, batches: list[dict[str, Any]], accelerator: Accelerator) -> tuple[Tensor, Figures]:
    """Adds up the gradients of some batches, which processes exchange once; returns the sums of losses and figures."""
    losses: list[Tensor] = []
    sums: Figures = {}
    for i, batch in enumerate(batches, 1):
        with accelerator.no_sync(wrapped) if i < len(batches) else nullcontext():
            loss, figures = wrapped(**batch)
            accelerator.backward(loss)
        losses.append(loss.detach())
        sums = {name: value + sums[name] if name in sums else value for name, value in figures.items()}
    return (losses[0] if len(losses) == 1 else torch.stack(losses).sum()), sums


def _state(step: int, module: nn.Module, optimizer: Any, average: Average, fresh: int) -> dict[str, Any]:
    return {
        "step": step,
        "model": dict(module.state_dict()),
        "optimizer": optimizer.state_dict(),
        "average": average.values,
        "random": checkpoint.random_states(),
        "fresh": fresh,
    }


def _load(
    state: dict[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer, average: Average
) -> tuple[int, int]:
    """Its step, and the step where its optimizer began; of a model that was taken over, the optimizer is None."""
    module.load_state_dict(state["model"])
    if state["optimizer"] is not None:
        optimizer.load_state_dict(state["optimizer"])
    with torch.no_grad():
        for name, value in state["average"].items():
            average.values[name].copy_(value)
    checkpoint.restore_random_states(state["random"])
    return int(state["step"]), int(state.get("fresh", 0))


def generator_at(*key: int) -> torch.Generator:
    """A CPU generator that is a function of the numbers of ``key`` (seed, step, rank, purpose) alone."""
    value = 0
    for part in key:  # splitmix64 of the running value, so that neighbouring steps share nothing
        value = (value + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return torch.Generator("cpu").manual_seed(value >> 1)


def keep_memory() -> bool:
    """Asks glibc to keep freed memory for the next step instead of giving it back to the system.

    A training step on a CPU allocates and frees the same gigabytes again and again; by default every large block is
    mapped anew and its pages are cleared by the kernel, which can cost half of all time.

    Returns:
        Whether this C library understood (glibc only; elsewhere nothing changes).
    """
    return _mallopt((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, 2**26))


def give_memory_back() -> bool:
    """Asks glibc to give every large block back to the system as soon as it is freed: where memory is short.

    By default glibc learns to keep blocks of up to 32 MB in its heap, where they leave holes: a training that held
    1.16 GB of tensors at its peak took 1.57 GB.

    Returns:
        As `keep_memory`.
    """
    return _mallopt((MMAP_MAX, 2**20), (MMAP_THRESHOLD, 2**17), (TRIM_THRESHOLD, 2**17), (TOP_PAD, 2**17))


def _mallopt(*options: tuple[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in options)

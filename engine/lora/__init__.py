"""LoRA files: read from any maker, applied to a loaded model, kept in a library, trained.

    header.py    a safetensors header, checked before anything is believed
    keys.py      what a tensor's name says: module, tower, role
    formats.py   any file to one canonical form, with a report of every key
    fit.py       does it fit this model: tower, shapes, what is applied, what is not and why
    values.py    the tensors themselves, read piece by piece
    about.py     name, trigger words, licence and other facts from metadata
    library.py   the folder of LoRAs, found by hash
    choice.py    what a user chose: LoRAs, strengths; verdicts, trigger words, what is missing
    convert.py   .pt files and foreign namings to files of our own form
    apply.py     on a loaded model: attach, strengths, detach, merge
    job.py       the LoRAs of a job on a loaded pipeline
    cli.py       python launch.py lora

The page uses the names below, none of which loads torch: `Library().entries()`, `.add(file)`, `.edit(hash, ...)`,
`.remove(hash)`; `judge(entry, model_folder)` for the badge; `Choice` in settings; `missing` and `triggers`. The worker
calls `use(pipe, choices)` before each job; that one loads torch when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.lora.choice import ASK, FITS, NO, PARTLY, Choice, Strengths, Verdict, judge, missing, triggers
from engine.lora.fit import TOWERS, KeyReport
from engine.lora.library import Entry, Library, default_folder, describe

if TYPE_CHECKING:
    from engine.lora.apply import Applied, LoraStack
    from engine.lora.job import stack_of, use

__all__ = [
    "ASK", "FITS", "NO", "PARTLY", "TOWERS", "Applied", "Choice", "Entry", "KeyReport", "Library", "LoraStack",
    "Strengths", "Verdict", "default_folder", "describe", "judge", "missing", "stack_of", "triggers", "use",
]  # fmt: skip

_TORCH = {"Applied": "apply", "LoraStack": "apply", "stack_of": "job", "use": "job"}


def __getattr__(name: str) -> Any:
    """The names that need torch, loaded when first asked for."""
    if name in _TORCH:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The LoRAs of a job on a loaded pipeline: one call before each job, and nothing is loaded twice."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from engine.lora.apply import Applied, LoraStack
from engine.lora.choice import Choice, place
from engine.lora.library import Library
from engine.pipeline import MovaPipeline

_stacks: WeakKeyDictionary[MovaPipeline, LoraStack] = WeakKeyDictionary()


def stack_of(pipe: MovaPipeline) -> LoraStack:
    """The pipeline's stack of LoRAs, made at the first call. The networks must be in place by then."""
    if pipe not in _stacks:
        _stacks[pipe] = LoraStack(pipe.high_noise, pipe.low_noise)
    return _stacks[pipe]


def use(pipe: MovaPipeline, choices: Sequence[Choice], library: Library | None = None) -> tuple[Applied, ...]:
    """Makes `choices` what is on the model: kept ones change strength only, others come and go.

    An empty list takes all off, and the weights are bit for bit what they were.

    Args:
        library: None is the user's own.

    Returns:
        What is on the model now, with effects and warnings.

    Raises:
        LoraError: one is missing, damaged or made for another model. The model is then as it was.
    """
    if not choices and pipe not in _stacks:
        return ()
    stack = stack_of(pipe)
    wanted = place(choices, library or Library(), stack.shapes) if choices else []
    return stack.arrange(wanted)

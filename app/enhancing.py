"""The prompt enhancer in a job: automatic mode writes the prompt once, when the job begins.

What it was asked and what it did stays in `JobSpec.enhancer`; the idea is kept in `JobSpec.idea`. The package
`prompt_enhancer` is imported when it is first needed: most jobs do without.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.spec import JobSpec
from engine.errors import Cancelled, RequestError

if TYPE_CHECKING:
    from prompt_enhancer import EnhanceRequest

log = logging.getLogger(__name__)

AUTOMATIC = "automatic"
DONE = "written_by"
LOOK = "look"  # false: the picture is only measured, though a vision model is there
LONGEST = 16_000  # characters of what may be kept about the enhancer in one job
ASKED = {"language": str, "style": str, "length": int, "model": str}


def is_wanted(spec: JobSpec) -> bool:
    """Whether the enhancer has yet to write this spec's prompt."""
    return spec.enhancer is not None and spec.enhancer.get("mode") == AUTOMATIC and DONE not in spec.enhancer


def check(spec: JobSpec, guest: bool) -> JobSpec:
    """The spec as it may be queued; guests cannot name a model of their own, which could be a path.

    Raises:
        RequestError: the enhancer could not do what is asked.
    """
    if spec.enhancer is None:
        return spec
    if guest and spec.enhancer.get("model"):
        spec = replace(spec, enhancer={name: value for name, value in spec.enhancer.items() if name != "model"})
        assert spec.enhancer is not None
    if len(json.dumps(spec.enhancer)) > LONGEST:
        raise RequestError(f"what the enhancer is told is too long; {LONGEST} characters fit")
    if is_wanted(spec):
        from prompt_enhancer.request import IdeaError, checked

        try:
            checked(_request(spec, None, ()))
        except IdeaError as error:
            raise RequestError(str(error)) from None
    return spec


def enhanced(spec: JobSpec, image: Path | None, triggers: tuple[str, ...], stopped: Callable[[], bool]) -> JobSpec:
    """The spec with a prompt by the enhancer, its idea and how it came about.

    A model that is not there any more does not fail the job: the rules write, and the reason is kept.

    Args:
        image: the first picture. triggers: words of the LoRAs, which the prompt will contain. stopped: asked often.

    Raises:
        RequestError: the idea cannot become a prompt. Cancelled: it was stopped.
    """
    from prompt_enhancer import EnhancerCancelled, EnhancerError, ModelError, enhance, release

    request, why = _request(spec, image, triggers), ""
    try:
        try:
            result = enhance(request, cancelled=stopped)
        except ModelError as error:
            log.warning("the enhancer's model cannot be used: %s", error)
            why = str(error)
            result = enhance(replace(request, model="rules"), cancelled=stopped)
    except EnhancerCancelled:
        raise Cancelled("stopped") from None
    except EnhancerError as error:
        raise RequestError(str(error)) from None
    finally:
        release()  # the clip needs the memory more
    notes: dict[str, Any] = {DONE: result.written_by, "added": list(result.added), "refused": list(result.refused)}
    if result.why_rules or why:
        notes["why_rules"] = why or result.why_rules
    return replace(spec, prompt=result.text, idea=request.idea, enhancer={**(spec.enhancer or {}), **notes})


def _request(spec: JobSpec, image: Path | None, triggers: tuple[str, ...]) -> EnhanceRequest:
    """What the enhancer is asked; fields of another type than theirs are as if not given."""
    from prompt_enhancer import EnhanceRequest
    from prompt_enhancer.request import OFF

    said = spec.enhancer or {}
    given = {name: said[name] for name, kind in ASKED.items() if isinstance(said.get(name), kind) and said[name] != ""}
    return EnhanceRequest(
        idea=spec.idea or spec.prompt,
        image=image,
        trigger_words=triggers,
        vision=OFF if said.get(LOOK) is False else None,
        seed=(spec.seed or 0) % 2**31,
        **given,
    )

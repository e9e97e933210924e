"""What a door that is shut too tight would break: the page's own events, sent as Gradio's client in the browser does.

`press_generate` fills the Create form as it comes, presses the button, and looks into the queue.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.security.attacked import Target


def press_generate(at: Target, headers: Mapping[str, str], **fields: Any) -> dict[str, Any]:
    """Presses Generate; returns what the page is told: {"submitted": [ids], ...} or {"error": text}.

    Args:
        headers: of the visitor. fields: values of components by their element ids; the others are as a page opens.

    Raises:
        AssertionError: the page cannot be read, or its event does not pass.
    """
    page = at.ask("page", "GET", "/config", headers)
    assert page.status == 200, f"the page's description -> {page.status}"
    config = json.loads(page.body)
    components = {one["id"]: one["props"] for one in config["components"]}
    button = next(number for number, props in components.items() if props.get("elem_id") == "generate")
    event = next(one for one in config["dependencies"] if [button, "click"] in [list(t) for t in one["targets"]])
    names = [components[number].get("elem_id") for number in event["inputs"]]
    assert set(fields) <= set(names), f"the form has no {sorted(set(fields) - set(names))}"
    values = [components[number].get("value") for number in event["inputs"]]
    data = [fields.get(name, value) for name, value in zip(names, values, strict=True)]
    body = {
        "data": data,
        "fn_index": event["id"],
        "session_hash": secrets.token_hex(5),
        "event_data": None,
        "trigger_id": button,
    }
    kind = {"content-type": "application/json"}
    answer = at.ask("page", "POST", "/gradio_api/run/predict", {**headers, **kind}, json.dumps(body).encode())
    assert answer.status == 200, f"Generate -> {answer.status} {answer.body[:200]!r}"
    told = json.loads(answer.body)["data"][0]
    assert isinstance(told, dict), f"Generate says {told!r}"
    return told


def page_works(at: Target) -> None:
    """The owner and a guest can make a clip from the page; a guest's mistakes show no folder of this machine."""
    for name, headers, owner in (
        ("the owner", at.owner, None),
        ("a guest", at.guests[1], at.visitors[1].owner),
    ):
        prompt = f"a bell for {name}"
        try:
            told = press_generate(at, headers, prompt=prompt, seconds=1.0)
            (job,) = told["submitted"]
        except (AssertionError, StopIteration, KeyError, ValueError) as error:
            at.toll.fault(f"page: {name} cannot press Generate: {error!r}")
            continue
        queued = at.core.queue.get(job, owner)
        if (queued.state, queued.spec.prompt) != ("queued", prompt):
            at.toll.fault(f"page: {name}'s job is {queued.state} with the prompt {queued.spec.prompt!r}")
        at.core.queue.cancel(job, None)
    unknown = {"chosen": [{"sha256": "0" * 64, "name": "nobody's"}]}
    told = press_generate(at, at.guests[1], prompt="x", loras=unknown)
    if "nobody's" not in told.get("error", ""):
        at.toll.fault(f"page: a LoRA that is not there -> {told}")
    if str(at.core.loras().folder) in json.dumps(told):
        at.toll.fault(f"page: a guest reads where the LoRAs lie: {told}")

"""Trainings: another's clips, captions, samples and runs; folders that lead out; values that are no values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.settings import Settings
from app.training import RECORD
from app.training_form import Place, TrainingForm
from tests.app_parts import MODEL
from tests.security.attacked import HOST, SECRET, Answer, Target, raw
from tests.security.upload_attacks import multipart
from tests.unit.test_lora_training import clip

DEEDS = ("", "look", "plan", "caption", "begin", "pause", "go_on", "finish", "remove", "use", "nonsense")
HUGE = 10**400
DEFECT = b"something went wrong inside the studio"


def trainings(at: Target) -> None:
    """Plants a training of the owner's; then a guest and a stranger reach for it, and the owner asks for nonsense."""
    planted = _planted(at)
    for who, headers in (("a guest", at.guests[1]), ("a stranger", {})):
        _others(at, planted, who, headers)
    _wrong_values(at, planted)
    _brought_elsewhere(at)


class _Planted:
    """Attributes: clips: a folder of one good clip; clip, run, sample: ids and names that the owner's page knows."""

    def __init__(self, clips: Path, clip_id: str, run: str, sample: str) -> None:
        self.clips, self.clip, self.run, self.sample = clips, clip_id, run, sample

    def asked(self, deed: str) -> dict[str, Any]:
        """What the owner's page would send."""
        form = {"data": str(self.clips), "name": "new", "size": "96x96", "seconds": 0.3}
        return {"do": deed, "id": self.run, "clip": self.clip, "text": "changed", "form": form}


def _planted(at: Target) -> _Planted:
    clips = at.core.paths.root.parent / "clips"
    clips.mkdir()
    clip(clips / "a.mp4", 9, 1, size=96)
    (clips / "a.txt").write_text(SECRET, encoding="utf-8")
    form = TrainingForm(data=str(clips), name=f"mine {SECRET}", size="96x96", seconds=0.3)
    (shown,) = at.core.trainings.clips.look(str(clips), form.format(MODEL)).clips
    place = Place(MODEL, at.core.trainings.place("mine"), at.core.loras().folder, Settings())
    run = at.core.trainings.begin(form, place)
    at.core.trainings.pause(run)
    sample = at.core.trainings.place(run) / "samples" / "step-00010-1.mp4"
    sample.parent.mkdir()
    sample.write_bytes(SECRET.encode())
    (sample.parent.parent / "secret.txt").write_text(SECRET, encoding="utf-8")
    return _Planted(clips, shown.id, run, sample.name)


def _room(at: Target) -> int:
    """The component through which the Train tab asks."""
    config = json.loads(raw(at.port, "GET", "/config", {"host": HOST, **at.owner}, b"").body)
    return next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "train")


def _body(component: int, data: Any) -> bytes:
    return json.dumps({"session_hash": "s", "component_id": component, "fn_name": "train", "data": data}).encode()


def _others(at: Target, planted: _Planted, who: str, headers: Mapping[str, str]) -> None:
    """Everything that can be done with a training, by one whose training it is not; `ask` looks for the secret."""
    before, component, kind = _state(at, planted), _room(at), {"content-type": "application/json"}
    for deed in DEEDS:
        path, body = "/gradio_api/component_server", _body(component, planted.asked(deed))
        answer = at.ask("trainings", "POST", path, {**headers, **kind}, body)
        told = json.loads(answer.body) if answer.status == 200 else {"error": ""}
        if "error" not in told and not (deed == "" and told == {"active": False}):
            at.toll.fault(f"trainings: {who} could {deed or 'look at all'}: {answer.body[:80]!r}")
    clips, samples = "/studio/training/clips/", f"/studio/training/{planted.run}/"
    for path in (clips + planted.clip, clips + "0" * 32, samples + planted.sample, samples + "secret.txt"):
        _refused(at, who, path, at.ask("trainings", "GET", path, headers))
    body, form = multipart("file", "x.mp4", b"x")
    for folder in ("", quote(str(planted.clips)), quote(str(at.core.paths.root / "training-clips"))):
        path = f"/studio/upload/clip?folder={folder}"
        _refused(at, who, path, at.ask("trainings", "POST", path, {**headers, "content-type": form}, body))
    if _state(at, planted) != before:
        at.toll.fault(f"trainings: {who} changed what is the owner's")


def _refused(at: Target, who: str, path: str, answer: Answer) -> None:
    if answer.status not in (303, 401, 403, 404):
        at.toll.fault(f"trainings: {who} at {path} -> {answer.status}")


def _state(at: Target, planted: _Planted) -> str:
    """Every file of trainings and clips, with what is in it."""
    folders = (planted.clips, at.core.paths.root / "training", at.core.paths.root / "training-clips")
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return repr([(str(path), path.read_bytes()) for path in files])


def _values() -> Iterator[dict[str, Any]]:
    """Fields of the form with values that are none."""
    texts = (
        "\x00",
        "a\x00b",
        "\ud800",
        "~nobody-of-this-name/x",
        "-" * 3000,
        "a" * 5000,
        "--work=/tmp/x",
        "\n\n",
        "../..",
    )
    for text in (*texts, "/proc/self/environ", "/dev/zero", "\\\\host\\share", "file:///etc", None, 7, [], {}, HUGE):
        for name in ("data", "name", "trigger", "keep", "looks", "size", "learn", "modules", "clips"):
            yield {name: text}
    for number in (
        HUGE,
        -HUGE,
        1e308,
        -1,
        0,
        2**63,
        float("inf"),
        float("nan"),
        "9" * 5000,
        "1e999",
        True,
        None,
        [],
        "",
    ):
        for name in ("steps", "rank", "batch", "rate", "seed", "seconds"):
            yield {name: number}
    yield from ({"size": size} for size in ("0x0", "9999x9999", "17x96", "96x96x96", "96x-96", "96\u00d796", "1e9x96"))


def _wrong_values(at: Target, planted: _Planted) -> None:
    """The owner's own page, with nonsense: each is refused in a sentence or taken, and no folder lies elsewhere."""
    component, good = _room(at), planted.asked("begin")
    asked = [("begin", {"form": good["form"] | changed}) for changed in _values()]
    asked += [("begin", {"form": junk}) for junk in (None, [], "x", 1, HUGE)]
    asked += [
        ("begin", {"step_seconds": pace}) for pace in (HUGE, 1e-320, -1, 0, float("nan"), float("inf"), "x", True)
    ]
    asked += [("look", {"form": good["form"] | changed}) for changed in _values() if "data" in changed]
    asked += [("caption", {"clip": name}) for name in ("", "..", "a" * 5000, "\x00", HUGE, None, [])]
    asked += [("caption", {"text": text}) for text in ("\ud800 speaks", "\x00", "a" * 100_000, HUGE, None)]
    asked += [(deed, {"id": name}) for deed in DEEDS[5:10] for name in ("", "..", ".", "../..", "\x00", HUGE, None, [])]
    for deed, changes in asked:
        body = _body(component, planted.asked(deed) | changes)
        answer = _owners(at, "/gradio_api/component_server", "application/json", body)
        told = _changed(changes["form"], good["form"]) if "form" in changes else changes
        where = f"trainings: {deed} with {repr(told)[:80]}"
        if answer.status != 200 or DEFECT in answer.body:
            at.toll.fault(f"{where} -> {answer.status} {answer.body[:120]!r}")
        _undone(at, planted, where)


def _changed(form: Any, good: dict[str, Any]) -> Any:
    """What of a form is not as in a good one, to be told."""
    return {name: form[name] for name in form if form[name] != good.get(name)} if isinstance(form, dict) else form


def _owners(at: Target, path: str, kind: str, body: bytes) -> Answer:
    """A request of the owner's, who may read every path; judged for server errors alone."""
    answer = raw(at.port, "POST", path, {"host": HOST, **at.owner, "content-type": kind}, body)
    at.toll.tried["trainings"] += 1
    at.toll.statuses[answer.status] += 1
    if answer.status >= 500 or answer.status < 100:
        at.toll.fault(f"trainings: {path[:120]!r} -> {answer.status} {answer.body[:120]!r}")
    return answer


def _undone(at: Target, planted: _Planted, where: str) -> None:
    """Takes a training away that was begun; its folder and its command must be such that it could have run."""
    root = at.core.paths.root / "training"
    for one in at.core.trainings.list():
        if one.id == planted.run:
            continue
        if one.folder.parent != root or one.folder.resolve().parent != root.resolve():
            at.toll.fault(f"{where}: the training lies in {one.folder}")
        words = json.loads((one.folder / RECORD).read_text(encoding="utf-8"))["words"]
        if any("\x00" in word or word.encode(errors="replace").decode() != word for word in words):
            at.toll.fault(f"{where}: no process can be started with {repr(words)[:120]}")
        at.core.trainings.pause(one.id)
        at.core.trainings.remove(one.id)


def _brought_elsewhere(at: Target) -> None:
    """Files that the owner's browser is made to bring, with names and folders that lead out."""
    root = at.core.paths.root
    outside = sorted(str(path) for path in root.parent.rglob("*") if "training-clips" not in path.parts)
    names = (
        "../../x.mp4",
        "..\\..\\x.txt",
        "settings.json",
        "x.html",
        ".txt",
        "a" * 300 + ".mp4",
        "é" * 120 + ".txt",
        "..",
    )
    brought = root / "training-clips"
    folders = (
        "",
        f"{brought}/..",
        f"{brought}/.",
        f"{brought}/../results",
        "..",
        "/",
        str(root),
        "\x00",
        "a" * 5000,
    )
    for name in names:
        for folder in (*folders, f"{brought}/\x00", f"{brought}/{'a' * 400}"):
            body, kind = multipart("file", name, b"words")
            path = f"/studio/upload/clip?folder={quote(folder)}"
            answer = _owners(at, path, kind, body)
            if answer.status == 200 and Path(json.loads(answer.body)["folder"]).resolve().parent != brought.resolve():
                at.toll.fault(f"trainings: {name!r} went to {answer.body!r}")
    if outside != sorted(str(path) for path in root.parent.rglob("*") if "training-clips" not in path.parts):
        at.toll.fault("trainings: what was brought in lies elsewhere")

"""The Train tab: clips and their captions, what a training would take, and the trainings themselves as they run.

Drawn by the page's own script (assets/studio/train.js); the processes are `app.training`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response

from app.core import Core
from app.guard import Visitor, visitor_of
from app.receiving import received
from app.tabs.parts import Answer, answered, part
from app.training import Shown
from app.training_form import Place, TrainingForm, plan
from app.words import say
from engine.errors import RequestError
from engine.folders import find_model
from engine.lora.library import file_hash

CURVE = 160  # points of a drawn curve
LONGEST_STEP = 1e6  # seconds
SAMPLES = 12  # clips shown of one training
NOT_KEPT = {"cache-control": "no-store"}


def build(core: Core, words: gr.I18n) -> tuple[gr.Column, gr.Markdown]:
    """Lays out the tab: what the owner sees, and what a guest sees instead."""
    with gr.Column(elem_classes="ownersonly") as inside:
        part("train", server_functions=[answered(TrainingRoom(core).answer, "train")])
    return inside, gr.Markdown(words("owner_only"), visible=False)


class TrainingRoom:
    """What the page's script asks for."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._hashes: dict[Path, str] = {}  # of finished LoRAs

    def answer(self, data: dict[str, Any], visitor: Visitor, language: str) -> Answer:
        """Does what is asked, and tells how all trainings stand.

        Args:
            data: may have "do": "look" (at `form`'s folder), "plan" (`form`), "begin" (`form`, "step_seconds"),
                "caption" ("clip", "text"), or "pause", "go_on", "finish", "remove", "use" with the "id" of a training.

        Raises:
            NotAllowed: a guest. MovaError: it cannot be done.
        """
        if visitor.guest and not data.get("do"):
            return {"active": self._core.trainings.busy != ""}
        visitor.require_owner()
        done = self._do(str(data.get("do") or ""), data, language)
        return done if "alone" in done else self._view(language) | done

    def _do(self, what: str, data: dict[str, Any], language: str) -> Answer:
        trainings, run_id = self._core.trainings, str(data.get("id") or "")
        match what:
            case "":
                return {}
            case "look":
                return {"alone": True, "folder": self._look(data)}
            case "plan":
                return {"alone": True, "plan": self._plan(TrainingForm.read(data.get("form")), language)}
            case "caption":
                self._core.trainings.clips.caption(str(data.get("clip") or ""), str(data.get("text") or ""))
                return {"alone": True, "folder": self._look(data)}
            case "begin":
                form = TrainingForm.read(data.get("form"))
                at, pace = self._place(form), _pace(data.get("step_seconds"))
                if self._core.trainings.clips.look(form.data, form.format(at.model)).pieces == 0:
                    raise RequestError("there is no clip to learn from; look at the list of clips")
                return {"begun": trainings.begin(form, at, pace)}
            case "pause":
                trainings.pause(run_id)
            case "go_on":
                trainings.go_on(run_id)
            case "finish":
                trainings.finish(run_id)
            case "remove":
                trainings.remove(run_id)
                return {"say": say(language, "train_removed")}
            case "use":
                return {"lora": self._lora(run_id)}
            case _:
                raise RequestError(f"the studio does not know {what!r}; reload the page")
        return {}

    # ---- before it begins

    def _place(self, form: TrainingForm) -> Place:
        core = self._core
        model = find_model(core.model_name()).absolute()
        return Place(model, core.trainings.place(form.folder_name), core.loras().folder, core.settings.current)

    def _look(self, data: dict[str, Any]) -> Answer:
        form = TrainingForm.read(data.get("form"))
        if not form.data.strip():
            raise RequestError("name a folder of clips, or bring some in")
        made = form.format(self._place(form).model)
        found = self._core.trainings.clips.look(form.data, made)
        return {
            "path": str(found.folder),
            "clips": [
                {
                    "id": c.id,
                    "name": c.name,
                    "caption": c.caption,
                    "pieces": c.pieces,
                    "sound": c.sound,
                    "why": c.why,
                    "url": f"/studio/training/clips/{c.id}",
                }
                for c in found.clips
            ],
            "pieces": found.pieces,
            "notes": list(found.notes),
            "seconds": made.seconds,
        }

    def _plan(self, form: TrainingForm, language: str) -> Answer:
        at = self._place(form)
        made = plan(form, at)
        measured = self._core.trainings.measured(form, at.model)
        step = measured or made["step_seconds"]
        return {
            "why": made["why"],
            "fits": made["fits"],
            "step_seconds": step,
            "seconds": None if step is None else step * form.steps,
            "measured": measured is not None,
        }

    # ---- while it runs, and after

    def _view(self, language: str) -> Answer:
        shown = self._core.trainings.list()
        job = self._core.supervisor.status().job
        model = self._core.profile()
        return {
            "active": self._core.trainings.busy != "",
            "runs": [_run(one, language, job is not None) for one in shown],
            "model": {
                "name": model.title,
                "sizes": [f"{w}x{h}" for w, h in model.sizes],
                "seconds": round(model.frames / model.fps, 2),
            },
        }

    def _lora(self, run_id: str) -> Answer:
        """The finished LoRA as the Create form chooses it; put into the library again where it was taken out."""
        run = next((one for one in self._core.trainings.list() if one.id == run_id), None)
        file = run.progress.file if run else None
        if run is None or file is None or run.state != "done":
            raise RequestError("this training is not done yet")
        if file not in self._hashes:
            self._hashes[file] = file_hash(file)
        library = self._core.loras()
        known = {entry.sha256: entry for entry in library.entries()}
        found = known.get(self._hashes[file])
        entry = found or library.add(file, preview=run.progress.samples[-1] if run.progress.samples else None)
        return {"sha256": entry.sha256, "name": entry.name, "trigger": run.form.trigger}


def _pace(seconds: Any) -> float | None:
    """What a step is thought to take, as the page was told; None where that is no time."""
    return float(seconds) if isinstance(seconds, int | float) and 0 < seconds < LONGEST_STEP else None


def _run(one: Shown, language: str, job_runs: bool) -> Answer:
    p = one.progress
    steps = p.steps or one.form.steps
    return {
        "id": one.id,
        "name": one.form.name,
        "trigger": one.form.trigger,
        "state": "paused" if one.state == "interrupted" else one.state,  # the same can be done about either
        "text": _stage_words(one, language, job_runs),
        "problem": one.problem or _interruption(one, language),
        "share": min(1.0, p.step / steps),
        "step": p.step,
        "steps": steps,
        "left": (steps - p.step) * p.step_seconds if p.step_seconds and one.state == "running" else None,
        "learned": p.saved or p.step > 0,
        "picture": _curve(one, "video"),
        "sound": _curve(one, "audio"),
        "samples": [
            {"url": f"/studio/training/{one.id}/{path.name}", "step": int(path.name.split("-")[1])}
            for path in p.samples[-SAMPLES:]
        ],
        "clips": one.form.clips,
    }


def _stage_words(one: Shown, language: str, job_runs: bool) -> str:
    """What a training is doing, in words."""
    p = one.progress
    if one.state == "running":
        if one.finishing:
            return say(language, "train_stage_finish")
        if p.stage in ("encode", "keep") and p.count:
            return say(language, f"train_stage_{p.stage}", done=p.done, count=p.count)
        if p.stage == "train":
            return say(language, "train_stage_train", step=p.step, steps=p.steps or one.form.steps)
        return say(language, f"train_stage_{p.stage if p.stage in ('load', 'finish') else 'load'}")
    if one.state == "waiting":
        return say(language, "train_waits_job" if job_runs else "train_waits")
    if one.state in ("paused", "interrupted"):
        return say(language, f"train_{one.state}_at", step=p.step, steps=p.steps or one.form.steps)
    return say(language, f"train_{one.state}")


def _interruption(one: Shown, language: str) -> str:
    """What interrupted a training, and whether it goes on by itself; "" where nothing did."""
    if not one.cuts or one.state in ("done", "failed"):
        return ""
    if one.cut_code is None:
        how = say(language, "train_cut_unknown")
    elif one.cut_code < 0:
        how = say(language, "train_cut_signal", code=-one.cut_code)
    else:
        how = say(language, "train_cut_exit", code=one.cut_code)
    return say(
        language, "train_cut_waits" if one.state == "interrupted" else "train_cut_goes_on", how=how, count=one.cuts
    )


def _curve(one: Shown, name: str) -> list[tuple[int, float]]:
    """Losses as at most `CURVE` points, each the mean of its steps."""
    points = [(line["step"], float(line[name])) for line in one.progress.curves if line.get(name)]
    size = -(-len(points) // CURVE) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def add_training_routes(app: FastAPI, core: Core) -> None:
    """Clips that were shown, samples of trainings, and videos that are brought in; for the owner alone."""

    @app.get("/studio/training/clips/{clip_id}", include_in_schema=False)
    def clip(request: Request, clip_id: str) -> Response:
        visitor_of(request).require_owner()
        return FileResponse(core.trainings.clips.video(clip_id), headers=NOT_KEPT)

    @app.get("/studio/training/{run_id}/{name}", include_in_schema=False)
    def sample(request: Request, run_id: str, name: str) -> Response:
        visitor_of(request).require_owner()
        return FileResponse(core.trainings.sample(run_id, name), media_type="video/mp4", headers=NOT_KEPT)

    @app.post("/studio/upload/clip", include_in_schema=False)
    async def bring(request: Request, folder: str = "") -> dict[str, str]:
        from anyio import to_thread

        visitor_of(request).require_owner()
        async with received(request, core.paths.work) as (path, name):
            return {"folder": str(await to_thread.run_sync(core.trainings.clips.bring, path, name, folder))}

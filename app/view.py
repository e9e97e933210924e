"""What the page shows of jobs, clips and the studio, as plain JSON. Only what this visitor may see."""

from __future__ import annotations

import time
from typing import Any

from app.core import Core
from app.guard import Visitor
from app.jobs import Job
from app.library import Clip
from app.sessions import Sharing
from app.words import say

SHOWN_WAITING = 30  # 10,000 waiting jobs need not be drawn
SHOWN_CLIPS = 24
SHOWN_FAILED = 5
FRESH_SECONDS = 60.0  # a clip younger than this has just been made, not brought back from the trash


def clip_view(clip: Clip) -> dict[str, Any]:
    """One finished clip."""
    media = f"/media/clips/{clip.id}"
    return {
        "id": clip.id,
        "prompt": clip.spec.idea or clip.spec.prompt,
        "written": clip.spec.prompt if clip.spec.idea else "",
        "url": f"{media}/video",
        "thumb": f"{media}/thumb",
        "width": clip.facts.width,
        "height": clip.facts.height,
        "seconds": clip.seconds,
        "fps": clip.facts.fps,
        "steps": clip.spec.steps,
        "seed": str(clip.spec.seed),  # JavaScript's numbers lose digits above 2**53
        "favourite": clip.favourite,
        "fresh": time.time() - clip.created < FRESH_SECONDS,
    }


def job_view(core: Core, job: Job) -> dict[str, Any]:
    """One job of the queue; the running one with its progress and the step of its latest preview."""
    spec = job.spec
    preview = core.supervisor.preview(job.id) if job.state == "running" else None
    return {
        "id": job.id,
        "state": job.state,
        "reason": job.reason,
        "prompt": spec.idea or spec.prompt,
        "image": f"/media/uploads/{spec.image}" if spec.image else None,
        "width": spec.width,
        "height": spec.height,
        "seconds": spec.seconds,
        "seed": str(spec.seed),
        "stage": job.stage,
        "step": job.step,
        "steps": job.steps,
        "share": job.progress.share if job.progress else 0.0,
        "eta": job.eta,
        "cancelling": job.cancelling,
        "position": job.position,
        "preview_step": preview.step if preview else None,
        "envelope": list(preview.envelope) if preview else [],
    }


def studio_view(core: Core, sharing: Sharing | None, visitor: Visitor, seen: Any, language: str) -> dict[str, Any]:
    """The state of the page, or only that nothing changed.

    Args:
        sharing: how the page is shared, None where it is not.
        seen: the revision that the page shows; any other value gets everything.
        language: of the texts in the banner.
    """
    worker = core.supervisor.status()
    running = core.queue.find(visitor.scope, ("running",), 1)
    preview = core.supervisor.preview(running[0].id) if running else None
    revision = f"{core.queue.revision}.{core.library.revision}.{worker.state}.{preview.step if preview else -1}"
    revision += f".{core.settings.current.model}.{core.settings.current.notify}"
    told = banner(core, sharing, visitor, language)
    revision += f".{hash(told)}"
    if seen == revision:
        return {"revision": revision, "same": True}
    profile = core.profile()
    waiting = core.queue.find(visitor.scope, ("queued", "paused"), SHOWN_WAITING)
    failed = core.queue.find(visitor.scope, ("failed",), SHOWN_FAILED)
    return {
        "revision": revision,
        "running": job_view(core, running[0]) if running else None,
        "waiting": [job_view(core, job) for job in waiting],
        "failed": [job_view(core, job) for job in failed],
        "counts": core.queue.counts(visitor.scope),
        "held": core.queue.held,
        "may_hold": not visitor.guest,
        "clips": [clip_view(clip) for clip in core.library.find(visitor.scope, limit=SHOWN_CLIPS)],
        "library": core.library.revision,
        "model": profile.title,
        "note": profile.note,
        "worker": {
            "state": worker.state,
            "device": "" if visitor.guest else worker.device,
            "memory": 0 if visitor.guest else worker.memory,
        },
        "notify": core.settings.current.notify,
        "shared": told,
    }


def clips_view(core: Core, visitor: Visitor, search: str, favourites: bool, offset: int, limit: int) -> dict[str, Any]:
    """A window of the library."""
    found = core.library.find(visitor.scope, search, favourites, limit, offset)
    return {
        "clips": [clip_view(clip) for clip in found],
        "total": core.library.count(visitor.scope, search, favourites),
        "may_open": not visitor.guest,
    }


def banner(core: Core, sharing: Sharing | None, visitor: Visitor, language: str) -> str:
    """What a shared page says of itself; "" on a page for this machine only."""
    if sharing is None:
        return ""
    if visitor.guest:
        return say(language, "shared_guest", n=core.settings.current.guest_jobs)
    if sharing.over:
        return say(language, "shared_over")
    until = time.strftime("%H:%M", time.localtime(sharing.until))
    where = " ".join(part for part in (sharing.url, sharing.address, sharing.problem) if part)
    password = say(language, "shared_password", password=sharing.password) if sharing.password else ""
    return " ".join(part for part in (say(language, "shared_owner", time=until), where, password) if part)

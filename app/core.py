"""The studio without its page: opens a data folder and puts the parts together. `app.studio` adds the page.

core = open_core(options)      # folder locked, database open or rebuilt, nothing running yet
app = make_server(core)        # app.server: FastAPI with guard, media, /v1, login; mount the page on it
core.start()                   # the worker begins
serve(core, app)               # app.server: blocks until Ctrl-C
core.close()
"""

from __future__ import annotations

import logging
import logging.handlers
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app import costs, derived, enhancing
from app.errors import NotAllowed, NotFound
from app.exports import export
from app.guard import Visitor
from app.jobs import Job, JobQueue
from app.library import Clip, Library, settings_from_file
from app.options import Options
from app.paths import FolderLock, StudioPaths, is_id
from app.presets import Preset, built_in
from app.settings import SettingsFile
from app.spec import Given, JobSpec
from app.store import Store, StoreBroken, open_store, set_aside
from app.supervisor import Supervisor
from app.training import Trainings
from app.uploads import Uploads
from engine.errors import LoraError, RequestError
from engine.folders import find_model, model_folders
from engine.lora import ASK, NO, Choice, judge
from engine.lora import Library as LoraLibrary
from engine.profile import ModelProfile, read_profile, read_rules
from engine.request import auto_size

log = logging.getLogger(__name__)

LOG_BYTES, LOG_FILES = 2 << 20, 5


@dataclass
class Core:
    """All parts of one studio, and what needs several of them."""

    options: Options
    paths: StudioPaths
    lock: FolderLock
    settings: SettingsFile
    store: Store
    queue: JobQueue
    library: Library
    uploads: Uploads
    supervisor: Supervisor
    trainings: Trainings

    # ---- models

    def models(self) -> dict[str, Path]:
        """Installed models by name; a folder given by --model or in the settings is among them under its path."""
        found = model_folders()
        for chosen in (self.options.model, self.settings.current.model):
            if chosen and chosen not in found:
                found[chosen] = find_model(chosen)
        return found

    def model_name(self, wanted: str | None = None) -> str:
        """The model that a job would use: the one it names, else --model, else the settings', else the bundled one.

        Raises:
            CheckpointError: it is not installed.
        """
        name = wanted or self.options.model or self.settings.current.model
        folder = find_model(name or None)
        return name or folder.name

    def profile(self, model: str | None = None) -> ModelProfile:
        """Sizes and defaults of a model, read without loading it."""
        return read_profile(find_model(self.model_name(model)))

    def loras(self) -> LoraLibrary:
        """The folder of LoRAs: the one in the settings, else the usual one."""
        return LoraLibrary(self.settings.current.lora_folder or None)

    def presets(self, model: str | None = None) -> tuple[Preset, ...]:
        """Draft, Standard, Best for this model, then the user's own."""
        own = self.settings.current.presets
        return built_in(self.profile(model)) + tuple(Preset(name, dict(values)) for name, values in own.items())

    # ---- jobs

    def settle(self, spec: JobSpec, visitor: Visitor) -> JobSpec:
        """A spec ready for the queue: model, size from the picture, every default, everything checked.

        Raises:
            RequestError, CheckpointError: a value or the model is not valid.
            NotFound: a picture or clip that it names is not there, or is another's.
            NotAllowed: a guest named a model that is not the studio's.
        """
        model = self.model_name(spec.model if not visitor.guest or spec.model in model_folders() else None)
        if visitor.guest and spec.model not in (None, "", model):
            raise NotAllowed("guests cannot choose a model of their own; leave it open")
        profile = read_profile(find_model(model))
        spec = enhancing.check(replace(spec, loras=self._found(spec, find_model(model))), visitor.guest)
        self.uploads.check(spec, visitor.scope)
        source = spec.extend_of or (spec.given.clip if spec.given else None)
        if source is not None:
            spec = self._like(spec, self.library.get(source, visitor.scope))
        elif spec.width is None and spec.height is None:
            size = None
            if spec.image or spec.last_image:
                picture = self.uploads.get(str(spec.image or spec.last_image))
                size = (picture.width, picture.height)
            width, height = auto_size(size, profile.sizes)
            spec = replace(spec, width=width, height=height)
        return spec.settled(profile, model, read_rules(find_model(model)))

    def _found(self, spec: JobSpec, model: Path) -> tuple[Choice, ...]:
        """The LoRAs of a spec, each with its hash and judged against the model; one that is off may be missing.

        Raises:
            RequestError: one is not in the library, cannot be used or does not fit; the message names it.
        """
        library = self.loras() if spec.loras else None
        found = []
        for choice in spec.loras:
            assert library is not None
            if not choice.on and choice.sha256:  # remembered with the clip; nothing is done with it
                found.append(choice)
                continue
            try:
                entry = library.find(choice.sha256 or choice.name)
            except LoraError as error:
                if not choice.on:  # nothing but a name, and of no use
                    continue
                raise RequestError(f"LoRA {choice.name or choice.sha256[:8]!r} cannot be found: {error}") from None
            verdict = judge(entry, model, choice.tower) if choice.on else None
            if verdict is not None and verdict.status in (ASK, NO):
                raise RequestError(f"LoRA {entry.name!r} cannot be used here: {verdict.text}")
            found.append(replace(choice, sha256=entry.sha256, name=choice.name or entry.name))
        return tuple(found)

    @staticmethod
    def _like(spec: JobSpec, clip: Clip) -> JobSpec:
        """A spec that is made from a clip has that clip's size and rate; with a kept side its length, too."""
        facts = clip.facts
        spec = replace(spec, width=facts.width, height=facts.height, fps=facts.fps)
        if spec.given is not None:
            spec = replace(spec, frames=facts.frames)
        return replace(spec, image=None, crop=None) if spec.extend_of else spec

    def submit(self, spec: JobSpec, visitor: Visitor, count: int = 1) -> list[Job]:
        """Settles and queues a spec; `count` variations over seeds. Returns the jobs.

        Raises: as `settle`, and QuotaReached.
        """
        settled = self.settle(spec, visitor)
        if count == 1:
            return [self.queue.submit(settled, visitor.owner, self.quota(visitor))]
        return self.queue.variations(settled, count, visitor.owner, self.quota(visitor))

    def quota(self, visitor: Visitor) -> int | None:
        """How many unfinished jobs this visitor may have; None is no limit."""
        return self.settings.current.guest_jobs if visitor.guest else None

    def cost(self, spec: JobSpec, visitor: Visitor) -> costs.Cost:
        """What a spec would take, from what was measured on this machine. Raises as `settle`."""
        return costs.cost(self.settle(spec, visitor), self.queue.measured())

    def spec_from_file(self, path: Path, visitor: Visitor) -> JobSpec:
        """The form's settings from an mp4 that the studio made; its pictures become uploads.

        Raises:
            MediaError: no video, or one without settings.
        """
        spec, settings = settings_from_file(path)
        spec = self.uploads.restore(spec, settings, visitor.owner, visitor.guest)
        source = spec.extend_of or (spec.given.clip if spec.given else None)
        if source is not None:
            try:
                self.library.get(source, visitor.scope)
            except NotFound:  # made from a clip that is not here: what can be restored is
                spec = replace(spec, extend_of=None, given=None)
        if spec.model is not None and spec.model not in self.models():
            spec = replace(spec, model=None)
        return spec

    def last_frame(self, clip_id: str, visitor: Visitor) -> str:
        """Makes a clip's last frame an upload; returns its id.

        Raises:
            NotFound: no such clip. MediaError: it cannot be read.
        """
        clip = self.library.get(clip_id, visitor.scope)
        with tempfile.TemporaryDirectory(prefix="mova-") as folder:
            png = Path(folder) / "last.png"
            export(self.library.path(clip), "png", png, start=clip.facts.video_seconds)
            return self.uploads.add(png, visitor.owner, f"last picture of {clip.title}", visitor.guest).id

    def again(self, clip_id: str, visitor: Visitor, *, new_seed: bool = False, keep: str | None = None) -> Job:
        """Queues a clip's settings again.

        Args:
            new_seed: with another seed.
            keep: "picture" makes the sound again for this picture, "sound" the picture for this sound; both draw
                a new seed.
        """
        clip = self.library.get(clip_id, visitor.scope)
        spec = self.uploads.restore(clip.spec, {}, visitor.owner)
        if spec != clip.spec:  # its pictures were deleted; they may have travelled with the mp4
            spec = self.spec_from_file(self.library.path(clip), visitor)
        if keep is not None:
            spec = replace(spec, given=Given(keep, clip.id), extend_of=None, seed=None)
        elif new_seed:
            spec = replace(spec, seed=None)
        return self.submit(replace(spec, group=""), visitor)[0]

    def extend(self, clip_id: str, visitor: Visitor, changes: Mapping[str, Any] | None = None) -> Job:
        """Queues a continuation of a clip from its last frame; the result is both, joined.

        Args:
            changes: fields of the spec to change, for instance the prompt of what happens next.
        """
        clip = self.library.get(clip_id, visitor.scope)
        cleared: dict[str, Any] = {"image": None, "last_image": None, "given": None, "seed": None, "group": ""}
        if "prompt" in (changes or {}):  # the enhancer's words were about the clip before
            cleared |= {"idea": "", "enhancer": None}
        spec = replace(clip.spec, **{**cleared, **(changes or {}), "extend_of": clip.id})
        return self.submit(spec, visitor)[0]

    def log_tail(self, lines: int = 400) -> str:
        """The end of the log, for the Log view; the home folder is shown as ~."""
        try:
            with open(self.paths.log, "rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - 400 * lines))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.replace(str(Path.home()), "~").splitlines()[-lines:])

    def start(self, warm: bool = True) -> None:
        """Lets the worker begin."""
        self.supervisor.start(warm)
        self.trainings.start()

    def close(self) -> None:
        """Ends the worker, closes the database, gives the folder back."""
        self.trainings.stop()
        self.supervisor.stop()
        self.store.close()
        self.lock.release()
        _stop_logging(self.paths)


def open_core(options: Options) -> Core:
    """Opens the studio's data folder.

    A damaged database is put aside and rebuilt from the results; a running job of a studio that went down goes back
    to the queue.

    Raises:
        StudioError: the folder is in use by another studio or not writable, or the database is a newer version's.
    """
    paths = StudioPaths.at(options.data_dir)
    lock = FolderLock(paths)
    lock.acquire()
    try:
        _start_logging(paths)
        settings = SettingsFile(paths.settings)
        store = _opened(paths)
        library, queue = Library(store, paths), JobQueue(store)
        added, dropped = library.refresh()
        if added or dropped:
            log.info("library: %d clips found, %d gone", added, dropped)
        library.purge()
        again = queue.recover(library.by_job())
        if again:
            log.info("%d jobs that were running go on", again)
        _sweep(paths, queue, library)
        supervisor = Supervisor(queue, library, paths, settings)
        trainings, uploads = Trainings(paths.root, queue, supervisor), Uploads(store, paths)
        return Core(options, paths, lock, settings, store, queue, library, uploads, supervisor, trainings)
    except BaseException:
        lock.release()
        raise


def _opened(paths: StudioPaths) -> Store:
    try:
        return open_store(paths.database)
    except StoreBroken as error:
        aside = set_aside(paths.database)
        log.error("%s; it is put aside as %s, and the library is rebuilt from the results", error, aside)
        return open_store(paths.database)


def _sweep(paths: StudioPaths, queue: JobQueue, library: Library) -> None:
    """Removes what killed workers left, but for latents that a job may still want."""
    for path in paths.work.iterdir():
        wanted = False
        if path.suffix == ".safetensors" and is_id(path.stem):
            try:
                wanted = queue.get(path.stem).state not in ("done", "cancelled")
            except NotFound:
                wanted = False
        if path.is_dir():  # a file was just being brought in
            shutil.rmtree(path, ignore_errors=True)
        elif not wanted:
            path.unlink(missing_ok=True)
    clips = library.ids()
    for folder in paths.previews.iterdir():
        if is_id(folder.name) and folder.name not in clips:
            derived.remove(folder)
        for path in folder.glob(".*.part"):
            path.unlink(missing_ok=True)


class _LogFile(logging.handlers.RotatingFileHandler):
    """A log that rotates; on a full disk it misses lines instead of filling the terminal with that."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _start_logging(paths: StudioPaths) -> None:
    """Everything of ours from INFO up goes to a file that rotates."""
    handler = _LogFile(paths.log, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    handler.set_name(str(paths.log))
    for name in ("app", "engine", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)


def _stop_logging(paths: StudioPaths) -> None:
    for name in ("app", "engine", "uvicorn.error"):
        logger = logging.getLogger(name)
        for handler in [h for h in logger.handlers if h.get_name() == str(paths.log)]:
            logger.removeHandler(handler)
            handler.close()

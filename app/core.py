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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import costs
from app.guard import Visitor
from app.jobs import Job, JobQueue
from app.library import Library
from app.options import Options
from app.paths import FolderLock, StudioPaths
from app.presets import Preset, built_in
from app.settings import SettingsFile
from app.spec import JobSpec
from app.store import Store
from app.supervisor import Supervisor
from app.uploads import Uploads
from engine.folders import find_model, model_folders
from engine.profile import ModelProfile, read_profile

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
        raise NotImplementedError

    def submit(self, spec: JobSpec, visitor: Visitor, count: int = 1) -> list[Job]:
        """Settles and queues a spec; `count` variations over seeds. Returns the jobs.

        Raises: as `settle`, and QuotaReached.
        """
        raise NotImplementedError

    def cost(self, spec: JobSpec, visitor: Visitor) -> costs.Cost:
        """What a spec would take, from what was measured on this machine. Raises as `settle`."""
        raise NotImplementedError

    def spec_from_file(self, path: Path, visitor: Visitor) -> JobSpec:
        """The form's settings from an mp4 that the studio made; its pictures become uploads.

        Raises:
            MediaError: no video, or one without settings.
        """
        raise NotImplementedError

    def last_frame(self, clip_id: str, visitor: Visitor) -> str:
        """Makes a clip's last frame an upload; returns its id."""
        raise NotImplementedError

    def again(self, clip_id: str, visitor: Visitor, *, new_seed: bool = False, keep: str | None = None) -> Job:
        """Queues a clip's settings again.

        Args:
            new_seed: with another seed.
            keep: "picture" makes the sound again for this picture, "sound" the picture for this sound; both draw
                a new seed.
        """
        raise NotImplementedError

    def extend(self, clip_id: str, visitor: Visitor, changes: Mapping[str, Any] | None = None) -> Job:
        """Queues a continuation of a clip from its last frame; the result is both, joined.

        Args:
            changes: fields of the spec to change, for instance the prompt of what happens next.
        """
        raise NotImplementedError

    def log_tail(self, lines: int = 400) -> str:
        """The end of the log, for the Log view; the home folder is shown as ~."""
        raise NotImplementedError

    def start(self, warm: bool = True) -> None:
        """Lets the worker begin."""
        self.supervisor.start(warm)

    def close(self) -> None:
        """Ends the worker, closes the database, gives the folder back."""
        self.supervisor.stop()
        self.store.close()
        self.lock.release()


def open_core(options: Options) -> Core:
    """Opens the studio's data folder.

    A damaged database is put aside and rebuilt from the results; a running job of a studio that went down goes back
    to the queue.

    Raises:
        StudioError: the folder is in use by another studio or not writable, or the database is a newer version's.
    """
    raise NotImplementedError

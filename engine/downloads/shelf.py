"""The models of this machine: where they are, what is known of them, how they come and go.

    FOLDER/NAME/                a model, whole and verified; with `manifest.json`, written last
    FOLDER/.incoming/NAME/      one on its way; moved to its place in one step when all of it is verified
    FOLDER/.incoming/lock       one process at a time changes the folder; the others wait
    DATA/models.json            which folder is used for new models, and models that are elsewhere

Files that two models have in common are stored once: the second model gets a hard link (a verified copy where the
drive knows no links).
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from engine.downloads.catalogue import CATALOGUE, Entry, find_entry
from engine.downloads.files import (
    INCOMING,
    absolute,
    by_size,
    check_space,
    existing,
    forget_part,
    freed,
    holding,
    remove_tree,
    same_drive,
    sweep,
    take_over,
)
from engine.downloads.hub import DownloadError, Hub, HubFile
from engine.downloads.layout import describe_folder
from engine.downloads.manifest import (
    PLAN,
    Installed,
    Listed,
    Manifest,
    Plan,
    Unfinished,
    arrived,
    is_there,
    manifest_of,
    read_manifest,
    write_manifest,
)
from engine.downloads.transfer import CONNECTIONS, Meter, Report, Transfer, blocks_of, digest
from engine.errors import CheckpointError, RequestError
from engine.folders import DAMAGED, MANIFEST, Places, data_folder, model_folders, read_places, write_places

log = logging.getLogger(__name__)


class Shelf:
    """The models of one user. All paths follow from the data folder."""

    def __init__(self, data: Path | None = None) -> None:
        self.data = data or data_folder()

    # ---- what there is

    @property
    def folder(self) -> Path:
        """Where new models go."""
        return read_places(self.data).folder

    def installed(self) -> list[Installed]:
        """All models, the bundled ones too."""
        places = read_places(self.data)
        found = []
        for name, folder in self._folders().items():
            inside = folder.parent == places.folder
            ours = inside or (name in places.elsewhere and places.elsewhere[name].ours)
            found.append(Installed(name, folder, ours, self._manifest(name, folder)))
        return found

    def _folders(self) -> dict[str, Path]:
        places = read_places(self.data)
        found = model_folders(self.data)
        inside = [p for p in places.folder.iterdir() if (p / MANIFEST).is_file()] if places.folder.is_dir() else []
        found |= {p.name: p for p in sorted(inside)}
        return found | {n: p.path for n, p in places.elsewhere.items() if (p.path / MANIFEST).is_file()}

    def find(self, name: str) -> Installed:
        """Raises `CheckpointError`, which names what there is."""
        everything = self.installed()
        for model in everything:
            if model.name.lower() == name.lower():
                return model
        raise CheckpointError(f"no model {name!r}; installed: {', '.join(m.name for m in everything) or 'none'}")

    def unfinished(self) -> list[Unfinished]:
        """Downloads that can be continued."""
        found = []
        for base in self._bases():
            for plan_path in sorted((base / INCOMING).glob(f"*/{PLAN}")):
                plan = read_manifest(plan_path)
                if plan:
                    done = sum(arrived(plan_path.parent, file.file()) for file in plan.files)
                    found.append(Unfinished(plan.name, plan_path.parent, done, plan.size))
        return found

    def _bases(self) -> list[Path]:
        """Every folder that may hold models of ours."""
        places = read_places(self.data)
        return list(
            dict.fromkeys([places.folder, *(p.path.parent for p in places.elsewhere.values() if p.ours), *places.used])
        )

    def _manifest(self, name: str, folder: Path) -> Manifest | None:
        return read_manifest(folder / MANIFEST) or read_manifest(self._adopted(name))

    def _adopted(self, name: str) -> Path:
        return self.data / "adopted" / f"{name}.json"

    # ---- getting

    def plan(self, name: str, hub: Hub, to: Path | None = None, revision: str = "") -> Plan:
        """What it would take to get a model; asks the hub for its listing unless a begun download has one.

        Raises:
            RequestError: no such model. DownloadError: the hub cannot be asked.
        """
        entry = find_entry(name)
        base = absolute(to) if to else self._usual_base(entry)
        begun = read_manifest(base / INCOMING / entry.name / PLAN)
        if begun and begun.repository == entry.repository and revision in ("", begun.commit):
            commit, files = begun.commit, tuple(listed.file() for listed in begun.files)
        else:
            commit = hub.commit(entry.repository, revision or entry.revision)
            files = tuple(file for file in hub.files(entry.repository, commit) if entry.wants(file.path))
        if not files:
            raise DownloadError(f"{entry.repository} holds none of the files that are needed")
        incoming = base / INCOMING / entry.name
        known = self._known_files()
        present = sum(f.size if f.identity in known else arrived(incoming, f) for f in files)
        return Plan(entry, commit, files, base, present, shutil.disk_usage(existing(base)).free)

    def _usual_base(self, entry: Entry) -> Path:
        """Language models lie where the enhancer looks for them, beside those that the user put there."""
        return self.data / "enhancer" if entry.kind == "enhancer" else self.folder

    def get(
        self,
        plan: Plan,
        hub: Hub,
        report: Report | None = None,
        sources: Sequence[Path] = (),
        connections: int = CONNECTIONS,
        on_wait: Callable[[], None] | None = None,
    ) -> Installed:
        """Brings a model here, whole and verified, or leaves what has arrived to be continued.

        Args:
            sources: folders that may hold some of its files under whatever names.

        Raises:
            DownloadError: a file cannot be had, no space, or what arrived is not what was promised.
            Cancelled: `hub.stop` was set.
        """
        entry, base = plan.entry, plan.folder
        target, incoming = base / entry.name, base / INCOMING / entry.name
        manifest = manifest_of(plan)
        with holding(base, on_wait, hub.stop):
            self._note_base(base)
            there = self._manifest(entry.name, target)
            whole = not (target / DAMAGED).exists() and not self.faults_at_a_glance(entry.name, target)
            if there and there.files == manifest.files and whole:
                remove_tree(incoming)
                return Installed(entry.name, target, True, there)
            incoming.mkdir(parents=True, exist_ok=True)
            write_manifest(incoming / PLAN, manifest)
            self._bring(plan, incoming, hub, report, [target, *sources], connections)  # what is good there stays
            sweep(incoming, {file.path for file in plan.files})
            done = manifest.model_copy(update={"verified": time.time()})
            write_manifest(incoming / MANIFEST, done)
            self._put_in_place(incoming, target)
            if base != self.folder:
                self._note_elsewhere(entry.name, target, ours=True)
        log.info("%s is installed in %s", entry.name, target)
        return Installed(entry.name, target, True, done)

    def _bring(
        self, plan: Plan, incoming: Path, hub: Hub, report: Report | None, sources: Sequence[Path], connections: int
    ) -> None:
        """All files of a plan into `incoming`: those that are there, then links and copies, then the network."""
        left = [file for file in plan.files if not is_there(incoming / file.path, file)]
        meter = Meter(plan.size, report, plan.size - sum(file.size for file in left))
        known = self._known_files()
        found = by_size(sources, {file.size for file in left if file.size})
        to_fetch = []
        for file in left:
            candidates = [*known.get(file.identity, ()), *found.get(file.size, ())]
            if any(take_over(path, incoming / file.path, file, hub.stop, meter) for path in candidates):
                forget_part(incoming / file.path)
            else:
                to_fetch.append(file)
        if not to_fetch:
            return
        check_space(plan.folder, sum(file.size - arrived(incoming, file) for file in to_fetch), plan.entry.name)
        Transfer(
            hub, plan.entry.repository, plan.commit, to_fetch, incoming, report, connections, plan.size, meter.done
        ).run()

    def _known_files(self) -> dict[str, list[Path]]:
        """Where files with a known hash lie, of all models and downloads on this machine."""
        known: dict[str, list[Path]] = {}
        for model in self.installed():
            for listed in model.manifest.files if model.manifest else ():
                path, file = model.folder / listed.path, listed.file()
                if is_there(path, file):
                    known.setdefault(file.identity, []).append(path)
        return known

    def _put_in_place(self, incoming: Path, target: Path) -> None:
        """The finished folder takes the place of the former one. A kill in between leaves one of them to be found."""
        (incoming / PLAN).unlink(missing_ok=True)
        former = None
        if target.exists():
            former = target.parent / INCOMING / f"former-{secrets.token_hex(4)}"
            os.rename(target, former)
        os.rename(incoming, target)
        if former:
            remove_tree(former)

    def adopt(self, name: str, folder: Path, hub: Hub | None, report: Report | None = None) -> Installed:
        """Takes a model folder that the user has into the list, verified, nothing copied.

        Args:
            name: in the catalogue, or any name where the hub is not asked.
            hub: for its listing; None trusts the folder, and checks only that every file is whole.

        Raises:
            CheckpointError: it is not a whole model folder, or a file is not the hub's; says which.
        """
        folder = absolute(folder)
        entry = find_entry(name) if hub else Entry(name, "", name, "")
        stop = threading.Event()
        if hub:
            commit = hub.commit(entry.repository, entry.revision)
            files = [file for file in hub.files(entry.repository, commit) if entry.wants(file.path)]
            manifest = Manifest(name=entry.name, repository=entry.repository, commit=commit, licence=entry.licence)
        else:
            files = [HubFile(path, size) for path, size in describe_folder(folder)]
            manifest = Manifest(name=entry.name, origin="folder")
        meter = Meter(sum(file.size for file in files), report)
        listed = []
        for file in files:
            path = folder / file.path
            if not path.is_file() or path.stat().st_size != file.size:
                raise CheckpointError(f"{folder} is not all of {entry.name}: {file.path} is missing or cut short")
            checked = file if hub else replace(file, sha256="0" * 64)
            hasher = checked.hasher()
            for block in blocks_of(path, stop):
                hasher.update(block)
                meter.add(len(block), "verifying", file.path)
            if hub and hasher.hexdigest() != file.expected:
                raise CheckpointError(f"{folder}: {file.path} is not the file that the hub lists for {entry.name}")
            sha = file.sha256 if hub else str(hasher.hexdigest())
            listed.append(Listed(path=file.path, size=file.size, sha256=sha, blob=file.blob))
        manifest = manifest.model_copy(update={"verified": time.time(), "files": tuple(listed)})
        self._adopted(entry.name).parent.mkdir(parents=True, exist_ok=True)
        write_manifest(self._adopted(entry.name), manifest)
        self._note_elsewhere(entry.name, folder, ours=False)
        return Installed(entry.name, folder, False, manifest)

    # ---- keeping

    def faults_at_a_glance(self, name: str, folder: Path) -> list[str]:
        """Files that are missing or of another size; reads no content."""
        manifest = self._manifest(name, folder)
        files = [listed.file() for listed in manifest.files] if manifest else []
        return [file.path for file in files if not is_there(folder / file.path, file)]

    def verify(self, name: str, report: Report | None = None, stop: threading.Event | None = None) -> list[str]:
        """Reads every byte of a model; returns the files that are not what they must be.

        Raises:
            CheckpointError: not installed, or nothing is known to compare it with.
        """
        model = self.find(name)
        if model.manifest is None:
            raise CheckpointError(
                f"{model.name} did not come through the model manager, so there is nothing to compare"
            )
        meter, stop = Meter(model.manifest.size, report), stop or threading.Event()
        bad = []
        for file in (listed.file() for listed in model.manifest.files):
            path = model.folder / file.path
            good = is_there(path, file) and digest(path, file, stop) == file.expected
            meter.add(file.size, "verifying", file.path)
            if not good:
                bad.append(file.path)
        if bad and model.ours:
            (model.folder / DAMAGED).touch()  # from now on nobody loads it
        elif model.ours:
            (model.folder / DAMAGED).unlink(missing_ok=True)
        return bad

    def repair(
        self, model: Installed, hub: Hub, report: Report | None = None, connections: int = CONNECTIONS
    ) -> Installed:
        """Makes a damaged model whole: files that are as they must be stay, the others are fetched again.

        Raises:
            CheckpointError: it is not from the hub, or lies in a folder of the user's own.
        """
        manifest = model.manifest
        if manifest is None or not manifest.repository or not model.ours:
            raise CheckpointError(f"{model.name} in {model.folder} is not ours to repair; put the right files there")
        entry = replace(find_entry(manifest.repository), name=model.name)
        files = tuple(listed.file() for listed in manifest.files)
        base = model.folder.parent
        plan = Plan(entry, manifest.commit, files, base, 0, shutil.disk_usage(base).free)
        (model.folder / DAMAGED).touch()
        return self.get(plan, hub, report, (), connections)

    def remove(self, name: str) -> tuple[str, int]:
        """Deletes a model or a begun download; forgets one that lies in a folder of the user's own.

        Returns:
            what was done, in words; bytes that the drive has more now.
        """
        begun = [u for u in self.unfinished() if u.name.lower() == name.lower()]
        if begun and not any(model.name.lower() == name.lower() for model in self.installed()):
            before = shutil.disk_usage(begun[0].folder).free
            for one in begun:
                with holding(one.folder.parent.parent):
                    remove_tree(one.folder)
            return f"the unfinished download of {begun[0].name}", freed(begun[0].folder, before)
        model = self.find(name)
        if not model.ours:
            if model.name not in read_places(self.data).elsewhere:
                raise RequestError(f"{model.name} is part of the studio and stays")
            self._forget(model.name)
            return f"{model.name} from the list; its folder {model.folder} stays as it is", 0
        before = shutil.disk_usage(model.folder).free
        with holding(model.folder.parent):
            doomed = model.folder.parent / INCOMING / f"former-{secrets.token_hex(4)}"
            os.rename(model.folder, doomed)  # gone in one step; deleting it takes longer
            remove_tree(doomed)
        self._forget(model.name)
        return model.name, freed(model.folder.parent, before)

    def move(self, name: str, to: Path, report: Report | None = None, stop: threading.Event | None = None) -> Installed:
        """Moves a model to another folder or drive. The old place is given up when the new one is whole."""
        model, base = self.find(name), absolute(to)
        if not model.ours:
            raise RequestError(
                f"{model.name} lies in {model.folder}, a folder of your own; move it yourself, then adopt it"
            )
        target, incoming = base / model.name, base / INCOMING / model.name
        if target == model.folder:
            return model
        if target.exists():
            raise RequestError(f"{target} exists already; choose another folder")
        with holding(base):
            self._note_base(base)
            if same_drive(model.folder, base):
                os.rename(model.folder, target)
                self._settle(model.name, target)
                return replace(model, folder=target)
            self._copy(model, incoming, report, stop or threading.Event())
            self._put_in_place(incoming, target)
        self._settle(model.name, target)
        remove_tree(model.folder)
        return replace(model, folder=target)

    def _copy(self, model: Installed, incoming: Path, report: Report | None, stop: threading.Event) -> None:
        if model.manifest is None:
            raise CheckpointError(f"{model.name} did not come through the model manager; move its folder yourself")
        files = [listed.file() for listed in model.manifest.files]
        check_space(incoming.parent, sum(f.size for f in files if not is_there(incoming / f.path, f)), model.name)
        meter, known = Meter(model.manifest.size, report), self._known_files()
        for file in files:
            near = [path for path in known.get(file.identity, ()) if same_drive(path, incoming)]  # to be linked
            sources = [*near, model.folder / file.path]
            if is_there(incoming / file.path, file):
                meter.add(file.size, "copying", file.path)
            elif not any(take_over(path, incoming / file.path, file, stop, meter) for path in sources):
                raise CheckpointError(
                    f"{file.path} is damaged; first: python launch.py models verify {model.name} --repair"
                )
        write_manifest(incoming / MANIFEST, model.manifest)

    # ---- places

    def choose_folder(self, folder: Path) -> None:
        """New models go there from now on; those that are there already stay where they are and stay known."""
        folder, places = absolute(folder), read_places(self.data)
        folder.mkdir(parents=True, exist_ok=True)
        for model in self.installed():
            if model.ours and model.folder.parent == places.folder and places.folder != folder:
                self._note_elsewhere(model.name, model.folder, ours=True)
        places = read_places(self.data)
        kept = {name: place for name, place in places.elsewhere.items() if place.path.parent != folder}
        write_places(self.data, replace(places, folder=folder, elsewhere=kept, used=(*places.used, places.folder)))

    def _settle(self, name: str, target: Path) -> None:
        if target.parent == self.folder:
            self._forget(name)
        else:
            self._note_elsewhere(name, target, ours=True)

    def _note_base(self, base: Path) -> None:
        places = read_places(self.data)
        if base != places.folder and base not in places.used:
            write_places(self.data, replace(places, used=(*places.used, base)))

    def _note_elsewhere(self, name: str, path: Path, ours: bool) -> None:
        places = read_places(self.data)
        place = Places.Place(path, ours)
        write_places(self.data, replace(places, elsewhere={**places.elsewhere, name: place}))

    def _forget(self, name: str) -> None:
        places = read_places(self.data)
        kept = {other: place for other, place in places.elsewhere.items() if other != name}
        write_places(self.data, replace(places, elsewhere=kept))
        self._adopted(name).unlink(missing_ok=True)


def catalogue_of(shelf: Shelf) -> Iterable[tuple[Entry, Installed | None, Unfinished | None]]:
    """Every model of the catalogue with what is here of it; for lists."""
    installed = {model.name: model for model in shelf.installed()}
    begun = {one.name: one for one in shelf.unfinished()}
    return [(entry, installed.get(entry.name), begun.get(entry.name)) for entry in CATALOGUE]

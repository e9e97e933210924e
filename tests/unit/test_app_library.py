"""The library: real mp4 files, their sidecars, the trash, and a database that gets lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.errors import NotFound, WrongState
from app.library import LOCAL, Clip, Library, settings_from_file
from app.order import Order
from app.paths import StudioPaths
from app.publishing import file_name, publish
from app.spec import JobSpec
from app.store import Store, StoreStuck, open_store
from app.uploads import Uploads, pack_picture, unpack_picture
from engine.errors import MediaError
from engine.media import Clip as MediaClip


@pytest.fixture
def paths(tmp_path: Path) -> StudioPaths:
    return StudioPaths.at(tmp_path / "data")


@pytest.fixture
def store(paths: StudioPaths) -> Iterator[Store]:
    store = open_store(paths.database)
    yield store
    store.close()


@pytest.fixture
def library(store: Store, paths: StudioPaths) -> Library:
    return Library(store, paths)


def made(paths: StudioPaths, job: str, prompt: str = "a bell rings", owner: str = LOCAL) -> str:
    """A real published clip of four grey frames."""
    spec = JobSpec(prompt, width=32, height=32, frames=5, fps=24.0, seed=3, steps=2, model="demo", negative_prompt="")
    frames = np.full((5, 32, 32, 3), 90, np.uint8)
    sound = np.sin(np.arange(10_000) / 20).astype(np.float32) * 0.3
    media = MediaClip(frames, sound, 24.0, 48_000, {**spec.to_dict(), "pictures": {"image": "x"}})
    order = Order(job, owner, spec, paths.root, paths.root, "cpu", "float32", keep_latents=True)
    return publish(order, media, None, lambda: None)


def ids(number: int) -> str:
    return f"{number:032x}"


def test_a_published_clip_is_listed_with_everything(library: Library, paths: StudioPaths) -> None:
    made(paths, ids(1), "A Dog barks. “Good boy”, she says")
    library.add_published(ids(1))
    clip = library.get(ids(1))
    assert clip.facts.frames == 5
    assert clip.facts.width == 32
    assert abs(clip.facts.video_seconds - clip.facts.audio_seconds) < 1 / 24
    assert clip.spec.seed == 3
    assert clip.spec.negative_prompt == ""
    assert "pictures" not in clip.settings  # they travel in the mp4 only
    assert library.path(clip).name.endswith(f"a-dog-barks-good-boy-she-says-{ids(1)[:8]}.mp4")
    folder = paths.preview(clip.id)
    with Image.open(folder / "thumb.webp") as thumb:
        assert thumb.format == "WEBP"
    peaks = json.loads((folder / "peaks.json").read_text())
    assert len(peaks["peaks"]) == 1200
    assert peaks["frames"] == 5
    assert list(paths.work.iterdir()) == []


def test_clips_of_one_second_whose_ids_begin_alike_do_not_replace_each_other(
    library: Library, paths: StudioPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.publishing.time.time", lambda: 1_790_000_000.25)
    assert ids(1)[:8] == ids(2)[:8]
    for number in (1, 2):
        made(paths, ids(number))
        library.add_published(ids(number))
    assert {clip.id for clip in library.find()} == {ids(1), ids(2)}
    assert len(list(paths.results.rglob("*.mp4"))) == len(list(paths.results.rglob("*.json"))) == 2
    assert library.refresh() == (0, 0)


def test_search_favourites_owners_and_windows(library: Library, paths: StudioPaths) -> None:
    for number, (prompt, owner) in enumerate(
        [("A red kite over the sea", LOCAL), ("钟声响起", LOCAL), ("red rain", "guest-1")], 1
    ):
        made(paths, ids(number), prompt, owner)
        library.add_published(ids(number))
    assert {c.id for c in library.find()} == {ids(1), ids(2), ids(3)}
    assert [c.id for c in library.find(search="RED kite")] == [ids(1)]
    assert [c.id for c in library.find(search="钟声")] == [ids(2)]
    assert library.find(search="100% _") == []
    assert [c.id for c in library.find("guest-1")] == [ids(3)]
    assert library.count("guest-1", search="red") == 1
    library.favourite(ids(2), None)
    assert [c.id for c in library.find(favourites=True)] == [ids(2)]
    assert len(library.find(limit=2)) == 2
    assert len(library.find(limit=2, offset=2)) == 1
    for act in (library.get, library.favourite, library.delete, library.undo_delete):
        with pytest.raises(NotFound):
            act(ids(1), "guest-1")


def test_delete_undo_and_purge(library: Library, paths: StudioPaths) -> None:
    made(paths, ids(1))
    library.add_published(ids(1))
    where = library.path(library.get(ids(1)))
    library.delete(ids(1), None)
    assert not where.exists()
    assert not where.with_suffix(".json").exists()
    assert library.find() == []
    with pytest.raises(NotFound):
        library.get(ids(1))
    library.refresh()  # the trash is not the library
    assert library.find() == []
    assert library.undo_delete(ids(1), None).id == ids(1)
    assert where.exists()
    assert where.with_suffix(".json").exists()
    with pytest.raises(WrongState):
        library.undo_delete(ids(1), None)
    library.delete(ids(1), None)
    assert library.purge(older_than_days=1) == 0
    assert library.purge(older_than_days=-1) == 1
    assert not paths.preview(ids(1)).exists()
    assert list(paths.trash.iterdir()) == []
    with pytest.raises(NotFound):
        library.undo_delete(ids(1), None)


def test_files_and_list_agree_when_the_database_cannot_be_written(
    library: Library, store: Store, paths: StudioPaths
) -> None:
    made(paths, ids(1))
    library.add_published(ids(1))
    place = library.path(library.get(ids(1)))

    def refused(deed: Callable[[], object]) -> None:
        store._connection.execute("PRAGMA query_only=1")
        try:
            with pytest.raises(StoreStuck):
                deed()
        finally:
            store._connection.execute("PRAGMA query_only=0")

    sidecar = place.with_suffix(".json").read_bytes()
    refused(lambda: library.favourite(ids(1), None))
    assert place.with_suffix(".json").read_bytes() == sidecar
    assert not library.get(ids(1)).favourite
    refused(lambda: library.delete(ids(1), None))
    assert library.path(library.get(ids(1))) == place
    assert place.is_file()
    assert place.with_suffix(".json").is_file()
    in_trash = library.path(library.delete(ids(1), None))
    refused(lambda: library.undo_delete(ids(1), None))
    assert in_trash.is_file()
    assert in_trash.with_suffix(".json").is_file()
    assert library.path(library.undo_delete(ids(1), None)) == place
    assert place.is_file()


def test_a_transaction_that_the_disk_refuses_leaves_the_store_usable(store: Store) -> None:
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count={pages}")
    for _ in range(3):
        with pytest.raises(StoreStuck, match="is full"), store.writing() as connection:
            connection.execute("INSERT INTO facts VALUES ('x', ?)", ("x" * 1_000_000,))
    store._connection.execute("PRAGMA max_page_count=100000")
    with store.writing() as connection:
        connection.execute("INSERT INTO facts VALUES ('x', 'y')")
    assert store.row("SELECT value FROM facts WHERE name = 'x'")["value"] == "y"  # type: ignore[index]


def test_a_lost_database_is_made_again_from_the_sidecars(library: Library, store: Store, paths: StudioPaths) -> None:
    made(paths, ids(1), "first")
    made(paths, ids(2), "second", "guest-1")
    for number in (1, 2):
        library.add_published(ids(number))
    library.favourite(ids(2), None)
    before = library.find()
    fresh = open_store(paths.root / "other.sqlite3")
    again = Library(fresh, paths)
    assert again.refresh() == (2, 0)
    assert again.find() == before
    assert again.by_job() == {ids(1): ids(1), ids(2): ids(2)}
    assert again.refresh() == (0, 0)
    fresh.close()


def test_refresh_follows_the_folder_and_sweeps(library: Library, paths: StudioPaths) -> None:
    made(paths, ids(1))
    made(paths, ids(2))
    library.refresh()
    clip = library.get(ids(1))
    library.path(clip).unlink()  # someone deleted the mp4 by hand: its sidecar goes too
    by_hand = library.path(library.get(ids(2))).with_name("renamed.mp4")
    os.replace(library.path(library.get(ids(2))), by_hand)
    (paths.results / ".0123456789abcdef.part").write_bytes(b"half")
    (paths.results / "notes.json").write_text('{"mine": true}')
    (paths.results / "broken.mp4").write_bytes(b"no video")
    added, dropped = library.refresh()
    assert (added, dropped) == (1, 2)
    (found,) = library.find()
    assert found.file.endswith("renamed.mp4")
    assert found.spec.prompt == "a bell rings"
    assert not list(paths.results.rglob("*.part"))
    assert (paths.results / "notes.json").exists()  # not ours
    assert sorted(p.name for p in paths.results.rglob("*.json")) == ["notes.json"]


def test_settings_come_back_from_the_mp4_alone(library: Library, paths: StudioPaths, tmp_path: Path) -> None:
    made(paths, ids(1))
    library.add_published(ids(1))
    clip = library.get(ids(1))
    elsewhere = tmp_path / "sent by mail.mp4"
    elsewhere.write_bytes(library.path(clip).read_bytes())
    spec, settings = settings_from_file(elsewhere)
    assert spec == clip.spec
    assert settings["pictures"] == {"image": "x"}
    assert LOCAL not in json.dumps(settings)  # nothing about the owner travels
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError):
        settings_from_file(tmp_path / "no.mp4")


def test_pictures_travel_without_loss(store: Store, paths: StudioPaths) -> None:
    rng = np.random.default_rng(5)
    picture = Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    back = unpack_picture(pack_picture(picture))
    assert back is not None
    assert np.array_equal(np.asarray(back), np.asarray(picture))
    assert unpack_picture("####") is None
    assert unpack_picture("aGVsbG8=") is None
    uploads = Uploads(store, paths)
    spec = JobSpec("x", image=ids(9), crop=(0.2, 0.3))
    restored = uploads.restore(spec, {"pictures": {"image": pack_picture(picture)}}, LOCAL)
    assert restored.crop is None
    assert restored.image is not None
    with Image.open(uploads.path(uploads.get(restored.image))) as kept:
        assert np.array_equal(np.asarray(kept), np.asarray(picture))
    assert uploads.restore(spec, {}, LOCAL) == replace(spec, image=None, crop=None)


def test_file_names_are_safe_and_say_something() -> None:
    moment = time.mktime((2026, 11, 21, 7, 30, 5, 0, 0, -1))
    name = file_name(JobSpec('../..\\con: "A" <b>|*? 钟声 \x00\n' + "long " * 50), ids(255), moment)
    assert name.startswith("20261121-073005-con-a-b-钟声-long")
    assert len(name.encode()) < 110
    assert not set(name) & set('/\\:*?"<>|\x00\n')
    assert file_name(JobSpec("!!!"), ids(255), moment) == "20261121-073005-00000000.mp4"


def test_titles_are_short() -> None:
    clip = Clip(ids(1), "", LOCAL, "x.mp4", JobSpec("word " * 40), {}, None, 0.0)  # type: ignore[arg-type]
    assert len(clip.title) <= 60
    assert clip.title.endswith("…")

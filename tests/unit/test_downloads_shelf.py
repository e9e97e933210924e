"""The models folder: models come whole and verified, share files, move and go; the user's own files stay unharmed."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.downloads import DownloadError, Hub, Progress, Shelf, find_entry
from engine.downloads import files as drive
from engine.errors import Cancelled, CheckpointError, RequestError
from engine.folders import find_model, read_places
from tests.hub_server import REPOSITORY, Fault, LocalHub, model_files, serving, stray, wrong_files


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(server: LocalHub) -> Iterator[Hub]:
    with Hub(server.url, first_wait=0.01, read_seconds=2.0) as client:
        yield client


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "data")


def fetch(shelf: Shelf, hub: Hub, to: Path | None = None) -> Path:
    return shelf.get(shelf.plan(REPOSITORY, hub, to), hub).folder


def test_comes_whole_and_without_what_is_not_wanted(shelf: Shelf, hub: Hub, server: LocalHub) -> None:
    told: list[Progress] = []
    plan = shelf.plan(REPOSITORY, hub)
    wanted = server.size - server.files["README.md"].size
    assert (plan.size, plan.to_fetch, server.sent) == (wanted, wanted, 0)  # known before anything is fetched
    model = shelf.get(plan, hub, told.append)
    assert wrong_files(model.folder, server) == []
    assert not (model.folder / "README.md").exists()
    assert shelf.verify(model.name) == []
    assert stray(shelf.folder) == []
    assert told[-1].done == told[-1].total == wanted == server.sent
    assert [one.done for one in told] == sorted(one.done for one in told)


def test_second_get_fetches_nothing(shelf: Shelf, hub: Hub, server: LocalHub) -> None:
    fetch(shelf, hub)
    sent = server.sent
    fetch(shelf, hub)
    assert server.sent == sent


def test_paused_and_continued_fetches_every_byte_once(shelf: Shelf, hub: Hub, server: LocalHub) -> None:
    def pause(progress: Progress) -> None:
        if progress.done > 500_000:
            hub.stop.set()

    server.fault = lambda *_: Fault("slow", wait=0.2)  # a loaded machine pauses late
    with pytest.raises(Cancelled):
        shelf.get(shelf.plan(REPOSITORY, hub), hub, pause)
    server.fault = lambda *_: None
    [begun] = shelf.unfinished()
    assert 0 < begun.done < begun.size
    assert [m for m in shelf.installed() if m.name == "model"] == []
    hub.stop.clear()
    plan = shelf.plan(REPOSITORY, hub)
    assert plan.present == begun.done
    fetch(shelf, hub)
    assert server.sent <= 1.05 * plan.size
    assert shelf.unfinished() == []


def test_files_in_common_are_stored_once(shelf: Shelf, hub: Hub, server: LocalHub, tmp_path: Path) -> None:
    first = fetch(shelf, hub)
    os.rename(first, shelf.folder / "other-model")
    sent = server.sent
    again = fetch(shelf, hub)
    assert server.sent == sent
    for path in model_files():
        if path != "README.md":
            assert (again / path).samefile(shelf.folder / "other-model" / path)


def test_files_that_one_has_are_found_by_content(shelf: Shelf, hub: Hub, server: LocalHub, tmp_path: Path) -> None:
    """Under other names, among others, one of them damaged: that one alone is fetched."""
    own = tmp_path / "from a friend"
    own.mkdir()
    large = [content for content in server.files.values() if content.size > 2**16]
    for number, content in enumerate(large):
        assert isinstance(content.source, bytes)
        (own / f"{number}.bin").write_bytes(content.source if number else content.source[:-1] + b"?")
    model = shelf.get(shelf.plan(REPOSITORY, hub), hub, sources=[own])
    assert wrong_files(model.folder, server) == []
    assert server.sent < server.size - large[1].size + 1
    assert (own / "0.bin").is_file()


def test_adopted_folder_is_verified_and_not_copied(shelf: Shelf, hub: Hub, server: LocalHub, tmp_path: Path) -> None:
    own = tmp_path / "mine"
    for path, source in model_files().items():
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(source, bytes)
        (own / path).write_bytes(source)
    model = shelf.adopt(REPOSITORY, own, hub)
    assert (model.folder, model.ours, server.sent) == (own, False, 0)
    assert shelf.verify("model") == []
    assert "stays as it is" in shelf.remove("model")[0]
    assert (own / "model_index.json").is_file()
    config = own / "video_dit" / "config.json"
    config.write_bytes(b'{"dim": 9}')
    with pytest.raises(CheckpointError, match=r"video_dit/config\.json is not the file that the hub lists"):
        shelf.adopt(REPOSITORY, own, hub)
    assert shelf.adopt("mine", own, None).name == "mine"  # without the hub every file must still be whole
    shard = own / "video_dit" / "diffusion_pytorch_model-00001-of-00002.safetensors"
    with shard.open("rb+") as file:
        file.truncate(1000)
    with pytest.raises(CheckpointError, match="cut short"):
        shelf.adopt("mine2", own, None)


def test_damage_is_found_and_only_that_is_fetched_again(shelf: Shelf, hub: Hub, server: LocalHub) -> None:
    folder = fetch(shelf, hub)
    small, large = folder / "video_dit/config.json", sorted(folder.glob("video_dit/*.safetensors"))[0]
    small.write_bytes(b'{"dim": 9}')
    with large.open("rb+") as file:
        file.seek(77_777)
        byte = file.read(1)
        file.seek(77_777)
        file.write(bytes([byte[0] ^ 1]))
    bad = shelf.verify("model")
    assert bad == [small.relative_to(folder).as_posix(), large.relative_to(folder).as_posix()]
    sent = server.sent
    shelf.repair(shelf.find("model"), hub)
    assert server.sent - sent == large.stat().st_size + small.stat().st_size
    assert shelf.verify("model") == []
    assert stray(shelf.folder) == []


def test_damaged_model_is_not_loaded_until_it_is_repaired(
    shelf: Shelf, hub: Hub, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the repair is killed half-way; it goes on later, and fetches only what is damaged."""
    folder = fetch(shelf, hub)
    monkeypatch.setattr("engine.folders.data_folder", lambda: shelf.data)
    assert find_model("model") == folder
    config = folder / "video_dit/config.json"
    config.write_bytes(b'{"dim": 9}')
    assert shelf.verify("model") == ["video_dit/config.json"]
    with pytest.raises(CheckpointError, match=r"damaged and is not repaired yet.*models verify model --repair"):
        find_model("model")
    server.fault = lambda *_: Fault("status", status=404)
    with pytest.raises(DownloadError):
        shelf.repair(shelf.find("model"), hub)
    with pytest.raises(CheckpointError, match="not repaired yet"):
        find_model("model")
    server.fault = lambda *_: None
    sent = server.sent
    fetch(shelf, hub)
    assert server.sent - sent == config.stat().st_size
    assert find_model("model") == folder
    config.unlink()
    with pytest.raises(CheckpointError, match=r"video_dit/config\.json is missing or cut short"):
        find_model("model")


def test_wrong_bytes_of_the_right_size_never_get_a_name(shelf: Shelf, hub: Hub, server: LocalHub) -> None:
    large = next(path for path, content in server.files.items() if content.size > 2**16)
    server.fault = lambda path, start, end, number: Fault("wrong", at=7) if path == large else None
    with pytest.raises(DownloadError, match="not what the hub's listing promises"):
        fetch(shelf, hub)
    assert not list(shelf.folder.rglob(Path(large).name))
    assert [m for m in shelf.installed() if m.name == "model"] == []
    server.fault = lambda *_: None
    fetch(shelf, hub)
    assert shelf.verify("model") == []


def test_no_space_is_told_before_a_byte_is_fetched(
    shelf: Shelf, hub: Hub, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "SPARE", 2**62)
    with pytest.raises(DownloadError, match="free; free some, or choose another drive"):
        fetch(shelf, hub)
    assert server.sent == 0


def test_moved_within_a_drive_and_to_another(
    shelf: Shelf, hub: Hub, server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fetch(shelf, hub)
    model = shelf.move("model", tmp_path / "second")
    assert not old.exists()
    assert wrong_files(model.folder, server) == []
    assert shelf.find("model").folder == tmp_path / "second" / "model"
    from engine.downloads import shelf as shelf_module

    monkeypatch.setattr(shelf_module, "same_drive", lambda *_: False)  # as if it were another one: copied, verified
    monkeypatch.setattr(drive, "same_drive", lambda *_: False)
    moved = shelf.move("model", tmp_path / "third")
    assert not model.folder.exists()
    assert shelf.find("model").folder == moved.folder
    assert shelf.verify("model") == []
    assert stray(tmp_path / "third") == []


def test_new_folder_for_new_models_keeps_the_old_ones_known(shelf: Shelf, hub: Hub, tmp_path: Path) -> None:
    old = fetch(shelf, hub)
    shelf.choose_folder(tmp_path / "big drive")
    assert shelf.folder == tmp_path / "big drive"
    assert shelf.find("model").folder == old
    shelf.choose_folder(old.parent)
    assert read_places(shelf.data).elsewhere == {}


def test_removing_deletes_ours_and_a_begun_download(shelf: Shelf, hub: Hub, server: LocalHub) -> None:
    folder = fetch(shelf, hub)
    shelf.remove("model")
    assert not folder.exists()
    server.fault = lambda *_: Fault("status", status=404)
    with pytest.raises(DownloadError):
        fetch(shelf, hub)
    assert len(shelf.unfinished()) == 1
    assert "unfinished" in shelf.remove("model")[0]
    assert shelf.unfinished() == []
    with pytest.raises(CheckpointError, match="no model 'model'"):
        shelf.remove("model")


def test_engine_finds_it_by_name(shelf: Shelf, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch(shelf, hub)
    monkeypatch.setattr("engine.folders.data_folder", lambda: shelf.data)
    assert find_model("model") == folder
    with pytest.raises(CheckpointError, match=r"installed: .*model"):
        find_model("nothing-like-it")


def test_two_at_once_in_one_process(shelf: Shelf, server: LocalHub) -> None:
    """The second waits, then finds everything there."""
    waited: list[str] = []

    def run() -> None:
        with Hub(server.url, first_wait=0.01) as hub:
            shelf.get(shelf.plan(REPOSITORY, hub), hub, on_wait=lambda: waited.append("x"))

    server.fault = lambda *_: Fault("slow")
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waited == ["x"]
    assert server.sent <= 1.05 * server.size
    assert shelf.verify("model") == []


@pytest.mark.parametrize("content", ["", "[]", '{"folder": 3}', "\x00", '{"folder": "x", "elsewhere": {"a": 1}}'])
def test_damaged_note_of_places_counts_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text(content)
    assert read_places(tmp_path).folder == tmp_path / "models"


def test_unknown_name_names_the_nearest() -> None:
    assert find_entry("mova-360P").name == "MOVA-360p"
    with pytest.raises(RequestError, match="did you mean 'MOVA-720p'"):
        find_entry("mova720p")


def test_model_without_manifest_can_be_used_but_not_verified(shelf: Shelf, tmp_path: Path) -> None:
    folder = shelf.folder / "copied"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "MOVA"}))
    assert shelf.find("copied").manifest is None
    with pytest.raises(CheckpointError, match="nothing to compare"):
        shelf.verify("copied")
    shutil.rmtree(folder)

"""Planted faults: each must be found, and its cure said. Real files, sockets and programs where that is possible."""

from __future__ import annotations

import builtins
import json
import os
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bootstrap import backend
from engine import doctor, health
from engine.downloads import Hub, Shelf
from engine.downloads import shelf as shelf_module
from engine.finding import Finding, without_secrets
from engine.folders import Places, write_places
from tests.hub_server import REPOSITORY, serving

TINY = Path(__file__).resolve().parents[1] / "data" / "mova-tiny"  # holds one whole model
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plants faults as on Linux")


@dataclass
class Machine:
    """A machine of its own: its user's folders are in `home`."""

    home: Path
    patch: pytest.MonkeyPatch
    open: list[socket.socket] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.home / "data" / "mova-studio"

    def program(self, name: str, body: str) -> Path:
        folder = self.home / "bin"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
        self.patch.setenv("PATH", str(folder), prepend=os.pathsep)
        return folder / name

    def model(self) -> Path:
        """A small model that came through the model manager."""
        with serving() as server, Hub(server.url, first_wait=0.01) as hub:
            shelf = Shelf(self.data)
            return shelf.get(shelf.plan(REPOSITORY, hub), hub).folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    for name, folder in (("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("MOVA_BACKEND", raising=False)
    monkeypatch.setattr(backend, "KFD", tmp_path / "none")
    monkeypatch.setattr("engine.folders.BUNDLED_MODELS", TINY)
    one = Machine(tmp_path, monkeypatch)
    yield one
    for sock in one.open:
        sock.close()


# ---- the faults


def build_for_the_processor(machine: Machine) -> None:
    machine.program("nvidia-smi", "echo 'NVIDIA GeForce RTX 4090, 580.95, 8.9, 24564 MiB'")
    installed(machine, "2.13.0+cpu")


def build_for_other_cards(machine: Machine) -> None:
    machine.program("nvidia-smi", "echo 'NVIDIA GeForce GTX 1060 6GB, 581.57, 6.1, 6144 MiB'")
    installed(machine, "2.13.0+cu130")


def old_driver(machine: Machine) -> None:
    machine.program("nvidia-smi", "echo 'NVIDIA GeForce RTX 3060, 470.82, 8.6, 12288 MiB'")


def installed(machine: Machine, version: str) -> None:
    import torch

    machine.patch.setattr(torch, "__version__", version)


def card_without_kernels(machine: Machine) -> None:
    """torch sees the card, and has no kernel for it: what a product on it says then."""
    import torch

    class Card:
        name, major, minor, total_memory = "NVIDIA GeForce GTX 1060", 6, 1, 6 * 2**30

    def broken(device: str, dtype: Any) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    machine.patch.setattr(torch.cuda, "is_available", lambda: True)
    machine.patch.setattr(torch.cuda, "device_count", lambda: 1)
    machine.patch.setattr(torch.cuda, "get_device_properties", lambda index: Card)
    machine.patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    machine.patch.setattr(doctor, "_multiply", broken)


def package_missing(machine: Machine) -> None:
    real = doctor.importlib.metadata.version

    def version(name: str) -> str:
        if name == "pydub":
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    machine.patch.setattr(doctor.importlib.metadata, "version", version)


def package_of_another_version(machine: Machine) -> None:
    real = doctor.importlib.metadata.version
    machine.patch.setattr(doctor.importlib.metadata, "version", lambda n: "0.1" if n == "numpy" else real(n))


def ffmpeg_missing(machine: Machine) -> None:
    machine.patch.setenv("IMAGEIO_FFMPEG_EXE", str(machine.home / "nothing"))


def ffmpeg_that_cannot_encode(machine: Machine) -> None:
    machine.patch.setenv("IMAGEIO_FFMPEG_EXE", str(machine.program("ffmpeg", "echo 'Unknown encoder' >&2; exit 1")))


def folder_that_cannot_be_written(machine: Machine) -> None:
    machine.data.parent.mkdir()
    machine.data.write_text("a file where a folder is needed")


def no_space(machine: Machine) -> None:
    machine.patch.setattr(doctor, "LITTLE_DISK", 2**60)


def little_memory(machine: Machine) -> None:
    machine.patch.setattr(doctor, "memory_limit", lambda: 4 * doctor.GIB)


def model_file_gone(machine: Machine) -> None:
    (machine.model() / "video_dit" / "config.json").unlink()


def model_file_cut_short(machine: Machine) -> None:
    shard = next((machine.model() / "video_dit").glob("*.safetensors"))
    os.truncate(shard, 1000)


def model_folder_copied_by_hand_and_not_whole(machine: Machine) -> None:
    folder = machine.data / "models" / "copied"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "MOVA", "video_dit": ["engine", "Towers"]}')


def model_with_one_wrong_bit(machine: Machine) -> None:
    shard = next((machine.model() / "video_dit").glob("*.safetensors"))
    raw = bytearray(shard.read_bytes())
    raw[-9] ^= 4
    shard.write_bytes(raw)


def download_begun(machine: Machine) -> None:
    with serving() as server, Hub(server.url) as hub:
        shelf = Shelf(machine.data)
        plan = shelf.plan(REPOSITORY, hub)
        incoming = plan.folder / shelf_module.INCOMING / plan.entry.name
        incoming.mkdir(parents=True)
        shelf_module.write_manifest(incoming / shelf_module.PLAN, shelf_module.manifest_of(plan))


def drive_gone(machine: Machine) -> None:
    away = machine.home / "usb" / "MOVA-360p"
    write_places(machine.data, Places(machine.data / "models", {"MOVA-360p": Places.Place(away, True)}))


def no_model(machine: Machine) -> None:
    machine.patch.setattr("engine.folders.BUNDLED_MODELS", machine.home / "none")


def language_model_missing(machine: Machine) -> None:
    folder = machine.home / "python"
    folder.mkdir()
    (folder / "llama_cpp.py").write_text("raise ModuleNotFoundError(\"No module named 'llama_cpp'\")")
    machine.patch.setenv("PYTHONPATH", str(folder))


def language_model_for_another_processor(machine: Machine) -> None:
    folder = machine.home / "python"
    folder.mkdir()
    (folder / "llama_cpp.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    machine.patch.setenv("PYTHONPATH", str(folder))


def port_taken(machine: Machine) -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    machine.open.append(sock)
    machine.patch.setattr(health, "PORT", sock.getsockname()[1])


def proxy_that_does_not_answer(machine: Machine) -> None:
    machine.patch.setenv("HTTPS_PROXY", "http://ana:geheim@127.0.0.1:9")
    machine.patch.setenv("NO_PROXY", "127.0.0.1,localhost")


def proxy_that_is_no_address(machine: Machine) -> None:
    machine.patch.setenv("HTTPS_PROXY", "http://:port")


def proxy_for_our_own_page(machine: Machine) -> None:
    machine.patch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")


def token_for_all_to_read(machine: Machine) -> None:
    machine.data.mkdir(parents=True)
    (machine.data / "hub-token").write_text("hf_abcdefgh")
    (machine.data / "hub-token").chmod(0o644)


def list_of_clips_damaged(machine: Machine) -> None:
    machine.data.mkdir(parents=True)
    path = machine.data / "studio.sqlite3"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE clips (id TEXT PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO clips VALUES (?, ?)", [(str(i), "x" * 200) for i in range(500)])
    connection.close()
    raw = bytearray(path.read_bytes())
    raw[4096:12288] = os.urandom(8192)
    path.write_bytes(raw)


def errors_in_the_log(machine: Machine) -> None:
    machine.data.mkdir(parents=True)
    lines = ["2026-01-01 INFO app started", "2026-01-01 ERROR app.worker it broke, token=hf_abcdefghij"]
    (machine.data / "studio.log").write_text("\n".join(lines))


def setup_not_finished(machine: Machine) -> None:
    env = machine.home / ".venv"
    env.mkdir()
    machine.patch.setattr(health, "ROOT", machine.home)
    machine.patch.setattr(sys, "prefix", str(env))


def addition_interrupted(machine: Machine) -> None:
    setup_not_finished(machine)
    (machine.home / ".venv" / "mova-setup.json").write_text(json.dumps({"groups": {"base": ""}, "backend": "cpu"}))
    (machine.home / ".venv" / "mova-adding").touch()


def library_that_does_not_load(machine: Machine) -> None:
    real = builtins.__import__

    def refuse(name: str, *more: Any, **named: Any) -> Any:
        if name == "imageio_ffmpeg":
            raise ImportError("DLL load failed while importing _core")
        return real(name, *more, **named)

    machine.patch.setattr(builtins, "__import__", refuse)


SETUP = "python launch.py setup"
# fault: the line of the report, its status, what the cure must hold
FAULTS: dict[Callable[[Machine], None], tuple[str, str, str]] = {
    build_for_the_processor: ("torch build", "fail", SETUP),
    build_for_other_cards: ("torch build", "fail", SETUP),
    old_driver: ("torch build", "warn", "update the NVIDIA driver to 525 or newer"),
    card_without_kernels: ("device", "fail", SETUP),
    package_missing: ("packages", "fail", SETUP),
    package_of_another_version: ("packages", "warn", SETUP),
    library_that_does_not_load: ("ffmpeg", "fail", SETUP),
    ffmpeg_missing: ("ffmpeg", "fail", SETUP),
    ffmpeg_that_cannot_encode: ("ffmpeg", "fail", SETUP),
    folder_that_cannot_be_written: ("folders", "fail", "the right to write"),
    no_space: ("disk", "warn", "free some space"),
    little_memory: ("memory", "warn", "close other programs"),
    model_file_gone: ("models", "fail", "models verify model --repair"),
    model_file_cut_short: ("models", "fail", "models verify model --repair"),
    model_folder_copied_by_hand_and_not_whole: ("models", "fail", "replace the files in"),
    model_with_one_wrong_bit: ("models, byte by byte", "fail", "models verify model --repair"),
    download_begun: ("models", "warn", "models get model"),
    drive_gone: ("models", "warn", "models where --new"),
    no_model: ("models", "warn", "models list"),
    language_model_missing: ("language model", "warn", "C++ compiler"),
    language_model_for_another_processor: ("language model", "warn", SETUP),
    port_taken: ("port", "warn", "--port NUMBER"),
    proxy_that_does_not_answer: ("proxy", "fail", "HTTPS_PROXY"),
    proxy_that_is_no_address: ("proxy", "fail", "HTTPS_PROXY"),
    proxy_for_our_own_page: ("proxy", "warn", "NO_PROXY=127.0.0.1,localhost"),
    token_for_all_to_read: ("token", "warn", "chmod 600"),
    list_of_clips_damaged: ("results", "fail", "made anew from the clips"),
    errors_in_the_log: ("errors", "warn", "studio.log"),
    setup_not_finished: ("environment", "fail", SETUP),
    addition_interrupted: ("environment", "warn", SETUP),
}


def found(name: str) -> Finding:
    everything = dict((*doctor.CHECKS, ("models, byte by byte", health.check_models_deeply)))
    [finding] = doctor.examine([(name, everything[name])])
    return finding


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_fault_is_found_and_its_cure_said(plant: Callable[[Machine], None], machine: Machine) -> None:
    name, status, cure = FAULTS[plant]
    before = found(name) if name not in ("device", "torch build") else None
    plant(machine)
    finding = found(name)
    assert finding.status == status, finding
    assert cure in finding.todo, finding
    assert before is None or before.status != status or before.summary != finding.summary
    report = doctor.as_text([finding])
    assert "geheim" not in report
    assert "abcdefgh" not in report


def test_enough_faults() -> None:
    assert len(FAULTS) >= 20


def test_the_cure_for_a_damaged_model_cures(machine: Machine) -> None:
    with serving() as server, Hub(server.url, first_wait=0.01) as hub:
        shelf = Shelf(machine.data)
        folder = shelf.get(shelf.plan(REPOSITORY, hub), hub).folder
        (folder / "video_dit" / "config.json").unlink()
        assert found("models").status == "fail"
        shelf.repair(shelf.find("model"), hub)
    assert found("models").status == "ok"


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("https://ana:s3cret@proxy:8080/x", "https://...@proxy:8080/x"),
        ("HF_TOKEN=hf_abcdefgh", "HF_TOKEN=..."),
        ("Authorization: Bearer abc.def", "Authorization: ..."),
        ('{"password": "one two", "a": 1}', '{"password": "...", "a": 1}'),
        ("see hf_abcdefghij here", "see hf_... here"),
        ("no secret here: 7860", "no secret here: 7860"),
    ],
)
def test_secrets_are_not_in_the_report(told: str, shown: str) -> None:
    assert without_secrets([told], "/home/ana") == [shown]

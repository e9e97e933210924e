"""What a new user is told of the machine and the models."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app import first_run
from app.first_run import Host, clip_models, fit, look
from app.tabs.first_run import machine_words
from bootstrap import backend
from engine.memory.machine import GIB

GB = 10**9
SMALL, LARGE = clip_models()


def host(card: int, memory: int = 32) -> Host:
    return Host(f"a card of {card} GB" if card else "", card * GIB, memory * GIB, 8)


@pytest.mark.parametrize(
    ("card", "memory", "free", "small", "large"),
    [
        (0, 32, 500, ("no_card", 0), ("no_card", 0)),
        (4, 32, 500, ("short", 1), ("small_card", 0)),
        (6, 16, 500, ("fits", 8), ("short", 1)),
        (8, 16, 500, ("fits", 8), ("short", 3)),
        (12, 32, 500, ("fits", 8), ("short", 5)),
        (24, 32, 500, ("fits", 8), ("fits", 8)),
        (24, 8, 500, ("no_memory", 0), ("no_memory", 0)),
        (24, 32, 79, ("no_disk", 8), ("no_disk", 8)),
        (24, 32, 81, ("fits", 8), ("fits", 8)),
    ],
)
def test_which_model_fits(
    card: int, memory: int, free: int, small: tuple[str, int], large: tuple[str, int]
) -> None:  # the same answers as the tables of docs/memory.md, because the same planner gives them
    told = [fit(entry, host(card, memory), free * GB) for entry in (SMALL, LARGE)]
    assert [(one.verdict, one.seconds) for one in told] == [small, large]


def test_what_has_arrived_need_not_fit_again() -> None:
    assert fit(SMALL, host(24), 10 * GB, arrived=75 * GB).verdict == "fits"
    assert fit(SMALL, host(24), 10 * GB, arrived=75 * GB).size == 3 * GB
    assert fit(SMALL, host(0), 1, installed=True).verdict == "here"


@pytest.mark.parametrize(
    ("smi", "card", "size"),
    [
        ("NVIDIA GeForce RTX 4090, 580.95, 8.9, 24564 MiB\n", "NVIDIA GeForce RTX 4090", 24564 * 2**20),
        ("NVIDIA GeForce RTX 4090, 470.10, 8.9, 24564 MiB\n", "", 0),  # a driver that is too old
        ("NVIDIA GeForce GTX 1060, 560.1, 6.1, 6144 MiB\nNVIDIA GeForce RTX 3060, 560.1, 8.6, 12288 MiB\n",
         "NVIDIA GeForce RTX 3060", 12288 * 2**20),
        ("nonsense\n", "", 0),
    ],
)  # fmt: skip
def test_look_at_nvidia_cards(monkeypatch: pytest.MonkeyPatch, smi: str, card: str, size: int) -> None:
    monkeypatch.setattr(backend, "_ask_driver", lambda: smi)
    monkeypatch.setattr(backend, "amd_targets", lambda nodes: [])
    monkeypatch.setattr(first_run.platform, "system", lambda: "Linux")
    found = look()
    assert (found.card, found.card_memory) == (card, size)
    assert found.memory > GIB
    if "470" in smi:
        assert "update the NVIDIA driver" in found.advice


def test_look_at_amd_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backend, "_ask_driver", lambda: "")
    monkeypatch.setattr(backend, "amd_targets", lambda nodes: ["gfx1100"])
    monkeypatch.setattr(first_run.platform, "system", lambda: "Linux")
    assert fit(SMALL, look(tmp_path), 500 * GB).verdict == "unknown"  # this driver does not tell
    (tmp_path / "card0" / "device").mkdir(parents=True)
    (tmp_path / "card0" / "device" / "mem_info_vram_total").write_text(f"{16 * GIB}\n")
    assert fit(SMALL, look(tmp_path), 500 * GB).verdict == "fits"


def test_words_for_machines() -> None:
    assert machine_words(host(24), 412 * GB, "en") == [
        "a card of 24 GB, 24 GB",
        "32 GB of memory, 8 cores",
        "412.0 GB free for clips",
    ]
    assert machine_words(host(0), GB, "en")[0] == "No graphics card for computing"
    assert machine_words(Host("Apple GPU", GIB, GIB, 8, apple=True), GB, "zh")[0] == "Apple GPU"


def test_needs_no_torch() -> None:
    import subprocess

    code = "import sys; from app.first_run import *; [fit(e, Host('x', 24 << 30, 32 << 30, 8), 10**12) for e in clip_models()]; sys.exit('torch' in sys.modules)"  # noqa: E501
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0

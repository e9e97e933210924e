"""Which build of torch each machine gets: a program in nvidia-smi's place, and folders in the place of Linux's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from bootstrap import backend

posix_only = pytest.mark.skipif(os.name == "nt", reason="uses a shell script")


@dataclass(frozen=True)
class Machine:
    """What its driver says, line by line; targets of its AMD cards as Linux writes them; what must be chosen."""

    tag: str
    smi: tuple[str, ...] = ()
    amd: tuple[int, ...] = ()
    system: str = "Linux"
    exit_code: int = 0
    advice: str = ""


def nvidia(name: str, driver: str, capability: str, memory: str) -> str:
    return f"{name}, {driver}, {capability}, {memory}"


GTX_1060 = nvidia("NVIDIA GeForce GTX 1060 6GB", "581.57", "6.1", "6144 MiB")
RTX_5090 = nvidia("NVIDIA GeForce RTX 5090", "581.29", "12.0", "32607 MiB")
TOO_OLD = "update the NVIDIA driver to"

MACHINES = {
    # desktops, oldest to newest
    "GTX 780 (Kepler)": Machine("cpu", (nvidia("NVIDIA GeForce GTX 780", "470.256.02", "3.5", "3072 MiB"),)),
    "GTX 970": Machine("cu126", (nvidia("NVIDIA GeForce GTX 970", "566.36", "5.2", "4096 MiB"),)),
    "GTX 1060": Machine("cu126", (GTX_1060,), system="Windows"),
    "GTX 1060, Linux": Machine("cu126", (GTX_1060,)),
    "GTX 1060, driver of 2021": Machine(
        "cpu", (nvidia("NVIDIA GeForce GTX 1060 6GB", "470.82", "6.1", "6144 MiB"),), advice=f"{TOO_OLD} 525"
    ),
    "GTX 1080 Ti": Machine("cu126", (nvidia("NVIDIA GeForce GTX 1080 Ti", "535.183.01", "6.1", "11264 MiB"),)),
    "GTX 1660": Machine("cu130", (nvidia("NVIDIA GeForce GTX 1660 SUPER", "581.80", "7.5", "6144 MiB"),)),
    "RTX 2060, driver of 2021": Machine(
        "cpu", (nvidia("NVIDIA GeForce RTX 2060", "470.256.02", "7.5", "6144 MiB"),), advice=f"{TOO_OLD} 525"
    ),
    "RTX 2080, driver 550": Machine("cu126", (nvidia("NVIDIA GeForce RTX 2080", "550.144.03", "7.5", "8192 MiB"),)),
    "RTX 2080, driver 580": Machine("cu130", (nvidia("NVIDIA GeForce RTX 2080", "580.95.05", "7.5", "8192 MiB"),)),
    "RTX 3060": Machine("cu130", (nvidia("NVIDIA GeForce RTX 3060", "591.44", "8.6", "12288 MiB"),)),
    "RTX 3090, driver 524": Machine(
        "cpu", (nvidia("NVIDIA GeForce RTX 3090", "524.99", "8.6", "24576 MiB"),), advice=f"{TOO_OLD} 525"
    ),
    "RTX 3090, driver 525": Machine("cu126", (nvidia("NVIDIA GeForce RTX 3090", "525.60.11", "8.6", "24576 MiB"),)),
    "RTX 4060": Machine("cu130", (nvidia("NVIDIA GeForce RTX 4060", "610.10", "8.9", "8188 MiB"),), system="Windows"),
    "RTX 4090, driver 579": Machine("cu126", (nvidia("NVIDIA GeForce RTX 4090", "579.99", "8.9", "24564 MiB"),)),
    "RTX 4090, driver 580": Machine("cu130", (nvidia("NVIDIA GeForce RTX 4090", "580.00", "8.9", "24564 MiB"),)),
    "RTX 5060": Machine("cu130", (nvidia("NVIDIA GeForce RTX 5060", "580.88", "12.0", "8151 MiB"),)),
    "RTX 5090": Machine("cu130", (RTX_5090,), system="Windows"),
    "RTX 5090, driver 572": Machine(
        "cpu",
        (nvidia("NVIDIA GeForce RTX 5090", "572.16", "12.0", "32607 MiB"),),
        system="Windows",
        advice=f"{TOO_OLD} 580",
    ),
    # laptops
    "MX150 laptop": Machine("cu126", (nvidia("NVIDIA GeForce MX150", "552.12", "6.1", "2048 MiB"),), system="Windows"),
    "RTX 3060 laptop": Machine("cu130", (nvidia("NVIDIA GeForce RTX 3060 Laptop GPU", "591.44", "8.6", "6144 MiB"),)),
    "RTX 5090 laptop": Machine("cu130", (nvidia("NVIDIA GeForce RTX 5090 Laptop GPU", "581.29", "12.0", "24463 MiB"),)),
    # cards for work
    "V100": Machine("cu126", (nvidia("Tesla V100-SXM2-16GB", "580.95.05", "7.0", "16384 MiB"),)),
    "A100": Machine("cu130", (nvidia("NVIDIA A100-SXM4-80GB", "580.105.08", "8.0", "81920 MiB"),)),
    "H100": Machine("cu130", (nvidia("NVIDIA H100 80GB HBM3", "580.105.08", "9.0", "81559 MiB"),)),
    "H100, driver 535": Machine("cu126", (nvidia("NVIDIA H100 80GB HBM3", "535.230.02", "9.0", "81559 MiB"),)),
    "B200": Machine("cu130", (nvidia("NVIDIA B200", "580.95.05", "10.0", "183359 MiB"),)),
    "GB10, shared memory": Machine("cu130", (nvidia("NVIDIA GB10", "580.95.05", "12.1", "[N/A]"),)),
    "name with a comma": Machine("cu130", ("NVIDIA RTX A2000, Special, 580.95, 8.6, 6138 MiB",)),
    # several
    "two alike": Machine("cu130", (nvidia("NVIDIA GeForce RTX 3090", "580.95", "8.6", "24576 MiB"),) * 2),
    "old and new: one build serves both": Machine(
        "cu126",
        (
            nvidia("NVIDIA GeForce GTX 1080", "580.95", "6.1", "8192 MiB"),
            nvidia("NVIDIA GeForce RTX 4090", "580.95", "8.9", "24564 MiB"),
        ),
    ),
    "very old and newest: the better card decides": Machine("cu130", (GTX_1060, RTX_5090)),
    # AMD
    "RX 7900 XTX": Machine(backend.ROCM, amd=(0, 110000)),
    "RX 9070": Machine(backend.ROCM, amd=(0, 120001)),
    "MI250": Machine(backend.ROCM, amd=(0, 90010, 90010)),
    "RX 580": Machine("cpu", amd=(0, 80003), advice="the ROCm build runs on"),
    "RTX 3060 beside AMD graphics": Machine(
        "cu130", (nvidia("NVIDIA GeForce RTX 3060", "591.44", "8.6", "12288 MiB"),), amd=(0, 100306)
    ),
    # none
    "no card": Machine("cpu", exit_code=9),
    "driver broken": Machine("cpu", ("NVIDIA-SMI has failed because it couldn't communicate with the driver.",)),
    "nonsense": Machine("cpu", (",,,", "1,2,3,4", "\x01")),
    "macOS": Machine("default", system="Darwin", exit_code=1),
}


def test_enough_machines() -> None:
    assert len(MACHINES) >= 40


@posix_only
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())
def test_each_machine_gets_its_build(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "said").write_text("".join(f"{line}\n" for line in machine.smi))
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat '{tmp_path / 'said'}'\nexit {machine.exit_code}\n")
    program.chmod(0o755)
    for number, target in enumerate(machine.amd):
        node = tmp_path / "nodes" / str(number)
        node.mkdir(parents=True)
        (node / "properties").write_text(f"cpu_cores_count 16\ngfx_target_version {target}\nvendor_id 4098\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("MOVA_BACKEND", raising=False)
    monkeypatch.setattr(backend, "KFD", tmp_path / "nodes")
    monkeypatch.setattr(backend.platform, "system", lambda: machine.system)
    choice = backend.detect()
    assert choice.tag == machine.tag
    assert choice.advice.startswith(machine.advice)
    assert bool(choice.advice) == bool(machine.advice)
    assert choice.reason


@pytest.mark.parametrize(
    ("number", "target"), [(90010, "gfx90a"), (90402, "gfx942"), (100300, "gfx1030"), (110501, "gfx1151")]
)
def test_target_as_the_compiler_names_it(number: int, target: str, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "properties").write_text(f"gfx_target_version {number}\n")
    assert backend.amd_targets(tmp_path) == [target]


def test_forced_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOVA_BACKEND", "cu126")
    assert backend.detect().tag == "cu126"
    monkeypatch.setenv("MOVA_BACKEND", "cu999")
    with pytest.raises(ValueError, match=r"cu999.*cu130"):
        backend.detect()

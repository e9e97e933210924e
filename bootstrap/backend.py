"""Which build of torch fits the graphics cards of this machine.

The table follows PyTorch's own support matrix for the 2.12 to 2.14 releases: builds for CUDA 12.6 (Maxwell to
Hopper) and CUDA 13.0 (Turing to Blackwell) exist, one for CUDA 12.8 no longer does. For AMD cards there is one for
ROCm 7.2, on Linux only; it brings its own ROCm and needs no more than the kernel's driver.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CPU = "cpu"
DEFAULT = "default"  # whatever the configured package index gives for the plain pin
ROCM = "rocm7.2"
# What that build has kernels for: Instinct MI100 to MI350, Radeon RX 6800 and newer, Ryzen AI.
ROCM_TARGETS = frozenset(
    "gfx908 gfx90a gfx942 gfx950 gfx1030 gfx1100 gfx1101 gfx1102 gfx1150 gfx1151 gfx1200 gfx1201".split()
)
KFD = Path("/sys/class/kfd/kfd/topology/nodes")  # where Linux lists what its AMD driver can compute on
QUERY = ("--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA card as the driver describes it.

    Attributes:
        name: as sold.
        driver: major version of the installed driver.
        capability: CUDA compute capability, (major, minor).
        memory_mb: MiB on the card, 0 where the driver does not say.
    """

    name: str
    driver: int
    capability: tuple[int, int]
    memory_mb: int


@dataclass(frozen=True)
class Build:
    """A published build of torch and what it runs on; both capabilities are inclusive."""

    tag: str
    min_driver: int
    lowest: tuple[int, int]
    highest: tuple[int, int]


# In order of preference.
BUILDS = (
    Build("cu130", min_driver=580, lowest=(7, 5), highest=(12, 9)),
    Build("cu126", min_driver=525, lowest=(5, 0), highest=(9, 0)),
)
TAGS = (CPU, DEFAULT, ROCM, *(build.tag for build in BUILDS))


@dataclass(frozen=True)
class Choice:
    """The build to install, why, and what the user could do to get a better one (empty when nothing)."""

    tag: str
    reason: str
    advice: str = ""


def parse_smi(text: str) -> list[Gpu]:
    """The cards in nvidia-smi's CSV answer. Lines that do not make sense are skipped, never an error."""
    gpus = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.rsplit(",", 3)]
        if len(fields) != 4:
            continue
        name, driver, capability, memory = fields
        try:
            major, minor = (int(part) for part in capability.split("."))
            gpus.append(Gpu(name, int(driver.split(".")[0]), (major, minor), _mebibytes(memory)))
        except ValueError:
            continue
    return gpus


def _mebibytes(text: str) -> int:
    number = text.split(" ")[0]
    return int(number) if number.isdigit() else 0  # some cards with shared memory answer "[N/A]"


def choose(gpus: list[Gpu], system: str, amd: Sequence[str] = ()) -> Choice:
    """The build of torch for these cards.

    Args:
        gpus: from `parse_smi`; may be empty.
        system: `platform.system()`: "Linux", "Windows" or "Darwin".
        amd: targets of AMD cards as their compiler names them, such as "gfx1100"; from `amd_targets`.
    """
    if system == "Darwin":
        return Choice(DEFAULT, "macOS: PyTorch's one build for it")
    if not gpus:
        return _choose_amd(amd)
    best = max(gpus, key=lambda gpu: (gpu.capability, gpu.memory_mb))
    able = [build for build in BUILDS if best.driver >= build.min_driver]
    for wanted in (gpus, [best]):  # a build that serves every card if there is one, else one for the best card
        for build in able:
            if all(build.lowest <= gpu.capability <= build.highest for gpu in wanted):
                return Choice(build.tag, _describe(best, len(gpus)))
    fitting = [build for build in BUILDS if build.lowest <= best.capability <= build.highest]
    if fitting:
        needed = min(build.min_driver for build in fitting)
        advice = f"update the NVIDIA driver to {needed} or newer, then run: python launch.py setup"
        return Choice(CPU, f"driver {best.driver} is too old for {best.name}", advice)
    return Choice(CPU, f"no build of torch supports {best.name} (compute capability {_dotted(best)})")


def _choose_amd(targets: Sequence[str]) -> Choice:
    if not targets:
        return Choice(CPU, "no card for computing found")
    able = [target for target in targets if target in ROCM_TARGETS]
    if able:
        return Choice(ROCM, f"AMD {', '.join(able)}")
    advice = f"the ROCm build runs on: {', '.join(sorted(ROCM_TARGETS))}"
    return Choice(CPU, f"no build of torch supports AMD {', '.join(targets)}", advice)


def _describe(gpu: Gpu, count: int) -> str:
    others = f" and {count - 1} more" if count > 1 else ""
    return f"{gpu.name}{others}, compute capability {_dotted(gpu)}, driver {gpu.driver}"


def _dotted(gpu: Gpu) -> str:
    return ".".join(map(str, gpu.capability))


def detect() -> Choice:
    """Ask the driver and choose. `MOVA_BACKEND` overrules (ValueError when it names no known build)."""
    forced = os.environ.get("MOVA_BACKEND", "")
    if forced:
        if forced not in TAGS:
            raise ValueError(f"MOVA_BACKEND is {forced!r}; it can be one of: {', '.join(TAGS)}")
        return Choice(forced, "set by MOVA_BACKEND")
    return choose(cards(), platform.system(), amd_targets(KFD))


def cards() -> list[Gpu]:
    """The NVIDIA cards of this machine, as their driver describes them; none where there is no driver."""
    return parse_smi(_ask_driver())


def amd_targets(nodes: Path) -> list[str]:
    """Targets of the AMD cards that Linux knows, such as "gfx90a"; processors have none and are left out."""
    targets = []
    for path in sorted(nodes.glob("*/properties")) if nodes.is_dir() else []:
        try:
            match = re.search(r"^gfx_target_version (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
        except (OSError, UnicodeDecodeError):
            continue
        if match and int(match[1]):
            number = int(match[1])
            targets.append(f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}")
    return targets


def _ask_driver() -> str:
    places = [
        shutil.which("nvidia-smi"),
        "/usr/lib/wsl/lib/nvidia-smi",
        os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvidia-smi.exe"),
    ]
    for place in places:
        if place and Path(place).is_file():
            try:
                done = subprocess.run([place, *QUERY], capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
            except (OSError, subprocess.TimeoutExpired):
                continue  # a driver that hangs or cannot start is as good as none
            if done.returncode == 0:
                return done.stdout.decode("utf-8", errors="replace")
    return ""

"""What the machine has: memories, and the rates between them, measured once a card and kept.

All sizes in bytes, all rates in bytes or operations a second. Nothing here decides anything.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from engine.doctor import memory_limit
from engine.folders import cache_folder

log = logging.getLogger(__name__)

GIB = 2**30
KINDS = ("cuda", "rocm", "mps", "cpu")
CGROUP = Path("/sys/fs/cgroup")
PROBE = 256 * 2**20  # bytes moved to measure a rate


@dataclass(frozen=True)
class Rates:
    """Bytes a second from pinned memory, ordinary memory and disk to the device; operations a second on it.

    The defaults are cautious values of a card on PCIe 4 beside an NVMe drive; they hold until measured.
    """

    pinned: float = 22e9
    pageable: float = 7e9
    disk: float = 2.5e9
    compute: float = 60e12


@dataclass(frozen=True)
class Machine:
    """One device and its host.

    Attributes:
        kind: "cuda", "rocm" (both are torch's "cuda"), "mps" or "cpu".
        capability: CUDA's compute capability; (0, 0) elsewhere.
        vram_total, vram_free: of the device; for "cpu" and "mps" they are the host's, which the device shares.
        ram_total, ram_free: of the host, within the limits of a container.
        pin_limit: how much of it may be page-locked.
        bf16: the device computes in bfloat16.
        cards: devices of this kind.
    """

    kind: str
    name: str
    vram_total: int
    vram_free: int
    ram_total: int
    ram_free: int
    pin_limit: int
    capability: tuple[int, int] = (0, 0)
    bf16: bool = True
    cards: int = 1
    rates: Rates = field(default_factory=Rates)

    @property
    def shared(self) -> bool:
        """Device and host are the same memory."""
        return self.kind in ("cpu", "mps")

    def capped(self, vram: int) -> Machine:
        """The same machine as if its device had at most `vram` bytes."""
        less = replace(self, vram_total=min(vram, self.vram_total), vram_free=min(vram, self.vram_free))
        return replace(less, ram_free=min(vram, self.ram_free)) if self.shared else less


def host_memory(cgroup: Path = CGROUP) -> tuple[int, int]:
    """Total and free main memory, of the machine or of the container where that is less.

    What a container's page cache holds counts as free: the system gives it up when it is needed.
    """
    memory = psutil.virtual_memory()
    limit = memory_limit(cgroup)
    if limit is None or limit >= memory.total:
        return memory.total, memory.available
    used = _number(cgroup / "memory.current") or _number(cgroup / "memory" / "memory.usage_in_bytes")
    cached = sum(_statistic(cgroup, name) for name in ("inactive_file", "active_file"))
    return limit, max(0, min(memory.available, limit - max(0, used - cached)))


def pin_limit(total: int, free: int) -> int:
    """How much memory may be page-locked without starving the rest: half of all, and not the last of what is free.

    Windows lets a process lock about half of the memory; Linux lets root lock everything and others what `ulimit -l`
    says, which the driver does not ask.
    """
    return max(0, min(total // 2, free - 3 * GIB))


def detect(device: str, cap: int | None = None) -> Machine:
    """The machine around a torch device ("cuda", "cuda:1", "mps", "cpu"), with its cached rates.

    Args:
        cap: use no more than so many bytes of the device.
    """
    import torch

    total, free = host_memory()
    lock = pin_limit(total, free)
    where = torch.device(device)
    if where.type == "cuda":
        properties = torch.cuda.get_device_properties(where)
        vram_free, vram_total = torch.cuda.mem_get_info(where)
        vram_free += torch.cuda.memory_reserved(where)  # what torch holds for us already
        machine = Machine(
            "rocm" if torch.version.hip else "cuda",
            properties.name,
            vram_total,
            min(vram_free, vram_total),
            total,
            free,
            lock,
            (properties.major, properties.minor),
            torch.cuda.is_bf16_supported(including_emulation=False),
            torch.cuda.device_count(),
        )
    elif where.type == "mps":
        limit = min(int(torch.mps.recommended_max_memory()), total)
        machine = Machine("mps", "Apple GPU", limit, min(limit, free), total, free, 0)
    else:
        machine = Machine("cpu", f"processor, {os.cpu_count()} threads", total, free, total, free, 0, bf16=False)
    machine = replace(machine, rates=known_rates(machine, device))
    return machine if cap is None else machine.capped(cap)


def known_rates(machine: Machine, device: str, file: Path | None = None) -> Rates:
    """Rates from the cache; measured (about a second) and kept where this card has none there yet."""
    file = file or cache_folder() / "rates.json"
    key = f"{machine.kind} {machine.name}"
    known = read_json(file)
    try:
        return Rates(**{name: float(value) for name, value in known[key].items()})
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    rates = measure_rates(machine, device, PROBE // 8 if machine.shared else PROBE)
    write_json(file, {**known, key: asdict(rates)})
    return rates


def measure_rates(machine: Machine, device: str, size: int = PROBE) -> Rates:
    """Moves `size` bytes by each way and multiplies matrices; the best of three each."""
    import torch

    where = torch.device(device)
    target = torch.empty(size, dtype=torch.uint8, device=where)
    source = torch.ones(size, dtype=torch.uint8)
    pageable = size / _seconds(lambda: target.copy_(source), where)
    pinned = pageable
    if where.type == "cuda":
        source = source.pin_memory()
        pinned = size / _seconds(lambda: target.copy_(source, non_blocking=True), where)
    side, dtype = (8192, torch.bfloat16) if where.type == "cuda" else (1024, torch.float32)
    left = torch.ones(side, side, dtype=dtype, device=where)
    compute = 2.0 * side**3 / _seconds(lambda: left @ left, where)
    # Attention runs at about three quarters of what plain products reach.
    return Rates(pinned, pageable, min(_disk_rate(size), pageable), 0.75 * compute)


def _seconds(action: Any, device: Any) -> float:
    import torch

    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        best = min(best, time.perf_counter() - begun)
    return max(best, 1e-9)


def _disk_rate(size: int) -> float:
    """Reading back what was just written, out of the system's cache where the system lets us."""
    block = bytes(size)
    try:
        with tempfile.NamedTemporaryFile(dir=_made(cache_folder())) as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            begun = time.perf_counter()
            while file.read(16 * 2**20):
                pass
            return size / max(time.perf_counter() - begun, 1e-9)
    except OSError as error:
        log.info("the disk's rate could not be measured (%s); a cautious one holds", error)
        return Rates.disk


def device_peak(device: Any) -> int:
    """Peak bytes of a torch device's allocator; of a processor, what the process holds now."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none that can be read."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Writes it whole or not at all; a cache that cannot be written is only worth a line in the log."""
    try:
        _made(file.parent)
        part = file.with_name(f"{file.name}.{os.getpid()}")
        part.write_text(json.dumps(value, indent=1), encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        log.info("%s could not be written: %s", file.name, error)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _number(file: Path) -> int:
    try:
        return int(file.read_text().strip())
    except (OSError, ValueError):
        return 0


def _statistic(cgroup: Path, name: str) -> int:
    for file in (cgroup / "memory.stat", cgroup / "memory" / "memory.stat"):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        return sum(int(line.split()[1]) for line in lines if line.split()[0] == name)
    return 0

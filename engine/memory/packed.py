"""8-bit blocks on disk: packed once a model, checked at every load, and from then on read as they are used.

Without it, a block that waits in its file would be read in its full size and packed again at every step. A file holds
one part of a layer as its slab has it, and a checksum behind it. One model is kept at a time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.memory.eight_bit import EightBitLinear
from engine.memory.plan import Plan
from engine.memory.slabs import ALIGN, Part
from engine.texts import file_digest
from engine.weights import WEIGHT_STEM, weight_files

log = logging.getLogger(__name__)

SPARE = 10 * 2**30  # bytes of the disk that are left alone
SUM = hashlib.sha256().digest_size
PIECE = 2**24
ABANDONED = 3600.0  # seconds after which a half-written file belongs to nobody


@dataclass
class PackedStore:
    """Where packed blocks are kept.

    Attributes:
        folder: holds a folder a model. fingerprint: of the weights that are packed.
        written, found, mended: parts that were packed, that were there, and that were there but damaged.
    """

    folder: Path
    fingerprint: str
    written: int = 0
    found: int = 0
    mended: int = 0

    def take(self, named: Sequence[tuple[str, Part]]) -> bool:
        """Lets every part have its values in its file, which is written where it is not there or not right.

        Args:
            named: parts with packed layers, by a name that is theirs.

        Returns:
            False where the disk has no room for it; the parts are then as before.
        """
        home = self.folder / hashlib.sha256(f"{self.fingerprint} {ALIGN}".encode()).hexdigest()[:32]
        try:
            home.mkdir(parents=True, exist_ok=True)
            for other in self.folder.iterdir():
                if other != home:
                    shutil.rmtree(other, ignore_errors=True)
            for file in home.iterdir():  # what a killed process left half-written
                if file.suffix and time.time() - file.stat().st_mtime > ABANDONED:
                    file.unlink()
            wanted = sum(part.size + SUM for name, part in named if not (home / name).exists())
            if wanted and shutil.disk_usage(home).free < wanted + SPARE:
                log.warning("no room on the disk to keep the model in 8 bits (%.1f GB)", wanted / 1e9)
                return False
            for name, part in named:
                self._give(home / f"{name}", part)
        except OSError as error:
            log.warning("the model in 8 bits cannot be kept: %s", error)
            return False
        return True

    def _give(self, file: Path, part: Part) -> None:
        if _is_right(file, part.size):
            self.found += 1
        else:
            self.mended += file.exists()
            self._write(file, part)
        part.adopt(torch.from_file(str(file), shared=False, size=part.size, dtype=torch.uint8))

    def _write(self, file: Path, part: Part) -> None:
        slab = torch.zeros(part.size, dtype=torch.uint8)
        part.fill(slab)
        data: Any = slab.numpy()  # a buffer, which numpy's types say only from Python 3.12 on
        fresh = file.with_name(f"{file.name}.{os.getpid()}")
        with fresh.open("wb") as stream:
            stream.write(data)
            stream.write(hashlib.sha256(data).digest())
        os.replace(fresh, file)
        self.written += 1


def _is_right(file: Path, size: int) -> bool:
    """Whether it holds `size` bytes and their checksum."""
    content = hashlib.sha256()
    try:
        if file.stat().st_size != size + SUM:
            return False
        with file.open("rb") as stream:
            while size:
                piece = stream.read(min(size, PIECE))
                if not piece:
                    return False
                content.update(piece)
                size -= len(piece)
            return stream.read() == content.digest()
    except FileNotFoundError:
        return False


def holds_packed(part: Part) -> bool:
    """Whether anything of it is stored in 8 bits."""
    return any(isinstance(entry.owner, EightBitLinear) for entry in part.entries)


def packed_store(folder: Path, model: Path, plan: Plan) -> PackedStore:
    """Of the blocks of `model` as `plan` stores them, known by their files' content."""
    content = hashlib.sha256(f"{plan.weights} {plan.dtype} {torch.__version__}".encode())
    for name in ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge"):
        content.update((model / name / "config.json").read_bytes())
        for file in weight_files(model / name, WEIGHT_STEM):
            content.update(file_digest(file))
    return PackedStore(folder, content.hexdigest())

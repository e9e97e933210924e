"""Texts to embeddings: the text encoder is read when a text needs it, and what it said is kept on disk.

A prompt that was read before needs no text encoder at all: that of the released weights is 11 GB. An entry holds one
text's embedding up to its last token, with a checksum; entries that do not hold what they say are computed again. The
folder is bounded; what was not used for the longest time goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from transformers import UMT5EncoderModel

from engine.encode import TEXT_TOKENS, TextEmbedding, clean_prompt
from engine.folders import cache_folder
from engine.weights import check_text_encoder, load_text_encoder, weight_files

log = logging.getLogger(__name__)

LIMIT = 256 * 2**20  # bytes of all entries; one of the released weights takes 8 KB a token
ABANDONED = 3600.0  # seconds after which a half-written file belongs to nobody
WHOLE = 64 * 2**20  # bytes up to which weights are known by all of their content
SAMPLES, SAMPLE = 64, 2**16  # pieces of a larger file, beside its size and time


class StoredTextEncoder:
    """The text encoder of a model folder: checked when the model is opened, read at its first use.

    Attributes:
        width: of the embeddings. loads: how often it was read.

    Raises:
        CheckpointError: it does not hold exactly what its config promises.
    """

    def __init__(self, folder: Path, dtype: torch.dtype | None, device: torch.device) -> None:
        self.folder, self.dtype, self.device = folder, dtype, device
        self.width = check_text_encoder(folder)
        self.loads = 0
        self._model: UMT5EncoderModel | None = None

    @property
    def model(self) -> UMT5EncoderModel:
        if self._model is None:
            with torch.inference_mode(False):  # it may be needed outside of a run as well
                self._model = load_text_encoder(self.folder, self.dtype, self.device)
            self.loads += 1
        return self._model

    def to(self, device: torch.device) -> None:
        self.device = device
        if self._model is not None:
            self._model.to(device)

    def fingerprint(self) -> str:
        """The same for the same encoder and tokenizer, however their folder is called."""
        content = hashlib.sha256()
        for file in sorted((self.folder / "tokenizer").iterdir()):
            content.update(f"{file.name}:".encode() + file.read_bytes())
        content.update((self.folder / "text_encoder" / "config.json").read_bytes())
        for file in weight_files(self.folder / "text_encoder", "model"):
            content.update(file_digest(file))
        return content.hexdigest()


def file_digest(file: Path) -> bytes:
    """Of all bytes; of a large file its size, its time of change and pieces from all over it."""
    found = file.stat()
    content = hashlib.sha256(f"{found.st_size}".encode())
    with file.open("rb") as stream:
        if found.st_size <= WHOLE:
            while piece := stream.read(2**20):
                content.update(piece)
            return content.digest()
        content.update(f" {found.st_mtime_ns}".encode())
        for n in range(SAMPLES):
            stream.seek(n * (found.st_size - SAMPLE) // (SAMPLES - 1))
            content.update(stream.read(SAMPLE))
    return content.digest()


@dataclass
class TextCache:
    """Embeddings on disk.

    Attributes:
        folder: of the entries; `TextCache.here()` is this machine's. limit: bytes of all entries.
        found, made, mended: texts that were there, that were computed, and entries that were not as they should be.
    """

    folder: Path
    limit: int = LIMIT
    found: int = 0
    made: int = 0
    mended: int = 0

    @classmethod
    def here(cls) -> TextCache:
        return cls(cache_folder() / "texts")

    def embedded(self, maker: str, texts: list[str], encode: Callable[[list[str]], TextEmbedding]) -> TextEmbedding:
        """The texts' embeddings, by `encode` where they are not all there.

        Args:
            maker: what decides the values besides the text: encoder, tokenizer, precision, device.
        """
        # Texts that are encoded together can differ in the last bit from the same ones alone.
        names = [self._file(f"{maker} {len(texts)} {clean_prompt(text)}") for text in texts]
        known = [self._read(name) for name in names]
        there = [one for one in known if one is not None]
        if len(there) == len(texts):
            self.found += len(texts)
            embeds, ids = torch.cat([e.embeds for e in there]), torch.cat([e.token_ids for e in there])
            return TextEmbedding(embeds, ids, [flag for e in there for flag in e.truncated])
        made = encode(texts)
        self.made += len(texts)
        for n, name in enumerate(names):
            self._write(name, made.embeds[n], made.token_ids[n], made.truncated[n])
        self._trim(keep=set(names))
        return made

    def _file(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def _read(self, file: Path) -> TextEmbedding | None:
        try:
            with safe_open(file, framework="pt") as entry:
                said = entry.metadata() or {}
                kept, ids = entry.get_tensor("embeds"), entry.get_tensor("ids")
            right = ids.shape == (1, TEXT_TOKENS) and kept.dim() == 2 and said.get("sum") == _checksum(kept, ids)
            if not right:
                raise ValueError("its content is not what was written")
            os.utime(file)  # it was used now
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            log.warning("a kept text embedding is damaged and is computed again: %s", error)
            self.mended += 1
            return None
        embeds = kept.new_zeros(1, TEXT_TOKENS, kept.shape[1])
        embeds[0, : len(kept)] = kept
        return TextEmbedding(embeds, ids, [said.get("truncated") == "1"])

    def _write(self, file: Path, embeds: torch.Tensor, ids: torch.Tensor, truncated: bool) -> None:
        """Whole or not at all; a cache that cannot be written is only worth a line in the log."""
        values = embeds.detach().cpu()
        used = int(values.ne(0).any(1).nonzero().max()) + 1 if bool(values.ne(0).any()) else 0
        kept, ids = values[:used].clone(), ids.detach().cpu()[None].clone()
        said = {"sum": _checksum(kept, ids), "truncated": "1" if truncated else "0"}
        part = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(save({"embeds": kept, "ids": ids}, said))
            os.replace(part, file)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            log.info("a text embedding could not be kept: %s", error)

    def _trim(self, keep: set[Path]) -> None:
        """Takes away the entries that were not used for the longest time, and what killed processes left behind."""
        entries, now = [], time.time()
        try:
            files = list(self.folder.iterdir())
        except OSError:
            return
        for file in files:
            try:
                found = file.stat()
                if file.suffix == ".safetensors":
                    entries.append((found.st_mtime, found.st_size, file))
                elif now - found.st_mtime > ABANDONED:
                    file.unlink()
            except OSError as error:  # another process took it away, or holds it open
                log.debug("%s: %s", file.name, error)
        total = sum(size for _, size, _ in entries)
        for _, size, file in sorted(entries, key=lambda e: (e[0], e[2].name)):
            if total <= self.limit:
                return
            if file in keep:
                continue
            try:
                file.unlink(missing_ok=True)
                total -= size
            except OSError as error:
                log.debug("%s: %s", file.name, error)


def _checksum(kept: torch.Tensor, ids: torch.Tensor) -> str:
    content = hashlib.sha256(f"{kept.dtype} {tuple(kept.shape)}".encode())
    for tensor in (kept, ids):
        content.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()

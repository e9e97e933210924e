"""Latents and text embeddings of clips, made once and found again by hash.

The name of a file in the cache is the SHA-256 of all that its content depends on: the video's bytes, the stretch, size
and rate, and the networks that encode. So a second LoRA on the same clips begins at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from engine.encode import condition_latents, encode_frames, encode_samples, encode_text, frames_tensor, picture_tensor
from engine.media import atomic_file
from engine.models import AudioVAE
from engine.training.lora.clips import Format, Piece, load

log = logging.getLogger(__name__)

VERSION = 1  # of what is cached
EDGE = 2**20  # bytes at both ends of a weights file that go into its hash, besides size and header
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Digests:
    """Which weights: of both VAEs, of the text's tokenizer and encoder, of towers and bridge."""

    eyes_and_ears: str
    reader: str
    towers: str


@dataclass(frozen=True)
class Encoders:
    """What turns clips into what the towers see."""

    video_vae: AutoencoderKLWan
    audio_vae: AudioVAE
    text_encoder: UMT5EncoderModel
    tokenizer: PreTrainedTokenizerFast
    digests: Digests


@dataclass(frozen=True)
class Example:
    """One clip as training sees it, float16 on the CPU.

    Attributes:
        video: (C, F, H, W). audio: (C', N).
        condition: (stride + C, F, H, W), mask and latents of the first picture; None has no first picture.
        text: (S, text_dim), without padding.
        sound: whether its sound is learned.
    """

    video: Tensor
    audio: Tensor
    condition: Tensor | None
    text: Tensor
    sound: bool = True


class Cache:
    """A folder of encoded clips and captions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Tensors under a key; a damaged file counts as none."""
        try:
            with safe_open(self._path(key), "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}
        except (FileNotFoundError, SafetensorError, OSError):
            return None

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Stores tensors as float16; the file appears whole or not at all."""
        with atomic_file(self._path(key)) as part:
            part.write_bytes(save({name: t.to("cpu", torch.float16).contiguous() for name, t in tensors.items()}))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def key_of(*parts: object) -> str:
    """One name for all that something depends on."""
    return hashlib.sha256(json.dumps([VERSION, *parts], sort_keys=True, default=str).encode()).hexdigest()


def model_digest(folder: Path, components: Sequence[str]) -> str:
    """Tells models apart in milliseconds: configs whole; of weights the size, the beginning and the end."""
    digest = hashlib.sha256()
    for component in components:
        for path in sorted((folder / component).iterdir()):
            if path.suffix not in (".json", ".safetensors", ".model"):
                continue
            size = path.stat().st_size
            digest.update(f"{component}/{path.name} {size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(EDGE))
                file.seek(max(EDGE, size - EDGE))
                digest.update(file.read(EDGE))
    return digest.hexdigest()


def encode_clips(
    pieces: Sequence[Piece],
    form: Format,
    encoders: Encoders,
    cache: Cache,
    share: tuple[int, int] = (0, 1),
    progress: Progress | None = None,
) -> None:
    """Fills the cache with whatever of `pieces` is not in it.

    Args:
        share: (i, n) does every n-th from i on, for n processes side by side.
        progress: called with ("encode", done, all).

    Raises:
        MediaError: a video cannot be read.
    """
    mine = pieces[share[0] :: share[1]]
    for done, piece in enumerate(mine, 1):
        key = clip_key(piece, form, encoders.digests.eyes_and_ears)
        if cache.get(key) is None:
            frames, samples, rate = load(piece, form)
            pictures = frames_tensor(frames)
            first = picture_tensor(frames[0])
            cache.put(key, {
                "video": encode_frames(encoders.video_vae, pictures)[0],
                "condition": condition_latents(
                    encoders.video_vae, first, None, form.frames, form.height, form.width)[0],
                "audio": encode_samples(encoders.audio_vae, samples, rate)[0],
            })  # fmt: skip
        encode_caption(piece.caption, encoders, cache)
        if progress:
            progress("encode", done, len(mine))


def encode_caption(text: str, encoders: Encoders, cache: Cache) -> None:
    """Puts the embedding of a text into the cache, without its padding."""
    key = text_key(text, encoders.digests.reader)
    if cache.get(key) is None:
        found = encode_text(encoders.tokenizer, encoders.text_encoder, [text])
        length = int((found.token_ids[0] != encoders.tokenizer.pad_token_id).sum())
        cache.put(key, {"text": found.embeds[0, :length]})


def encode_blank(form: Format, encoders: Encoders, cache: Cache) -> None:
    """Puts the condition of a clip without a first picture into the cache."""
    key = blank_key(form, encoders.digests.eyes_and_ears)
    if cache.get(key) is None:
        blank = condition_latents(encoders.video_vae, None, None, form.frames, form.height, form.width)
        cache.put(key, {"condition": blank[0]})


def clip_key(piece: Piece, form: Format, eyes_and_ears: str) -> str:
    return key_of("clip", piece.digest, f"{piece.start:.4f}", asdict(form), eyes_and_ears)


def text_key(text: str, reader: str) -> str:
    return key_of("text", text, reader)


def blank_key(form: Format, eyes_and_ears: str) -> str:
    return key_of("blank", asdict(form), eyes_and_ears)


def take(cache: Cache, key: str) -> dict[str, Tensor]:
    """Tensors that must be there by now."""
    found = cache.get(key)
    assert found is not None, f"{key} was encoded and is not in the cache"
    return found


def examples(pieces: Sequence[Piece], form: Format, eyes_and_ears: str, reader: str, cache: Cache) -> list[Example]:
    """The encoded pieces, in their order."""
    found = []
    for piece in pieces:
        clip = take(cache, clip_key(piece, form, eyes_and_ears))
        text = take(cache, text_key(piece.caption, reader))["text"]
        found.append(Example(clip["video"], clip["audio"], clip["condition"], text, piece.sound))
    return found

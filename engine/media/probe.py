"""What is in a video or sound file, told without trusting its name.

The container is recognised by its first bytes and the matching ffmpeg demuxer is forced, so that a playlist posing as
a video is never followed to other files or to the network. ffprobe does not come with imageio-ffmpeg; ffmpeg's
``framecrc`` and ``ffmetadata`` outputs are made for machines and say the same.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from engine.errors import MediaError
from engine.media import ffmpeg

MAX_PIXELS = 4096 * 2304  # pixels a frame, the largest H.264 level 5.1 picture
MAX_FILE_BYTES = 4 << 30
PROBE_SECONDS = 20.0
COMMON_RATES = tuple(Fraction(r) for r in (24, 16, 30, 25, 60, 50, 12, 15, 8, 10, 20, 48)) + tuple(
    Fraction(r * 1000, 1001) for r in (24, 30, 60)
)
MAX_SETTINGS_BYTES = 256 << 10  # a settings tag is kilobytes; anything longer is not ours


@dataclass(frozen=True)
class MediaInfo:
    """Streams of a media file as players see them, edit lists applied.

    Attributes:
        container: "mov", "matroska", "avi", "gif", "wav", "mp3", "ogg" or "flac" (the ffmpeg demuxer).
        seconds: end of the longer stream.
        width, height: pixels of the coded video, 0 without video; rotation flags are not applied.
        frames: pictures, 0 without video.
        fps: mean pictures per second, 0.0 without video.
        video_seconds: duration of the video stream.
        sample_rate: audio samples per second, 0 without sound.
        channels: 1 or 2; surround counts as 2, as it is read.
        audio_seconds: duration of the audio stream.
        video_codec, audio_codec: ffmpeg's names, "" where missing.
    """

    container: str
    seconds: float
    width: int
    height: int
    frames: int
    fps: float
    video_seconds: float
    sample_rate: int
    channels: int
    audio_seconds: float
    video_codec: str
    audio_codec: str


def sniff(path: str | os.PathLike[str]) -> str:
    """The ffmpeg demuxer for the file's first bytes.

    Raises:
        MediaError: missing, a folder, empty, too large, or none of the known containers.
    """
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path.name} is a folder; choose a video file")
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise MediaError(f"{path.name} does not exist") from None
    except OSError as error:
        raise MediaError(f"{path.name} cannot be read: {(error.strerror or 'error').lower()}") from error
    if size > MAX_FILE_BYTES:
        raise MediaError(f"{path.name} is larger than {MAX_FILE_BYTES >> 30} GiB; trim it first")
    demuxer = _container(head)
    if demuxer is None:
        raise MediaError(f"{path.name} is not an mp4, mov, webm, mkv, avi, gif or sound file; convert it first")
    return demuxer


def _container(head: bytes) -> str | None:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WAVE"):
        return "avi" if head[8:12] == b"AVI " else "wav"
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):  # MPEG layer III sync
        return "mp3"
    starts = {b"\x1a\x45\xdf\xa3": "matroska", b"GIF87a": "gif", b"GIF89a": "gif", b"OggS": "ogg", b"fLaC": "flac"}
    return next((demuxer for magic, demuxer in starts.items() if head.startswith(magic)), None)


def probe(path: str | os.PathLike[str], *, timeout: float = PROBE_SECONDS) -> MediaInfo:
    """Read the stream facts of a video or sound file; packets are counted, nothing is decoded.

    Raises:
        MediaError: not a known container, no stream inside, damaged, or not read within `timeout` seconds.
    """
    path = Path(path)
    demuxer = sniff(path)
    listing = ffmpeg.run(
        [
            *ffmpeg.reading(demuxer, path, max_pixels=MAX_PIXELS),
            *("-map", "0:v:0?", "-map", "0:a:0?", "-c", "copy", "-f", "framecrc", "pipe:1"),
        ],
        timeout=timeout,
        what=f"cannot read {path.name}",
    )
    streams = parse_framecrc(listing.decode("ascii", "replace"))
    video = next((s for s in streams if s.kind == "video"), None)
    audio = next((s for s in streams if s.kind == "audio"), None)
    if video is None and audio is None:
        raise MediaError(f"{path.name} holds neither pictures nor sound")
    return MediaInfo(
        container=demuxer,
        seconds=float(max(s.end for s in streams)),
        width=video.width if video else 0,
        height=video.height if video else 0,
        frames=video.packets if video else 0,
        fps=video.rate if video else 0.0,
        video_seconds=video.seconds if video else 0.0,
        sample_rate=audio.sample_rate if audio else 0,
        channels=audio.channels if audio else 0,
        audio_seconds=audio.seconds if audio else 0.0,
        video_codec=video.codec if video else "",
        audio_codec=audio.codec if audio else "",
    )


@dataclass
class Stream:
    """One stream of a framecrc listing; times in seconds."""

    kind: str = ""
    codec: str = ""
    tick: Fraction = Fraction(1)
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    packets: int = 0
    channels: int = 0
    start: Fraction = Fraction(0)
    end: Fraction = Fraction(0)

    @property
    def seconds(self) -> float:
        return float(self.end - self.start)

    @property
    def rate(self) -> float:
        """Mean packets per second; the common frame rate that the time stamps' rounding cannot tell it from."""
        length = self.end - self.start
        if length <= 0:
            return 0.0
        for common in COMMON_RATES:
            if abs(self.packets / common - length) <= self.tick * Fraction(3, 2):
                return float(common)
        return float(self.packets / length)


def parse_framecrc(listing: str) -> list[Stream]:
    """Streams, packet counts and times of an ffmpeg ``framecrc`` listing."""
    streams: dict[int, Stream] = {}
    for line in listing.splitlines():
        header = re.match(r"#(\w+) (\d+): (.+)", line)
        if header:
            _set_header(streams.setdefault(int(header[2]), Stream()), header[1], header[3])
            continue
        fields = line.split(",")
        if len(fields) < 6 or not fields[0].strip().isdigit():
            continue
        stream = streams.setdefault(int(fields[0]), Stream())
        # Priming packets of audio codecs lie before zero and are not heard.
        begin = max(Fraction(0), int(fields[2]) * stream.tick)
        end = (int(fields[2]) + int(fields[3])) * stream.tick
        stream.start = begin if stream.packets == 0 else min(stream.start, begin)
        stream.end = max(stream.end, end)
        stream.packets += 1
    return [stream for _, stream in sorted(streams.items()) if stream.packets and stream.kind]


def _set_header(stream: Stream, name: str, value: str) -> None:
    if name == "tb":
        stream.tick = Fraction(value)
    elif name == "media_type":
        stream.kind = value
    elif name == "codec_id":
        stream.codec = value
    elif name == "dimensions":
        stream.width, stream.height = (int(side) for side in value.split("x"))
    elif name == "sample_rate":
        stream.sample_rate = int(value)
    elif name == "channel_layout_name":
        stream.channels = 1 if value == "mono" else 2


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The settings that `write_clip` put into the comment tag, or None where there are none.

    Raises:
        MediaError: the file is not a readable media file.
    """
    path = Path(path)
    text = ffmpeg.run(
        [*ffmpeg.reading(sniff(path), path, max_pixels=MAX_PIXELS), "-f", "ffmetadata", "pipe:1"],
        timeout=PROBE_SECONDS,
        what=f"cannot read {path.name}",
    ).decode("utf-8", "replace")
    comment = parse_ffmetadata(text).get("comment", "")
    if not comment.startswith("{") or len(comment) > MAX_SETTINGS_BYTES:
        return None
    try:
        settings = json.loads(comment)
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def parse_ffmetadata(text: str) -> dict[str, str]:
    """Global tags of an ffmetadata text, keys in lower case, escapes undone."""
    tags: dict[str, str] = {}
    for line in re.findall(r"(?:[^\\\n]|\\(?:.|\n))+", text):
        if line.startswith("["):  # chapters and streams follow
            break
        if line.startswith((";", "#")):
            continue
        key, separator, value = _split_tag(line)
        if separator:
            tags[key.lower()] = value
    return tags


def _split_tag(line: str) -> tuple[str, str, str]:
    match = re.match(r"((?:[^\\=]|\\(?:.|\n))*)(=)(.*)", line, re.DOTALL)
    if not match:
        return line, "", ""
    key, separator, value = match.groups()
    return re.sub(r"\\(.)", r"\1", key, flags=re.DOTALL), separator, re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)


def ffmetadata(tags: dict[str, str]) -> str:
    """An ffmetadata text with `tags`; `parse_ffmetadata` undoes it."""
    lines = [";FFMETADATA1"]
    lines += [f"{_escaped(key)}={_escaped(value)}" for key, value in tags.items()]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([=;#\\\n])", r"\\\1", text)

"""Frames and samples into an mp4 that players show in step.

Sync: an AAC encoder puts 1024 samples of priming in front of the sound and H.264 with B-frames starts its clock late.
ffmpeg notes both in edit lists, which ffmpeg, Chromium, Firefox, Safari, QuickTime and VLC honour: sample 0 and frame
0 both play at time 0. A player without edit lists hears the sound 1024 samples late (21 ms at 48 kHz); that cannot be
mended inside the file.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import MediaError, NumericsError, OutputError
from engine.media import ffmpeg, probe
from engine.media.loudness import check_samples, decibel, limit_peak
from engine.media.publish import atomic_file, check_target, why

log = logging.getLogger(__name__)

CRF = 16  # visually lossless for H.264
TO_BT709 = (  # RGB to what players assume for video, with the tags that say so
    "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv420p,"
    "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
)
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
AAC_BITRATE = 192_000
AAC_BITS_PER_SAMPLE = 6  # an AAC frame holds at most 6144 bits a channel for 1024 samples
OPUS_OPTIONS = ["-c:a", "libopus", "-b:a", "160k"]
CODEC_CEILING = 0.998  # highest decoded sample accepted; full scale less the rounding of 16-bit players


@dataclass(frozen=True)
class ClipFile:
    """A clip on disk.

    Attributes:
        path: the mp4.
        sidecar: the JSON file beside it, or None.
        frames, fps, width, height: of its video.
        sample_rate, samples: of its sound, per channel.
        gain: factor the sound was scaled by to stay below full scale; 1.0 when untouched.
    """

    path: Path
    sidecar: Path | None
    frames: int
    fps: float
    width: int
    height: int
    sample_rate: int
    samples: int
    gain: float

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


def write_clip(
    path: str | os.PathLike[str],
    frames: np.ndarray,
    samples: np.ndarray,
    fps: float,
    sample_rate: int,
    settings: Mapping[str, Any],
    *,
    sidecar: bool = True,
) -> ClipFile:
    """Write an mp4 (H.264 yuv420p bt709, AAC, faststart) that appears whole and verified, or not at all.

    The file is decoded again before it takes its place: both streams, the frame count and both lengths are checked.
    The sound is scaled down as a whole where needed so that no decoded sample reaches full scale.

    Args:
        path: where the mp4 goes; an older file there is replaced. The sidecar is the same name with ``.json``.
        frames: (F, H, W, 3) uint8, or float in [0, 1]; even H and W.
        samples: float (N,) or (N, channels), full scale 1, as long as the frames to within one frame.
        fps: frames per second.
        sample_rate: samples per second; a rate that AAC lacks is resampled to the next higher one it has.
        settings: what made the clip, anything JSON can hold; stored in the comment tag and in the sidecar.
        sidecar: also write the JSON file.

    Raises:
        OutputError: wrong shapes or lengths, or encoding, checking or publishing failed; no file is left behind.
        NumericsError: frames or samples that are not finite.
    """
    target = Path(path)
    check_target(target)
    text = settings_json(settings)
    frames, wave = _checked(target.name, frames, samples, fps, sample_rate)
    beside = target.with_suffix(".json") if sidecar else None
    if beside is not None:
        if beside == target:
            raise OutputError(f"cannot write {target.name}: its settings file would have the same name; end it in .mp4")
        check_target(beside)
    wave, rate = _aac_ready(wave, sample_rate)
    gain, wave = safe_level(wave, rate)
    described = False
    try:
        with atomic_file(target) as part:
            try:
                with tempfile.TemporaryDirectory(prefix="mova-") as folder:
                    _encode(part, Path(folder), target.name, frames, wave, fps, rate, text)
            except OSError as error:  # the folder for temporary files is full or gone
                raise OutputError(f"cannot write {target.name}: {why(error)} (temporary files)") from error
            verify(part, target.name, len(frames), fps, len(wave) / rate)
            if beside is not None:  # before the clip, so that nobody sees a clip without its settings
                with atomic_file(beside) as beside_part:
                    beside_part.write_text(settings_json(settings, indent=2) + "\n", encoding="utf-8", newline="\n")
                described = True
    except BaseException:
        if described and beside is not None:
            beside.unlink(missing_ok=True)
        raise
    _, height, width, _ = frames.shape
    return ClipFile(target, beside, len(frames), fps, width, height, rate, len(wave), gain)


def settings_json(settings: Mapping[str, Any], indent: int | None = None) -> str:
    """Settings as JSON text that UTF-8 can hold: lone surrogates become JSON escapes.

    Raises:
        OutputError: something in `settings` is not JSON, NaN and infinity included.
    """
    try:
        text = json.dumps(dict(settings), ensure_ascii=False, allow_nan=False, indent=indent)
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(f"the settings cannot be stored as JSON: {error}") from error
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _checked(
    name: str, frames: np.ndarray, samples: np.ndarray, fps: float, sample_rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shapes, types and lengths; samples as float32 (N, channels)."""
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise OutputError(f"cannot write {name}: frames must have shape (F, H, W, 3), not {frames.shape}")
    if frames.dtype != np.uint8 and frames.dtype.kind != "f":
        raise OutputError(f"cannot write {name}: frames must be uint8 or float, not {frames.dtype}")
    _, height, width, _ = frames.shape
    if height % 2 or width % 2 or not height or not width:
        even = f"{max(2, width + width % 2)}x{max(2, height + height % 2)}"
        raise OutputError(f"cannot write {name}: H.264 needs even sizes, not {width}x{height}; {even} would do")
    if not (np.isfinite(fps) and 0 < fps <= 240):
        raise OutputError(f"cannot write {name}: fps must lie between 0 and 240, not {fps}")
    if not 1000 <= sample_rate <= 384_000:
        raise OutputError(f"cannot write {name}: the sample rate must lie between 1000 and 384000, not {sample_rate}")
    try:
        wave = check_samples(samples)
    except ValueError as error:
        raise OutputError(f"cannot write {name}: {error}") from error
    video, audio = len(frames) / fps, len(wave) / sample_rate
    if abs(video - audio) > 1 / fps:
        raise OutputError(f"cannot write {name}: {video:.3f} s of picture but {audio:.3f} s of sound")
    return frames, wave


def frame_bytes(frames: np.ndarray) -> Iterator[bytes]:
    """Frames (F, H, W, 3), uint8 or float in [0, 1], one by one as RGB bytes.

    Raises:
        NumericsError: a float frame that is not finite.
        OutputError: a float frame outside [0, 1].
    """
    for index, frame in enumerate(frames):
        if frame.dtype == np.uint8:
            yield frame.tobytes()
            continue
        low, high = float(frame.min()), float(frame.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise NumericsError(f"frame {index} of {len(frames)} has pixels that are not finite")
        if low < -0.01 or high > 1.01:
            raise OutputError(f"frame {index} lies in [{low:.3g}, {high:.3g}]; float frames must lie in [0, 1]")
        yield np.rint(np.clip(frame.astype(np.float32, copy=False), 0, 1) * 255).astype(np.uint8).tobytes()


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Samples (N, channels) at another rate, exactly round(N * new_rate / rate) of them.

    Raises:
        MediaError: ffmpeg failed.
    """
    if rate == new_rate:
        return wave
    channels = wave.shape[1]
    raw = ffmpeg.run(
        [
            *("-f", "f32le", "-ar", str(rate), "-ac", str(channels), "-i", "pipe:0"),
            *("-af", f"aresample={new_rate}:filter_size=64:precision=28", "-f", "f32le", "pipe:1"),
        ],
        feed=[wave.tobytes()],
        timeout=60 + len(wave) / rate,
        max_output=1 << 31,
        what="cannot resample the sound",
    )
    out = np.frombuffer(raw, np.float32).reshape(-1, channels)
    length = round(len(wave) * new_rate / rate)
    return np.pad(out[:length], ((0, max(0, length - len(out))), (0, 0)))


def _aac_ready(wave: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Samples at a rate that AAC has."""
    if rate in AAC_RATES:
        return wave, rate
    better = next((valid for valid in AAC_RATES if valid > rate), AAC_RATES[-1])
    log.info("AAC has no %d Hz; the sound is resampled to %d Hz", rate, better)
    try:
        return resample(wave, rate, better), better
    except MediaError as error:
        raise OutputError(str(error)) from error


def aac_options(rate: int, channels: int) -> list[str]:
    """AAC at 192 kbit/s, or the most its frames can hold at low rates."""
    bitrate = min(AAC_BITRATE, AAC_BITS_PER_SAMPLE * rate * channels)
    return ["-c:a", "aac", "-b:a", str(bitrate)]


def safe_level(wave: np.ndarray, rate: int, codec: str = "aac") -> tuple[float, np.ndarray]:
    """Scale (N, channels) so that neither it nor its decoding reaches full scale; returns the gain and the samples.

    The ripple of lossy codecs on noise and square waves can exceed the 1 dB of `limit_peak`, so a loud sound is encoded
    once by itself, decoded and measured. Quiet clips are not touched.

    Args:
        wave: float32, full scale 1.
        rate: samples per second.
        codec: "aac" or "opus".
    """
    before = float(np.max(np.abs(wave), initial=0.0))
    limited = limit_peak(wave)
    for _ in range(5):
        if float(np.max(np.abs(limited), initial=0.0)) < 0.25:  # no codec adds 12 dB
            break
        decoded = decoded_peak(limited, rate, codec)
        if decoded <= CODEC_CEILING:
            break
        limited = limited * np.float32(0.97 * CODEC_CEILING / decoded)
    after = float(np.max(np.abs(limited), initial=0.0))
    gain = after / before if before > 0 else 1.0
    if gain < 1.0:
        log.info("sound scaled by %.1f dB to stay below full scale", decibel(gain))
    return gain, limited


def decoded_peak(wave: np.ndarray, rate: int, codec: str) -> float:
    """Highest absolute sample of (N, channels) after encoding and decoding it again."""
    channels = wave.shape[1]
    options = aac_options(rate, channels) if codec == "aac" else OPUS_OPTIONS
    container, demuxer = ("adts", "aac") if codec == "aac" else ("ogg", "ogg")
    timeout = 60 + len(wave) / rate
    what = "cannot encode the sound"
    encoded = ffmpeg.run(
        ["-f", "f32le", "-ar", str(rate), "-ac", str(channels), "-i", "pipe:0", *options, "-f", container, "pipe:1"],
        feed=[wave.tobytes()],
        timeout=timeout,
        error=OutputError,
        what=what,
    )
    decoded = ffmpeg.run(
        ["-f", demuxer, "-i", "pipe:0", "-f", "f32le", "pipe:1"],
        feed=[memoryview(encoded)],
        timeout=timeout,
        max_output=1 << 31,
        error=OutputError,
        what=what,
    )
    return float(np.max(np.abs(np.frombuffer(decoded, np.float32)), initial=0.0))


def _encode(
    part: Path, folder: Path, name: str, frames: np.ndarray, wave: np.ndarray, fps: float, rate: int, text: str
) -> None:
    """Run ffmpeg once: frames through a pipe, sound and settings from files in `folder`."""
    count, height, width, _ = frames.shape
    sound, tags = folder / "sound.f32", folder / "tags.txt"
    sound.write_bytes(wave.tobytes())
    if len(text.encode()) > probe.MAX_SETTINGS_BYTES:
        log.warning("the settings are too long for a comment tag; only the sidecar holds them")
        text = ""
    tags.write_text(probe.ffmetadata({"comment": text} if text else {}), encoding="utf-8", newline="\n")
    ffmpeg.run(
        [
            *("-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}"),
            *("-framerate", str(Fraction(fps).limit_denominator(1001)), "-i", "pipe:0"),
            *("-f", "f32le", "-ar", str(rate), "-ac", str(wave.shape[1]), "-i", ffmpeg.local(sound)),
            *("-f", "ffmetadata", "-i", ffmpeg.local(tags)),
            *("-map", "0:v:0", "-map", "1:a:0", "-map_metadata", "2"),
            *("-vf", TO_BT709),
            *("-c:v", "libx264", "-preset", "medium", "-crf", str(CRF)),
            *aac_options(rate, wave.shape[1]),
            *("-movflags", "+faststart", "-f", "mp4", "-y", ffmpeg.local(part)),
        ],
        feed=frame_bytes(frames),
        # Generous: a slow laptop encodes a million pixels in a tenth of a second.
        timeout=120 + count * width * height * 1e-5,
        error=OutputError,
        what=f"cannot write {name}",
    )


def verify(part: Path, name: str, count: int, fps: float, seconds: float, demuxer: str = "mov") -> None:
    """Decode a new file in full; a result that is not what was asked for is an error, never a silent video.

    Args:
        part: the file.
        name: what error messages call it.
        count, fps: frames it must hold.
        seconds: how long its sound must be, to within a frame.
        demuxer: container, in ffmpeg's words.

    Raises:
        OutputError: a stream is missing, short, long or late.
    """
    what = f"cannot verify {name}"
    listing = ffmpeg.run(
        [
            *("-xerror", "-protocol_whitelist", "file", "-f", demuxer, "-i", ffmpeg.local(part)),
            *("-map", "0:v:0", "-map", "0:a:0", "-fps_mode", "passthrough", "-f", "framecrc", "pipe:1"),
        ],
        timeout=120 + count,
        error=OutputError,
        what=what,
    ).decode("ascii", "replace")
    streams = {stream.kind: stream for stream in probe.parse_framecrc(listing)}
    if set(streams) != {"video", "audio"}:
        raise OutputError(f"{what}: it holds {' and '.join(streams) or 'nothing'} where video and audio belong")
    video, audio = streams["video"], streams["audio"]
    if video.packets != count:
        raise OutputError(f"{what}: it holds {video.packets} frames instead of {count}")
    frame = 1 / fps
    for stream, wanted in ((video, count / fps), (audio, seconds)):
        if stream.start > frame / 2 or abs(stream.end - wanted) > frame:
            span = f"{float(stream.start):.3f} to {float(stream.end):.3f} s"
            raise OutputError(f"{what}: its {stream.kind} runs from {span} instead of 0 to {wanted:.3f} s")
    if abs(video.end - audio.end) > frame:
        raise OutputError(f"{what}: {float(video.end):.3f} s of picture but {float(audio.end):.3f} s of sound")

"""Cutting, joining, gain and fades of clips in memory: moviepy holds the time line, pydub shapes the sound.

Both libraries look up frames and samples by time; the functions given to them here round to the nearest frame or
sample, so that nothing is shifted, doubled or dropped by floating-point times.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import MediaError
from engine.media import ffmpeg
from engine.media.loudness import PEAK_CEILING, check_samples, decibel
from engine.media.mux import resample
from engine.media.read import Clip

if TYPE_CHECKING:
    from moviepy import VideoClip
    from pydub import AudioSegment

INT32_SCALE = 2**31 - 1
TIME_SLACK = 1e-7  # seconds added to durations: moviepy truncates duration * fps, and 193 / 24 * 24 may be below 193


def load_pydub() -> ModuleType:
    """pydub, told where ffmpeg is.

    At import it warns of an ffmpeg that is not on the PATH and, by way of `audioop`, of Python 3.13; both are known:
    the binary is set here, and audioop-lts is installed where Python no longer has it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pydub
    pydub.AudioSegment.converter = ffmpeg.program()
    return pydub


def to_moviepy(clip: Clip) -> VideoClip:
    """A clip as moviepy's time line, sound included, exact to the frame and the sample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # moviepy's own source, when compiled for the first time
        from moviepy import AudioClip, VideoClip

    def frame_at(t: float) -> np.ndarray:
        return np.asarray(clip.frames[min(round(t * clip.fps), len(clip.frames) - 1)])

    duration = clip.seconds + TIME_SLACK
    video: VideoClip = VideoClip(frame_function=frame_at, duration=duration).with_fps(clip.fps)
    if not len(clip.samples):
        return video
    wave = check_samples(clip.samples)

    def samples_at(t: Any) -> np.ndarray:
        index = np.rint(np.asarray(t) * clip.sample_rate).astype(np.int64)
        # The sound may be a sample shorter than the pictures: silence follows it.
        inside = (index >= 0) & (index < len(wave))
        values: np.ndarray = wave[np.clip(index, 0, len(wave) - 1)] * inside[..., None]
        return values

    return video.with_audio(AudioClip(frame_function=samples_at, duration=duration, fps=clip.sample_rate))


def from_moviepy(line: VideoClip, frames: int, like: Clip) -> Clip:
    """Sample a time line into a clip of `frames` pictures with the rates and the settings of `like`."""
    pictures = np.stack([line.get_frame(index / like.fps) for index in range(frames)])
    if line.audio is None:
        return Clip(pictures, like.samples[:0], like.fps, like.sample_rate, like.settings)
    times = np.arange(round(frames / like.fps * like.sample_rate)) / like.sample_rate
    samples = np.asarray(line.audio.get_frame(times), np.float32)
    return Clip(
        pictures, samples[:, 0] if like.samples.ndim == 1 else samples, like.fps, like.sample_rate, like.settings
    )


def trim(clip: Clip, start: float, end: float) -> Clip:
    """The part of a clip from `start` to `end` seconds, each moved to the nearest frame boundary.

    Raises:
        MediaError: less than one frame is left, or the part reaches outside the clip by half a frame or more.
    """
    first, last = round(start * clip.fps), round(end * clip.fps)
    if not 0 <= first < last <= len(clip.frames):
        raise MediaError(f"cannot trim to {start:g}-{end:g} s: the clip lasts from 0 to {clip.seconds:.2f} s")
    line = to_moviepy(clip).subclipped(first / clip.fps, last / clip.fps)
    return from_moviepy(line, last - first, clip)


def join(clips: Sequence[Clip]) -> Clip:
    """Clips one after another, with the rates and settings of the first; sounds at other rates are resampled.

    Raises:
        MediaError: no clips, or their sizes or frame rates differ.
    """
    if not clips:
        raise MediaError("nothing to join")
    from moviepy import concatenate_videoclips

    first = clips[0]
    rate = next((clip.sample_rate for clip in clips if clip.sample_rate), 0)
    lines = []
    for number, clip in enumerate(clips, 1):
        if clip.frames.shape[1:] != first.frames.shape[1:] or abs(clip.fps - first.fps) > 1e-3:
            raise MediaError(
                f"cannot join: clip {number} is {_shape(clip)}, the first is {_shape(first)}; make them alike"
            )
        lines.append(to_moviepy(_with_sound(clip, rate)))
    # A joint time line with exact boundaries: slack would add up from clip to clip.
    lines = [line.with_duration(clip.seconds) for line, clip in zip(lines, clips, strict=True)]
    like = Clip(first.frames, np.zeros((0, 2), np.float32), first.fps, rate, first.settings)
    return from_moviepy(concatenate_videoclips(lines), sum(len(clip.frames) for clip in clips), like)


def _shape(clip: Clip) -> str:
    return f"{clip.frames.shape[2]}x{clip.frames.shape[1]} at {clip.fps:g} fps"


def _with_sound(clip: Clip, rate: int) -> Clip:
    """The clip with stereo sound at `rate`; silence where it has none."""
    if not rate:
        return clip
    if not len(clip.samples):
        wave = np.zeros((round(clip.seconds * rate), 2), np.float32)
    else:
        wave = resample(check_samples(clip.samples), clip.sample_rate, rate)
        wave = np.repeat(wave, 2, axis=1) if wave.shape[1] == 1 else wave[:, :2]
    return Clip(clip.frames, wave, clip.fps, rate, clip.settings)


def to_pydub(samples: np.ndarray, rate: int) -> AudioSegment:
    """Float samples (N,) or (N, channels) as a 32-bit pydub segment, clipped at full scale."""
    wave = np.clip(check_samples(samples).astype(np.float64), -1.0, 1.0)
    data = np.rint(wave * INT32_SCALE).astype("<i4").tobytes()
    return load_pydub().AudioSegment(data=data, sample_width=4, frame_rate=rate, channels=wave.shape[1])


def gain_and_fades(
    samples: np.ndarray, rate: int, *, gain_db: float = 0.0, fade_in: float = 0.0, fade_out: float = 0.0
) -> np.ndarray:
    """Sound with another level and with fades.

    Args:
        samples: float (N,) or (N, channels), full scale 1.
        rate: samples per second.
        gain_db: change of level; less is added where the peak would exceed -1 dBFS.
        fade_in, fade_out: seconds, each at most the length of the sound.

    Returns:
        float32 of the shape of `samples`.

    Raises:
        NumericsError: samples that are not finite.
    """
    segment = shaped(to_pydub(samples, rate), gain_db, fade_in, fade_out)
    values = np.frombuffer(segment.raw_data, "<i4").astype(np.float64) / INT32_SCALE
    return values.reshape(np.shape(samples)).astype(np.float32)


def shaped(segment: AudioSegment, gain_db: float, fade_in: float, fade_out: float) -> AudioSegment:
    """`gain_and_fades` on a pydub segment."""
    if gain_db > 0 and segment.max > 0:  # pydub saturates: never ask for more than fits
        gain_db = min(gain_db, max(0.0, decibel(PEAK_CEILING) - segment.max_dBFS))
    if gain_db:
        segment = segment.apply_gain(gain_db)
    length = len(segment)  # milliseconds
    if fade_in > 0:
        segment = segment.fade_in(min(round(fade_in * 1000), length))
    if fade_out > 0:
        segment = segment.fade_out(min(round(fade_out * 1000), length))
    return segment

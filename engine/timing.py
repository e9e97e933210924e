"""One time base for picture and sound: every length in the engine is derived here.

Frames are counted in pictures, samples in audio samples, latents in steps of the two VAEs. Sources: MOVA
(arXiv 2602.08794) for the default clip; the VAEs' own configs for strides and hops.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_FPS = 24.0  # frames per second of the released weights
DEFAULT_FRAMES = 193  # 8.04 s at 24 fps
TEMPORAL_STRIDE = 4  # frames per latent frame after the first, in the released video VAE


def nearest_frame_count(frames: int, stride: int = TEMPORAL_STRIDE) -> int:
    """The valid count (stride * k + 1, k >= 1) closest to `frames`; ties go to the shorter clip."""
    k = max(1, -(-(frames - 1 - stride // 2) // stride))
    return stride * k + 1


def seconds_to_frames(seconds: float, fps: float, stride: int = TEMPORAL_STRIDE) -> int:
    """The valid frame count whose duration lies closest to `seconds`."""
    return nearest_frame_count(round(seconds * fps), stride)


def latent_frames(frames: int, stride: int = TEMPORAL_STRIDE) -> int:
    """Latent frames of a clip: the first frame alone, then one per `stride` frames."""
    return (frames - 1) // stride + 1


def audio_samples(frames: int, fps: float, sample_rate: int) -> int:
    """Audio samples that last exactly as long as `frames` pictures, to the nearest sample."""
    return round(frames / fps * sample_rate)


def audio_latents(samples: int, hop: int) -> int:
    """Latent steps that cover `samples`; the last one may be partly past the end."""
    return -(-samples // hop)


@dataclass(frozen=True)
class ClipLength:
    """All lengths of one clip, derived from each other.

    Attributes:
        frames: pictures.
        fps: pictures per second.
        sample_rate: audio samples per second.
        hop: audio samples per audio latent.
        stride: pictures per latent frame.
    """

    frames: int
    fps: float
    sample_rate: int
    hop: int
    stride: int = TEMPORAL_STRIDE

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def latent_frames(self) -> int:
        return latent_frames(self.frames, self.stride)

    @property
    def samples(self) -> int:
        return audio_samples(self.frames, self.fps, self.sample_rate)

    @property
    def audio_latents(self) -> int:
        return audio_latents(self.samples, self.hop)

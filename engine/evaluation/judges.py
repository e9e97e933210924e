"""Referees: two small networks that look at a clip and listen to it, each on its own.

``Eye`` sees frames: which family, colour and background, and for each frame whether something happens. ``Ear`` hears
which family makes the sound. Neither gets the other's side, so that agreement between them means something. Both are
trained on rendered clips with blur, noise and ghosting like a generator's (``train_referee``), and their figures on
unseen rendered clips are tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from engine.evaluation.onsets import RATE, resample
from engine.training.demo_world.clip import BACKGROUNDS, COLOURS, FAMILIES, JITTER, PERIODS

Array = np.ndarray

WEIGHTS = Path(__file__).with_name("referee.safetensors")
EYE_SIZE = 48  # pixels a side that the eye looks at
EYE_FPS = 24.0  # frames a second it was trained on
BANDS = 40  # mel bands the ear listens to
MEL_WINDOW, MEL_HOP = 512, 160  # samples: 32 ms every 10 ms
LOUD_RANGE = 7.0  # natural log units under the loudest mel value that still count
EVENT_LEVEL = 0.35  # probability from which a peak is an event
EVENT_GAP = 0.25  # s between two events, shorter than the shortest interval of the world (0.44 s)


class Eye(nn.Module):
    """Frames (batch, frames, 3, 48, 48) in 0..1 to what is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(8, 24, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.gather = nn.Linear(64 * 11, 96)  # mean, maximum and a 3x3 grid of means
        self.follow = nn.Sequential(
            nn.Conv1d(96, 96, 5, padding=2), nn.ReLU(), nn.Conv1d(96, 96, 5, padding=2), nn.ReLU()
        )  # fmt: skip
        self.event = nn.Conv1d(96, 1, 3, padding=1)
        self.judge = nn.Sequential(nn.Linear(64 * 2 + 96 * 2, 128), nn.ReLU(), nn.Dropout(0.1))
        self.family = nn.Linear(128, len(FAMILIES))
        self.colour = nn.Linear(128, len(COLOURS))
        self.background = nn.Linear(128, len(BACKGROUNDS))

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """``family``, ``colour``, ``background``: logits (batch, classes); ``event``: logits (batch, frames)."""
        batch, count = frames.shape[:2]
        change = torch.diff(frames, dim=1, prepend=frames[:, :1])
        ramp = torch.linspace(-1.0, 1.0, EYE_SIZE, device=frames.device, dtype=frames.dtype)
        place = torch.stack([ramp[None].expand(EYE_SIZE, -1), ramp[:, None].expand(-1, EYE_SIZE)])
        place = place.expand(batch, count, -1, -1, -1)
        seen = torch.cat([frames * 2.0 - 1.0, change * 2.0, place], dim=2).flatten(0, 1)
        seen = self.look(seen)
        middle, most = seen.mean((2, 3)), seen.amax((2, 3))
        grid = functional.adaptive_avg_pool2d(seen, 3).flatten(1)
        steps = torch.relu(self.gather(torch.cat([middle, most, grid], 1))).unflatten(0, (batch, count))
        course = self.follow(steps.transpose(1, 2))
        whole = torch.cat(
            [
                middle.unflatten(0, (batch, count)).mean(1),
                most.unflatten(0, (batch, count)).mean(1),
                course.mean(2),
                steps.mean(1),
            ],
            1,
        )
        verdict = self.judge(whole)
        return {
            "family": self.family(verdict),
            "colour": self.colour(verdict),
            "background": self.background(verdict),
            "event": self.event(course)[:, 0],
        }


class Ear(nn.Module):
    """Log-mel values (batch, 40, steps) to logits of the family that sounds so."""

    def __init__(self) -> None:
        super().__init__()
        self.listen = nn.Sequential(
            nn.Conv1d(BANDS, 64, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Conv1d(64, 64, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Conv1d(64, 64, 3, padding=1, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
        )
        self.judge = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, len(FAMILIES)))

    def forward(self, mel: Tensor) -> Tensor:
        heard = self.listen(mel)
        return self.judge(torch.cat([heard.mean(2), heard.amax(2)], 1))


@dataclass(frozen=True)
class Seen:
    """What the eye found in one clip. ``events`` are times in seconds."""

    family: str
    colour: str
    background: str
    tempo: str
    events: tuple[float, ...]


class Referee:
    """Both judges with their weights."""

    def __init__(self, eye: Eye, ear: Ear) -> None:
        self.eye, self.ear = eye.eval(), ear.eval()

    @torch.inference_mode()
    def see(self, frames: Array, fps: float) -> Seen:
        """Judge a picture, (frames, height, width, 3), uint8 or float 0..1, of any size and rate."""
        small = eye_frames(frames, fps)
        found = self.eye(small[None])
        chance = torch.sigmoid(found["event"][0]).numpy()
        events = event_peaks(chance, EYE_FPS)
        return Seen(
            family=FAMILIES[int(found["family"].argmax())],
            colour=COLOURS[int(found["colour"].argmax())],
            background=BACKGROUNDS[int(found["background"].argmax())],
            tempo=tempo_of(events),
            events=tuple(float(time) for time in events),
        )

    @torch.inference_mode()
    def hear(self, audio: Array, rate: int) -> str | None:
        """The family that makes this sound, (samples,); None for silence."""
        wave = torch.from_numpy(resample(audio, rate).astype(np.float32))
        if len(wave) < MEL_WINDOW or not torch.isfinite(wave).all() or float(wave.abs().max()) < 1e-3:
            return None
        return FAMILIES[int(self.ear(log_mel(wave[None])).argmax())]


@cache
def load_referee() -> Referee:
    """The referee with the weights that lie beside this file."""
    eye, ear = Eye(), Ear()
    tensors = {name: value.float() for name, value in load_file(WEIGHTS).items()}
    for part, network in (("eye.", eye), ("ear.", ear)):
        state = {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
        missing, unexpected = network.load_state_dict(state, strict=False)
        # the counters of batch normalisation are not stored: they mean nothing once training is over
        wrong = [name for name in missing if not name.endswith("num_batches_tracked")] + list(unexpected)
        if wrong:
            raise ValueError(f"{WEIGHTS.name} does not fit the referee: {', '.join(wrong)}")
    return Referee(eye, ear)


def eye_frames(frames: Array, fps: float) -> Tensor:
    """The middle square of a clip as the eye takes it: (frames at 24 fps, 3, 48, 48), float 0..1."""
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"a picture must be (frames, height, width, 3), not {frames.shape}")
    if abs(fps - EYE_FPS) > 0.01:
        count = max(1, round(len(frames) / fps * EYE_FPS))
        frames = frames[np.clip(np.round(np.arange(count) * fps / EYE_FPS), 0, len(frames) - 1).astype(int)]
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(np.ascontiguousarray(frames[:, top : top + side, left : left + side]))
    square = square.float() / 255.0 if square.dtype == torch.uint8 else square.float()
    return functional.interpolate(square.permute(0, 3, 1, 2), (EYE_SIZE, EYE_SIZE), mode="area")


def event_peaks(chance: Array, fps: float) -> Array:
    """Times (s) of the peaks of a probability per frame, refined between frames by the weight of their neighbours."""
    times: list[float] = []
    left = np.asarray(chance, np.float64).copy()
    reach = int(np.ceil(EVENT_GAP * fps)) - 1
    while True:
        top = int(left.argmax())
        if left[top] < EVENT_LEVEL:
            break
        near = slice(max(0, top - 1), top + 2)
        weights = np.asarray(chance, np.float64)[near]
        times.append(float((np.arange(len(chance))[near] * weights).sum() / weights.sum()) / fps)
        left[max(0, top - reach) : top + reach + 1] = 0.0
    return np.sort(np.asarray(times))


def tempo_of(events: Array) -> str:
    """The tempo class of events: the nearest period to their median interval, on a ratio scale.

    Two seconds with fewer than two events can only be slow.
    """
    if len(events) < 2:
        return "slow"
    gap = float(np.median(np.diff(np.sort(events))))
    return min(PERIODS, key=lambda name: abs(np.log(gap / PERIODS[name])))


def events_due(tempo: str | None, seconds: float) -> int:
    """How many events a clip of this tempo shows at the very least, away from its last two frames."""
    period = PERIODS[tempo or "slow"]
    rest = seconds - 2.0 / EYE_FPS - period * (1.0 - JITTER)  # after the latest possible first event
    return max(1, 1 + int(rest // (period * (1.0 + JITTER))))


@cache
def _mel_filters() -> Tensor:
    """Triangles on the mel scale from 40 Hz to the top, (BANDS, MEL_WINDOW // 2 + 1)."""
    top = 2595.0 * np.log10(1.0 + (RATE / 2) / 700.0)
    low = 2595.0 * np.log10(1.0 + 40.0 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(low, top, BANDS + 2) / 2595.0) - 1.0)
    bins = np.arange(MEL_WINDOW // 2 + 1) * RATE / MEL_WINDOW
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(up, down))
    # the lowest bands are narrower than a bin: each still hears the bin nearest to it
    for band in np.flatnonzero(triangles.sum(1) == 0):
        triangles[band, int(np.abs(bins - edges[band + 1]).argmin())] = 1.0
    return torch.from_numpy(triangles.astype(np.float32))


def log_mel(waves: Tensor) -> Tensor:
    """Waves (batch, samples) at 16 kHz to log-mel values (batch, BANDS, steps), the loudest of each clip at 1."""
    window = torch.hann_window(MEL_WINDOW, device=waves.device)
    spectrum = torch.stft(waves, MEL_WINDOW, MEL_HOP, window=window, return_complex=True).abs()
    mel = torch.log(_mel_filters().to(waves.device) @ spectrum.square() + 1e-10)
    loudest = mel.amax((1, 2), keepdim=True)
    return torch.clamp((mel - loudest) / LOUD_RANGE + 1.0, min=-1.0)

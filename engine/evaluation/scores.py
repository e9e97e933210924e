"""Scores of clips: what was asked for, what is seen and heard, and whether both belong together.

``score_clips`` judges every clip with the referee and adds up; ``table`` and ``to_json`` show the result.

    object, colour, background, tempo    share of clips in which the eye finds what the caption promises
    sound                                share of clips in which the ear hears the family that is promised
    found                                share of the events due at the promised tempo that the eye finds
    sync                                 min(events_heard, onsets_seen), see ``sync``
    shuffled, shifted                    the same with the sound of other clips of the family, or 5 frames late
    first_frame_db                       PSNR of the first frame against the picture that was given
    flicker                              second difference in time of pixels that should stand still, of 255
    loudness_db                          RMS over the whole clip, dB under full scale
    diversity                            RMS distance between clips of one prompt with other seeds, of 255
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations

import numpy as np

from engine.evaluation.judges import Referee, events_due, load_referee
from engine.evaluation.onsets import find_onsets
from engine.evaluation.sync import Match, match, shifted
from engine.training.demo_world.captions import Promise, parse_caption

Array = np.ndarray


@dataclass(frozen=True)
class Clip:
    """What is to be judged.

    Attributes:
        frames: (frames, height, width, 3), uint8 or float 0..1.
        audio: (samples,) float.
        prompt: the caption it was made from.
        promise: what the caption promises; read from the prompt if not given.
        image: the first frame that was given, (height, width, 3), if any.
    """

    frames: Array
    audio: Array
    fps: float
    sample_rate: int
    prompt: str = ""
    seed: int = 0
    promise: Promise | None = None
    image: Array | None = None

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.fps

    @property
    def asked(self) -> Promise:
        return self.promise if self.promise is not None else parse_caption(self.prompt)


@dataclass(frozen=True)
class ClipScore:
    """The judges' words on one clip. An attribute is None where the caption promises nothing."""

    prompt: str
    seed: int
    family: str
    seen: dict[str, str]
    heard: str | None
    object: bool | None
    colour: bool | None
    background: bool | None
    tempo: bool | None
    sound: bool | None
    events: tuple[float, ...]
    onsets: tuple[float, ...]
    due: int
    sync: float
    first_frame_db: float | None
    flicker: float
    loudness_db: float


@dataclass(frozen=True)
class FamilyScore:
    """Shares over the clips of one family, or over all."""

    clips: int
    object: float | None
    colour: float | None
    background: float | None
    tempo: float | None
    sound: float | None
    found: float
    sync: float
    events_heard: float
    onsets_seen: float
    shuffled: float | None
    shifted: float
    median_offset_ms: float | None
    first_frame_db: float | None
    flicker: float
    loudness_db: float
    diversity: float | None


@dataclass(frozen=True)
class Scores:
    """Figures over all clips, per family, and each clip's own."""

    overall: FamilyScore
    families: dict[str, FamilyScore]
    clips: tuple[ClipScore, ...] = field(repr=False)


def score_clips(
    clips: Sequence[Clip], referee: Referee | None = None, progress: Callable[[int], None] | None = None
) -> Scores:
    """Judge clips. ``progress`` is called with the number of clips done. Families are those the captions name;
    clips whose caption names none are counted where the eye puts them, without an opinion on the object."""
    if not clips:
        raise ValueError("there is no clip to score")
    referee = referee or load_referee()
    judged = []
    for done, clip in enumerate(clips, 1):
        judged.append(judge_clip(clip, referee))
        if progress is not None:
            progress(done)
    names = sorted({score.family for score in judged})
    families = {}
    for name in names:
        rows = [index for index, score in enumerate(judged) if score.family == name]
        families[name] = _summary([clips[index] for index in rows], [judged[index] for index in rows])
    overall = _summary(list(clips), judged)
    return Scores(overall=overall, families=families, clips=tuple(judged))


def judge_clip(clip: Clip, referee: Referee) -> ClipScore:
    """One clip before the judges."""
    asked = clip.asked
    seen = referee.see(clip.frames, clip.fps)
    heard = referee.hear(clip.audio, clip.sample_rate)
    onsets = find_onsets(clip.audio, clip.sample_rate)
    due = events_due(asked.tempo, clip.seconds)
    paired = match(np.array(seen.events), onsets, clip.seconds, clip.fps, due)

    def kept(promised: str | None, found: str | None) -> bool | None:
        return None if promised is None else promised == found

    return ClipScore(
        prompt=clip.prompt,
        seed=clip.seed,
        family=asked.family or seen.family,
        seen={name: str(getattr(seen, name)) for name in ("family", "colour", "background", "tempo")},
        heard=heard,
        object=kept(asked.family, seen.family),
        colour=kept(asked.colour, seen.colour),
        background=kept(asked.background, seen.background),
        # a clip in which nothing happens has no tempo, whatever the rule for single events says
        tempo=kept(asked.tempo, seen.tempo if seen.events else None),
        sound=kept(asked.family, heard),
        events=seen.events,
        onsets=tuple(float(time) for time in onsets),
        due=due,
        sync=paired.sync,
        first_frame_db=None if clip.image is None else first_frame_psnr(clip.frames[0], clip.image),
        flicker=flicker(clip.frames),
        loudness_db=loudness(clip.audio),
    )


def _summary(clips: list[Clip], judged: list[ClipScore]) -> FamilyScore:
    matched, late, mixed = Match(), Match(), Match()
    for index, (clip, score) in enumerate(zip(clips, judged, strict=True)):
        events, onsets = np.array(score.events), np.array(score.onsets)
        matched += match(events, onsets, clip.seconds, clip.fps, score.due)
        late += match(events, shifted(onsets, clip.seconds, clip.fps), clip.seconds, clip.fps, score.due)
        for other in _others(index, judged):
            mixed += match(events, np.array(judged[other].onsets), clip.seconds, clip.fps, score.due)
    return FamilyScore(
        clips=len(clips),
        object=_share([score.object for score in judged]),
        colour=_share([score.colour for score in judged]),
        background=_share([score.background for score in judged]),
        tempo=_share([score.tempo for score in judged]),
        sound=_share([score.sound for score in judged]),
        found=sum(min(len(score.events), score.due) for score in judged) / sum(score.due for score in judged),
        sync=matched.sync,
        events_heard=matched.events_heard,
        onsets_seen=matched.onsets_seen,
        shuffled=mixed.sync if len(clips) > 1 else None,
        shifted=late.sync,
        median_offset_ms=matched.median_offset_ms,
        first_frame_db=_mean([score.first_frame_db for score in judged]),
        flicker=float(np.mean([score.flicker for score in judged])),
        loudness_db=float(np.mean([score.loudness_db for score in judged])),
        diversity=diversity(clips),
    )


def _others(index: int, judged: list[ClipScore], most: int = 8) -> list[int]:
    """Clips whose sound is tried on this clip: of its own family, evenly spread, at most ``most``."""
    same = [i for i, score in enumerate(judged) if i != index and score.family == judged[index].family]
    same = same or [i for i in range(len(judged)) if i != index]
    start = sum(1 for i in same if i < index)
    step = max(1, len(same) // most)
    return [same[(start + k * step) % len(same)] for k in range(min(most, len(same)))]


def _share(verdicts: list[bool | None]) -> float | None:
    counted = [verdict for verdict in verdicts if verdict is not None]
    return sum(counted) / len(counted) if counted else None


def _mean(values: list[float | None]) -> float | None:
    counted = [value for value in values if value is not None]
    return float(np.mean(counted)) if counted else None


# ---- plain measures of pixels and samples


def _unit(pixels: Array) -> Array:
    pixels = np.asarray(pixels)
    return pixels.astype(np.float32) / 255.0 if pixels.dtype == np.uint8 else pixels.astype(np.float32)


def first_frame_psnr(frame: Array, image: Array) -> float:
    """dB between two pictures of one size; 99 for equal ones."""
    frame, image = _unit(frame), _unit(image)
    if frame.shape != image.shape:
        raise ValueError(f"the first frame is {frame.shape}, the picture that was given {image.shape}")
    error = float(np.mean((frame - image) ** 2))
    return min(99.0, -10.0 * float(np.log10(max(error, 1e-12))))


def flicker(frames: Array) -> float:
    """Mean size of the second difference in time, of 255, over the half of the pixels that change least."""
    video = _unit(frames).mean(-1)
    if len(video) < 3:
        return 0.0
    still = video.std(0)
    quiet = still <= np.median(still)
    second = np.abs(video[2:] - 2.0 * video[1:-1] + video[:-2])
    return float(second[:, quiet].mean()) * 255.0


def loudness(audio: Array) -> float:
    """RMS in dB under full scale; -120 for silence."""
    power = float(np.mean(np.square(np.asarray(audio, np.float64)))) if len(audio) else 0.0
    return 10.0 * float(np.log10(max(power, 1e-12)))


def diversity(clips: Sequence[Clip]) -> float | None:
    """Mean RMS distance, of 255, between clips of one prompt; None where no prompt has two of them."""
    groups: dict[str, list[Array]] = {}
    for clip in clips:
        frames = _unit(clip.frames)[::4, ::4, ::4]
        groups.setdefault(clip.prompt, []).append(frames)
    far = [
        float(np.sqrt(np.mean((first - second) ** 2)))
        for group in groups.values()
        for first, second in combinations(group[:12], 2)
        if first.shape == second.shape
    ]
    return float(np.mean(far)) * 255.0 if far else None


# ---- showing the result

_COLUMNS = (
    ("clips", "clips", "d"),
    ("object", "object", ".2f"),
    ("colour", "colour", ".2f"),
    ("background", "backgr.", ".2f"),
    ("tempo", "tempo", ".2f"),
    ("sound", "sound", ".2f"),
    ("found", "found", ".2f"),
    ("sync", "sync", ".2f"),
    ("shuffled", "shuffled", ".2f"),
    ("shifted", "shifted", ".2f"),
    ("median_offset_ms", "offset ms", ".0f"),
    ("first_frame_db", "frame dB", ".1f"),
    ("flicker", "flicker", ".2f"),
    ("loudness_db", "loud dB", ".1f"),
    ("diversity", "diverse", ".1f"),
)


def table(scores: Scores) -> str:
    """The scores as text, a line per family and one for all."""
    lines = [["", *(title for _, title, _ in _COLUMNS)]]
    for name, row in (*scores.families.items(), ("all", scores.overall)):
        cells = [getattr(row, key) for key, _, _ in _COLUMNS]
        lines.append(
            [
                name,
                *(
                    "-" if cell is None else format(cell, form)
                    for cell, (*_, form) in zip(cells, _COLUMNS, strict=True)
                ),
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def to_json(scores: Scores, **about: object) -> str:
    """The scores as JSON, with whatever else is to be said about the run."""
    return json.dumps({**about, **asdict(scores)}, indent=1, default=str)

"""The demo world: the same every time, in time on both streams, and described truthfully."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from engine.evaluation.onsets import find_onsets
from engine.training.demo_world import (
    FAMILIES,
    PERIODS,
    TEMPI,
    ClipSpec,
    caption,
    event_times,
    parse_caption,
    render_audio,
    render_frames,
    sample_spec,
    vocabulary,
)
from engine.training.demo_world.clip import FIRST_EVENT, JITTER, PHASES

RATE, FPS, FRAMES = 16000, 24.0, 49
SAMPLES = round(FRAMES / FPS * RATE)


def specs(count: int, seed: int, **kwargs: tuple[str, ...]) -> list[ClipSpec]:
    rng = np.random.default_rng(seed)
    return [sample_spec(rng, **kwargs) for _ in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_same_spec_same_clip(family: str) -> None:
    spec = specs(1, 3, families=(family,))[0]
    assert np.array_equal(render_frames(spec), render_frames(spec))
    assert np.array_equal(render_audio(spec), render_audio(spec))


def test_a_longer_clip_begins_like_a_shorter_one() -> None:
    spec = ClipSpec("ball", "red", "cream", tempo="fast", seed=5)
    assert np.array_equal(render_frames(spec, frames=49)[:25], render_frames(spec, frames=25))
    assert np.allclose(event_times(spec, 4.0)[: len(event_times(spec, 1.0))], event_times(spec, 1.0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("width", "height", "fps", "frames"), [(160, 96, 24.0, 5), (64, 120, 12.0, 9), (33, 17, 30.0, 1)]
)
def test_any_size_and_rate(family: str, width: int, height: int, fps: float, frames: int) -> None:
    spec = specs(1, 8, families=(family,))[0]
    clip = render_frames(spec, width, height, fps, frames)
    assert clip.shape == (frames, height, width, 3)
    assert clip.dtype == np.uint8
    for rate in (8000, 24000, 44100):
        sound = render_audio(spec, rate, rate)
        assert sound.shape == (rate,)
        assert sound.dtype == np.float32


def test_events_keep_their_tempo_and_leave_the_first_frames_alone() -> None:
    for spec in specs(300, 1):
        times = event_times(spec, FRAMES / FPS)
        assert len(times) >= 2
        assert times[0] > 2 / FPS
        assert np.all(np.abs(np.diff(times) / PERIODS[spec.tempo] - 1.0) <= 0.0801)


def test_first_events_go_with_the_tempo_and_still_vary() -> None:
    for tempo in TEMPI:
        first = [event_times(spec, 3.0)[0] for spec in specs(400, 2) if spec.tempo == tempo]
        low, high = (FIRST_EVENT + phase * (PERIODS[tempo] * (1 - JITTER) - FIRST_EVENT) for phase in PHASES)
        assert np.histogram(first, bins=4, range=(low, high))[0].min() > 10
        assert low <= min(first) <= max(first) <= high
    early = [event_times(replace(spec, phase=0.0), 3.0)[0] for spec in specs(20, 2)]
    assert np.allclose(early, FIRST_EVENT)  # other phases are still there for who asks for them


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sound_begins_at_the_events(family: str) -> None:
    late = []
    for spec in specs(8, 11, families=(family,)):
        onsets = find_onsets(render_audio(spec, RATE, SAMPLES), RATE)
        due = [time for time in event_times(spec, FRAMES / FPS) if time < FRAMES / FPS - 0.06]
        assert len(onsets) - len(due) in (0, 1)
        late += [float((onsets - time)[np.abs(onsets - time).argmin()]) for time in due]
    assert abs(np.median(late)) < 0.003
    assert np.max(np.abs(late)) < 0.010


@pytest.mark.parametrize("family", FAMILIES)
def test_the_picture_jerks_at_the_events(family: str) -> None:
    """The picture's second difference in time is far larger around events than elsewhere, in every clip."""
    for spec in specs(8, 12, families=(family,)):
        frames = render_frames(spec, 48, 48, FPS, FRAMES).astype(np.float32)
        jerk = np.abs(np.diff(frames, n=2, axis=0)).mean((1, 2, 3))  # value k looks at frames k, k + 1, k + 2
        near = np.zeros(len(jerk), bool)
        for time in event_times(spec, FRAMES / FPS):
            first = int(np.ceil(time * FPS))  # the first frame that shows it
            near[max(0, first - 2) : first + 1] = True
        assert jerk[near].mean() > 1.2 * jerk[~near].mean()


def test_large_and_small_sound_differ_and_loudness_does_not() -> None:
    for family in FAMILIES:
        level = []
        for size in ("small", "large"):
            sound = render_audio(ClipSpec(family, "red", "cream", size, "medium", 0.4, 9), RATE, SAMPLES)
            energy = np.convolve(sound.astype(np.float64) ** 2, np.ones(1600) / 1600, "valid")
            level.append(10 * np.log10(energy.max()))
            assert np.abs(sound).max() < 0.99
        assert abs(level[0] - level[1]) < 1.0


def test_captions_say_what_is_there_in_known_words() -> None:
    rng = np.random.default_rng(21)
    words = set(vocabulary())
    named = dict.fromkeys(("colour", "background", "size", "tempo"), 0)
    count = 3000
    for spec in specs(count, 22):
        text = caption(spec, rng, held_out=bool(rng.random() < 0.4))
        promise = parse_caption(text)
        assert promise.family == spec.family, text
        for name in (*named, "voice"):
            said = getattr(promise, name)
            assert said in (None, getattr(spec, name)), (name, text)
            if name in named:
                named[name] += said is not None
        assert set(re.findall(r"[a-z]+|[^\sa-z]", text.lower())) <= words, text
    assert min(named.values()) > 0.3 * count


def test_held_out_captions_are_never_training_captions() -> None:
    rng = np.random.default_rng(31)

    def plain(text: str) -> str:
        return re.sub(r"[^a-z ]", "", text.lower().replace("this video has no subtitles.", "")).strip()

    several = specs(40, 32)
    seen = {plain(caption(spec, rng)) for spec in several for _ in range(150)}
    kept = {plain(caption(spec, rng, held_out=True)) for spec in several for _ in range(60)}
    assert not seen & kept
    assert len(seen) > 4500


@pytest.mark.parametrize(
    ("text", "family", "colour", "background", "tempo"),
    [
        ("a red ball bounces on the floor, a dull thump at every bounce", "ball", "red", None, None),
        ("A big blue bell swings slowly and dings each time.", "bell", "blue", None, "slow"),
        ("green lamp on a green meadow, fast", "lamp", "green", "meadow", "fast"),
        ("a yellow drum on a dark blue background", "drum", "yellow", "night", None),
        ('A purple face says "oo" at dusk, steadily', "mouth", "purple", "dusk", "medium"),
        ("something else entirely", None, None, None, None),
    ],
)
def test_reading_captions(
    text: str, family: str | None, colour: str | None, background: str | None, tempo: str | None
) -> None:
    promise = parse_caption(text)
    assert (promise.family, promise.colour, promise.background, promise.tempo) == (family, colour, background, tempo)


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match="'pink'"):
        ClipSpec("ball", "pink", "cream")
    with pytest.raises(ValueError, match="phase"):
        ClipSpec("ball", "red", "cream", phase=1.0)
    with pytest.raises(ValueError, match="4x4"):
        render_frames(ClipSpec("ball", "red", "cream"), 4, 4)

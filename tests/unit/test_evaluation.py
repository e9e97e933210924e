"""The judges of clips, tried on ground truth: they must be right there before they may judge a model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.evaluation.judges import event_peaks, events_due, load_referee, tempo_of
from engine.evaluation.onsets import find_onsets, resample
from engine.evaluation.scores import (
    Clip,
    Scores,
    diversity,
    first_frame_psnr,
    flicker,
    loudness,
    score_clips,
    table,
    to_json,
)
from engine.evaluation.sync import Match, match, shifted
from engine.training.demo_world import Promise, event_times, render_audio, render_frames, sample_spec

RATE, FPS, FRAMES = 16000, 24.0, 49
SECONDS = FRAMES / FPS
CLIPS = 144  # unseen: the referee was trained with other seeds


def rendered(count: int, seed: int) -> list[Clip]:
    rng = np.random.default_rng(seed)
    clips = []
    for _ in range(count):
        spec = sample_spec(rng)
        promise = Promise(spec.family, spec.colour, spec.background, spec.size, spec.tempo)
        sound = render_audio(spec, RATE, round(SECONDS * RATE))
        clips.append(Clip(render_frames(spec), sound, FPS, RATE, spec.family, promise=promise))
    return clips


@pytest.fixture(scope="module")
def scores() -> Scores:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    result = score_clips(rendered(CLIPS, 900))
    torch.set_num_threads(threads)
    return result


def test_the_referee_is_right_about_rendered_clips(scores: Scores) -> None:
    row = scores.overall
    for name in ("object", "colour", "background", "tempo", "sound", "found"):
        assert getattr(row, name) >= 0.97, table(scores)


def test_sync_tells_matched_from_shuffled_and_shifted_sound(scores: Scores) -> None:
    row = scores.overall
    assert row.sync >= 0.97, table(scores)
    assert row.shuffled is not None
    assert row.shuffled < 0.40
    assert row.shifted < 0.40
    assert row.median_offset_ms is not None
    assert abs(row.median_offset_ms) < 15.0
    assert min(family.sync for family in scores.families.values()) >= 0.93, table(scores)


def test_events_are_seen_where_they_are() -> None:
    rng = np.random.default_rng(77)
    wrong = []
    for _ in range(16):
        spec = sample_spec(rng)
        seen = np.array(load_referee().see(render_frames(spec, 160, 96), FPS).events)
        for time in event_times(spec, SECONDS - 2 / FPS):
            wrong.append(float(np.abs(seen - time).min()))
    assert np.median(wrong) < 0.012
    assert np.mean(np.array(wrong) < 2 / FPS) > 0.96


def test_blurred_clips_are_still_read() -> None:
    clips = rendered(32, 901)
    soft = []
    for clip in clips:
        frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255.0
        small = torch.nn.functional.interpolate(frames, (20, 20), mode="area")
        frames = torch.nn.functional.interpolate(small, (96, 96), mode="bilinear")
        soft.append(replace(clip, frames=frames.permute(0, 2, 3, 1).clamp(0, 1).numpy()))
    row = score_clips(soft).overall
    assert row.object is not None
    assert row.object >= 0.9
    assert row.sync >= 0.9


def test_nothing_seen_or_heard_counts_against() -> None:
    clip = rendered(1, 5)[0]
    silent = replace(clip, audio=np.zeros_like(clip.audio))
    still = replace(clip, frames=np.repeat(clip.frames[:1], FRAMES, axis=0))
    for spoilt in (silent, still):
        row = score_clips([spoilt]).overall
        assert row.sync == 0.0
        assert row.events_heard == 0.0
    assert score_clips([silent]).overall.sound == 0.0
    both = score_clips([clip, silent]).overall
    assert both.sync < 0.7


def test_sounding_all_the_time_earns_nothing() -> None:
    events = np.array([0.4, 1.2])
    always = np.arange(0.05, 2.0, 0.12)
    result = match(events, always, SECONDS, FPS)
    assert result.events_heard == 1.0
    assert result.sync < 0.2


def test_matching_uses_each_onset_once_and_forgives_the_edges() -> None:
    assert match(np.array([0.5, 0.55]), np.array([0.52]), SECONDS, FPS).paired == 1
    assert match(np.array([0.5]), np.array([0.5 + 2 / FPS]), SECONDS, FPS).paired == 1
    assert match(np.array([0.5]), np.array([0.5 + 2.1 / FPS]), SECONDS, FPS).paired == 0
    edge = match(np.array([0.5, SECONDS - 0.02]), np.array([0.5]), SECONDS, FPS)
    assert (edge.events, edge.onsets, edge.paired) == (1, 1, 1)
    assert match(np.array([]), np.array([0.5]), SECONDS, FPS, due=3) == Match(3, 3, 0)
    assert np.allclose(shifted(np.array([0.1, 2.0]), SECONDS, FPS), [2.0 + 5 / 24 - SECONDS, 0.1 + 5 / 24])


def test_onsets_of_noise_silence_and_clicks() -> None:
    rng = np.random.default_rng(0)
    assert len(find_onsets(np.zeros(32000))) == 0
    assert len(find_onsets(np.zeros(0))) == 0
    assert len(find_onsets(rng.normal(0, 1e-3, 32000))) == 0
    sound = rng.normal(0, 0.002, 32000)
    for start in (0.5, 1.25):
        at = int(start * RATE)
        sound[at : at + 1600] += 0.3 * np.sin(np.arange(1600) * 0.4) * np.exp(-np.arange(1600) / 400)
    assert np.allclose(find_onsets(sound), [0.5, 1.25], atol=0.005)
    assert np.allclose(find_onsets(resample(sound, RATE, 44100), 44100), [0.5, 1.25], atol=0.006)


def test_peaks_and_tempo() -> None:
    steps = np.arange(49)
    chance = np.exp(-0.5 * ((steps - 12.3) / 0.9) ** 2) + 0.8 * np.exp(-0.5 * ((steps - 30) / 0.9) ** 2)
    assert np.allclose(event_peaks(chance, FPS) * FPS, [12.3, 30.0], atol=0.25)
    assert tempo_of(np.array([0.3, 0.79, 1.25])) == "fast"
    assert tempo_of(np.array([0.3, 1.0])) == "medium"
    assert tempo_of(np.array([0.7])) == "slow"
    assert [events_due(tempo, SECONDS) for tempo in ("slow", "medium", "fast", None)] == [2, 2, 3, 2]


def test_plain_measures() -> None:
    grey = np.full((8, 8, 3), 128, np.uint8)
    assert first_frame_psnr(grey, grey) == 99.0
    assert first_frame_psnr(grey, grey / 255.0 + 0.1) == pytest.approx(20.0, abs=0.01)
    with pytest.raises(ValueError, match="picture that was given"):
        first_frame_psnr(grey, grey[:4])
    still = np.repeat(grey[None], 9, axis=0)
    noisy = np.clip(still + np.random.default_rng(0).normal(0, 8, still.shape), 0, 255).astype(np.uint8)
    assert flicker(still) == 0.0
    assert flicker(noisy) > 3.0
    assert loudness(np.zeros(100)) == -120.0
    assert loudness(np.sin(np.arange(16000) * 0.3)) == pytest.approx(-3.01, abs=0.05)
    clip = Clip(still, np.zeros(100), FPS, RATE, "same")
    assert diversity([clip, clip]) == 0.0
    assert diversity([clip]) is None


def test_reports(scores: Scores) -> None:
    text = table(scores)
    assert "shuffled" in text.splitlines()[0]
    assert text.splitlines()[-1].split()[0] == "all"
    data = json.loads(to_json(scores, model="ground truth"))
    assert data["model"] == "ground truth"
    assert len(data["clips"]) == CLIPS
    with pytest.raises(ValueError, match="no clip"):
        score_clips([])

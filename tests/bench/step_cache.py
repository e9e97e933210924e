"""The step cache against exact runs, side by side in one run: speed, and what it costs in quality.

    python -m tests.bench.step_cache [--model NAME] [--thresholds 0.05 0.1] [--clips N] [--json]

For each threshold: ratio of denoising times, share of evaluations left out, PSNR of the frames and SNR of the sound
against the exact clip of the same seed, and by how much sound and picture moved against each other (cross-correlation
of loudness and of motion with those of the exact clip).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from typing import Any

import numpy as np

from engine.folders import find_model

PROMPTS = (
    "A red ball bounces on the floor with a dull thud.",
    "A hand strikes a drum twice.",
    "A bell rings three times.",
    "Water drops fall into a bowl.",
)
ENVELOPE = 1000  # loudness values a second


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of values in [0, 1], dB."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def snr(exact: np.ndarray, other: np.ndarray) -> float:
    """Signal to difference, dB."""
    noise = float(np.sum((exact.astype(np.float64) - other) ** 2))
    return math.inf if noise == 0 else 10 * math.log10(max(float(np.sum(exact.astype(np.float64) ** 2)), 1e-20) / noise)


def lag(exact: np.ndarray, other: np.ndarray, rate: float) -> float | None:
    """Seconds by which `other` comes later than `exact`; None where one of them does not move."""
    a, b = exact - exact.mean(), other - other.mean()
    if not a.any() or not b.any():
        return None
    size = 1 << (len(a) + len(b)).bit_length()
    product = np.fft.irfft(np.fft.rfft(b, size) * np.fft.rfft(a, size).conj(), size)
    reach = len(a) // 2
    around = np.concatenate((product[-reach:], product[: reach + 1]))
    return (int(around.argmax()) - reach) / rate


def loudness(sound: np.ndarray, rate: int) -> np.ndarray:
    hop = rate // ENVELOPE
    return np.sqrt(np.mean(sound[: len(sound) // hop * hop].astype(np.float64).reshape(-1, hop) ** 2, 1))


def motion(frames: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(frames.astype(np.float64), axis=0)).mean((1, 2, 3))


def make(pipe: Any, prompt: str, seed: int, threshold: float | None) -> dict[str, Any]:
    """One clip with the model's defaults, and the seconds of its denoising."""
    profile, marks = pipe.profile, {}
    counted: list[tuple[int, int]] = []

    def stage(name: str) -> None:
        marks[name] = clock()

    from engine import step_cache

    # On a processor its own time is told: what else it does meanwhile does not count.
    clock = time.process_time if pipe.device.type == "cpu" else time.perf_counter
    real = step_cache.StepCache.on
    step_cache.StepCache.on = lambda self, *n: (counted.append(self), real(self, *n))[1]  # type: ignore[method-assign]
    try:
        out = pipe(
            prompt, height=profile.sizes[0][1], width=profile.sizes[0][0], num_frames=profile.frames, fps=profile.fps,
            num_inference_steps=profile.steps, guidance_scale=profile.guidance, video_shift=profile.video_shift,
            audio_shift=profile.audio_shift, seed=seed, step_cache=threshold, callback_on_stage=stage,
        )  # fmt: skip
    finally:
        step_cache.StepCache.on = real  # type: ignore[method-assign]
    left_out = counted[0].skipped / (counted[0].skipped + counted[0].computed) if counted else 0.0
    return {
        "seconds": marks["decode"] - marks["denoise"], "left_out": left_out, "frames": out.frames[0],
        "sound": out.audio[0], "rate": out.sample_rate, "fps": out.fps,
    }  # fmt: skip


def compare(exact: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    rate, fps = exact["rate"], exact["fps"]
    heard = lag(loudness(exact["sound"], rate), loudness(other["sound"], rate), ENVELOPE)
    seen = lag(motion(exact["frames"]), motion(other["frames"]), fps)
    return {
        "speed": exact["seconds"] / other["seconds"],
        "left_out": other["left_out"],
        "psnr": psnr(exact["frames"], other["frames"]),
        "snr": snr(exact["sound"], other["sound"]),
        "offset_ms": None if heard is None or seen is None else 1000 * (heard - seen),
    }


def measure(model: str | None, thresholds: list[float], clips: int) -> list[dict[str, Any]]:
    """Medians over the clips, a row a threshold."""
    from engine import MovaPipeline

    pipe = MovaPipeline.from_pretrained(find_model(model))
    make(pipe, PROMPTS[0], 99, None)  # warm-up
    rows: dict[float, list[dict[str, Any]]] = {t: [] for t in thresholds}
    for seed in range(clips):
        prompt = PROMPTS[seed % len(PROMPTS)]
        exact = make(pipe, prompt, seed, None)
        for threshold in thresholds:
            rows[threshold].append(compare(exact, make(pipe, prompt, seed, threshold)))
    return [{"threshold": t, "clips": clips} | _medians(found) for t, found in rows.items()]


def _medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    values = {k: [r[k] for r in rows if r[k] is not None] for k in rows[0]}
    medians = {k: statistics.median(v) if v else None for k, v in values.items()}
    offsets = values["offset_ms"]
    return medians | {"largest_offset_ms": max(map(abs, offsets)) if offsets else None}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.step_cache", description=__doc__.split("\n")[0])
    parser.add_argument("--model")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.1, 0.15, 0.2])
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    rows = measure(args.model, args.thresholds, args.clips)
    if args.json:
        print(json.dumps(rows))
        return 0
    print("threshold  speed  left out   PSNR   SNR  sound against picture (median, largest)")
    for row in rows:
        print(
            f"{row['threshold']:9.3f}  {row['speed']:5.2f}  {row['left_out']:8.0%}  {row['psnr']:5.1f} "
            f"{row['snr']:5.1f}  {row['offset_ms']} ms, {row['largest_offset_ms']} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train the referee on freshly rendered clips: ``python -m engine.evaluation.train_referee``.

The clips are spoilt in the ways in which generated ones are: blurred in space and time, ghosted, noisy, with faded or
shifted colours; sounds with noise, a missing top, a smeared spectrum. Takes a few minutes on two CPU threads.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from engine.evaluation.judges import EYE_FPS, EYE_SIZE, WEIGHTS, Ear, Eye, eye_frames, log_mel
from engine.evaluation.onsets import RATE
from engine.training.demo_world import (
    BACKGROUNDS,
    COLOURS,
    FAMILIES,
    event_times,
    render_audio,
    render_frames,
    sample_spec,
)

FRAMES = 49
SAMPLES = round(FRAMES / EYE_FPS * RATE)
HELD_OUT = 160  # clips to watch progress on


def render(count: int, seed: int) -> dict[str, Tensor]:
    """Clips with their labels, the picture already small."""
    rng = np.random.default_rng(seed)
    frames = torch.empty(count, FRAMES, 3, EYE_SIZE, EYE_SIZE, dtype=torch.uint8)
    waves = torch.empty(count, SAMPLES)
    labels = torch.empty(count, 3, dtype=torch.long)
    events = torch.zeros(count, FRAMES)
    steps = np.arange(FRAMES)
    for index in range(count):
        spec = sample_spec(rng)
        size = (96, 96) if rng.random() < 0.8 else (128, 96)
        small = eye_frames(render_frames(spec, *size, EYE_FPS, FRAMES), EYE_FPS)
        frames[index] = (small * 255.0).round().to(torch.uint8)
        waves[index] = torch.from_numpy(render_audio(spec, RATE, SAMPLES))
        labels[index, 0] = FAMILIES.index(spec.family)
        labels[index, 1] = COLOURS.index(spec.colour)
        labels[index, 2] = BACKGROUNDS.index(spec.background)
        for instant in event_times(spec, FRAMES / EYE_FPS):
            bump = np.exp(-0.5 * ((steps - instant * EYE_FPS) / 0.9) ** 2)
            events[index] = torch.maximum(events[index], torch.from_numpy(bump.astype(np.float32)))
    return {"frames": frames, "waves": waves, "labels": labels, "events": events}


def spoil_frames(frames: Tensor, generator: torch.Generator) -> Tensor:
    """(batch, frames, 3, s, s) float 0..1, each clip spoilt in its own way; one in six stays clean."""
    out = []
    for clip in frames:
        draw = torch.rand(12, generator=generator)
        if draw[0] < 0.17:
            out.append(clip)
            continue
        if draw[1] < 0.55:  # a coarse grid, as of an 8x8 latent
            side = int(torch.randint(14, 36, (1,), generator=generator))
            coarse = functional.interpolate(clip, (side, side), mode="area")
            clip = functional.interpolate(coarse, (EYE_SIZE, EYE_SIZE), mode="bilinear", align_corners=False)
        if draw[2] < 0.45:  # frames flow into each other
            spread = float(draw[3]) * 0.30
            before = torch.cat([clip[:1], clip[:-1]])
            after = torch.cat([clip[1:], clip[-1:]])
            clip = (1.0 - 2.0 * spread) * clip + spread * (before + after)
        if draw[4] < 0.40:  # moving things fade into what is there most of the time
            clip = clip + 0.40 * float(draw[5]) * (clip.mean(0, keepdim=True) - clip)
        tint = 1.0 + 0.10 * (torch.rand(1, 3, 1, 1, generator=generator) - 0.5)
        lift = 0.08 * (torch.rand(1, 3, 1, 1, generator=generator) - 0.5)
        clip = clip * tint + lift
        if draw[6] < 0.5:  # paler
            clip = clip + 0.15 * float(draw[7]) * (clip.mean(1, keepdim=True) - clip)
        if draw[8] < 0.5:
            clip = clip + 0.05 * float(draw[9]) * torch.randn(clip.shape, generator=generator)
        shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
        padded = functional.pad(clip, (2, 2, 2, 2), mode="replicate")
        clip = padded[..., 2 + shift[0] : 2 + shift[0] + EYE_SIZE, 2 + shift[1] : 2 + shift[1] + EYE_SIZE]
        out.append(clip.clamp(0.0, 1.0))
    return torch.stack(out)


def spoil_waves(waves: Tensor, generator: torch.Generator) -> Tensor:
    """(batch, samples), with noise, another level, a duller or thinner spectrum and a smear, as after a small codec."""
    batch, samples = waves.shape
    spectrum = torch.fft.rfft(waves)
    share = torch.linspace(0.0, 1.0, spectrum.shape[1])
    tilt = 2.0 * (torch.rand(batch, 1, generator=generator) - 0.6)
    bumps = torch.randn(batch, 1, 24, generator=generator) * 0.35
    bumps = functional.interpolate(bumps, spectrum.shape[1], mode="linear", align_corners=True)[:, 0]
    waves = torch.fft.irfft(spectrum * torch.exp(tilt * share * 2.0 + bumps), samples)
    level = 10.0 ** (-1.2 - 1.6 * torch.rand(batch, 1, generator=generator))
    noise = torch.randn(batch, samples, generator=generator) * level * waves.square().mean(1, keepdim=True).sqrt()
    return (waves + noise) * (0.4 + torch.rand(batch, 1, generator=generator))


def train(clips: int, epochs: int, seed: int, out: Path) -> None:
    """Render, train eye and ear side by side, and write both in half precision."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    began = time.time()
    data, unseen = render(clips, seed + 1), render(HELD_OUT, seed + 2)
    print(f"rendered {clips} clips in {time.time() - began:.0f} s")
    eye, ear = Eye(), Ear()
    parameters = [*eye.parameters(), *ear.parameters()]
    batch = 24
    steps = epochs * (clips // batch)
    adam = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 3e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(epochs):
        eye.train()
        ear.train()
        for rows in torch.randperm(clips, generator=generator)[: clips // batch * batch].split(batch):
            frames = spoil_frames(data["frames"][rows].float() / 255.0, generator)
            labels = data["labels"][rows]
            found = eye(frames)
            loss = functional.cross_entropy(found["family"], labels[:, 0])
            loss = loss + 1.5 * functional.cross_entropy(found["colour"], labels[:, 1])
            loss = loss + functional.cross_entropy(found["background"], labels[:, 2])
            loss = loss + 6.0 * functional.binary_cross_entropy_with_logits(found["event"], data["events"][rows])
            heard = ear(log_mel(spoil_waves(data["waves"][rows], generator)))
            loss = loss + functional.cross_entropy(heard, labels[:, 0], label_smoothing=0.02)
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 2.0)
            adam.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}, {time.time() - began:.0f} s: {_progress(eye, ear, unseen, generator)}")
        _save(eye, ear, out)


def _save(eye: Eye, ear: Ear, out: Path) -> None:
    tensors = {}
    for part, network in (("eye.", eye), ("ear.", ear)):
        for name, value in network.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                tensors[part + name] = value.detach().half().contiguous()
    save_file(tensors, out)


@torch.inference_mode()
def _progress(eye: Eye, ear: Ear, unseen: dict[str, Tensor], generator: torch.Generator) -> str:
    eye.eval()
    ear.eval()
    labels, parts = unseen["labels"], []
    for name, spoilt in (("clean", False), ("spoilt", True)):
        frames = unseen["frames"].float() / 255.0
        waves = unseen["waves"]
        if spoilt:
            frames, waves = spoil_frames(frames, generator), spoil_waves(waves, generator)
        found = [eye(part) for part in frames.split(20)]
        right = [
            float((torch.cat([each[key] for each in found]).argmax(1) == labels[:, column]).float().mean())
            for column, key in enumerate(("family", "colour", "background"))
        ]
        event = torch.cat([each["event"] for each in found])
        miss = float(functional.binary_cross_entropy_with_logits(event, unseen["events"]))
        heard = float((ear(log_mel(waves)).argmax(1) == labels[:, 0]).float().mean())
        parts.append(
            f"{name} family {right[0]:.3f} colour {right[1]:.3f} background {right[2]:.3f} sound {heard:.3f} "
            f"event loss {miss:.4f}"
        )
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=20240)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options.clips, options.epochs, options.seed, options.out)


if __name__ == "__main__":
    main()

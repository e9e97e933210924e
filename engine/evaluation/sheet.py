"""A picture of clips on one page: frames in a row, the waveform below, marks where something is seen and heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from engine.evaluation.scores import Clip, ClipScore

PAPER, INK, QUIET = (250, 249, 246), (38, 40, 56), (150, 154, 166)
WAVE, SEEN, HEARD = (86, 120, 214), (232, 132, 32), (196, 44, 82)
WAVE_HEIGHT, TEXT_HEIGHT, MARGIN = 44, 16, 8  # pixels


def contact_sheet(
    clips: Sequence[Clip], judged: Sequence[ClipScore], columns: int = 8, height: int = 96
) -> Image.Image:
    """One block a clip: ``columns`` frames evenly over its time, then its waveform on the same time axis.

    Orange marks above the wave are visual events, red marks below are onsets.
    """
    if not clips:
        raise ValueError("there is no clip to show")
    blocks = [_block(clip, score, columns, height) for clip, score in zip(clips, judged, strict=True)]
    width = max(block.width for block in blocks) + 2 * MARGIN
    page = Image.new("RGB", (width, sum(block.height + MARGIN for block in blocks) + MARGIN), PAPER)
    top = MARGIN
    for block in blocks:
        page.paste(block, (MARGIN, top))
        top += block.height + MARGIN
    return page


def _block(clip: Clip, score: ClipScore, columns: int, height: int) -> Image.Image:
    frames = np.asarray(clip.frames)
    if frames.dtype != np.uint8:
        frames = np.clip(frames * 255.0 + 0.5, 0, 255).astype(np.uint8)
    cell = round(height * frames.shape[2] / frames.shape[1])
    width = cell * columns
    block = Image.new("RGB", (width, TEXT_HEIGHT + height + WAVE_HEIGHT), PAPER)
    draw = ImageDraw.Draw(block)
    said = f"{clip.prompt}  [seed {clip.seed}]"
    line = f"sync {score.sync:.2f}"
    draw.text((0, 1), said[: max(8, width // 6 - len(line) - 3)], fill=INK)
    draw.text((width - 6 * len(line) - 2, 1), line, fill=INK)
    for column in range(columns):
        index = min(len(frames) - 1, int((column + 0.5) * len(frames) / columns))
        block.paste(Image.fromarray(frames[index]).resize((cell, height)), (column * cell, TEXT_HEIGHT))
    _wave(draw, clip, score, width, TEXT_HEIGHT + height)
    return block


def _wave(draw: ImageDraw.ImageDraw, clip: Clip, score: ClipScore, width: int, top: int) -> None:
    middle, half = top + WAVE_HEIGHT // 2, WAVE_HEIGHT // 2 - 8
    audio = np.asarray(clip.audio, np.float64)
    loudest = max(0.05, float(np.abs(audio).max())) if len(audio) else 1.0
    draw.line([(0, middle), (width, middle)], fill=QUIET)
    for x, part in enumerate(np.array_split(audio, width)):
        if len(part):
            high, low = float(part.max()) / loudest, float(part.min()) / loudest
            draw.line([(x, middle - round(high * half)), (x, middle - round(low * half))], fill=WAVE)
    for times, colour, edge, step in (
        (score.events, SEEN, top + 1, 1),
        (score.onsets, HEARD, top + WAVE_HEIGHT - 2, -1),
    ):
        for time in times:
            x = round(time / clip.seconds * width)
            draw.polygon([(x - 4, edge), (x + 4, edge), (x, edge + 6 * step)], fill=colour)

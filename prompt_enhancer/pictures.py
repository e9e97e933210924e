"""What is certain about a first frame without looking at what it shows: its size, its brightness, its main colours."""

from __future__ import annotations

import colorsys
import hashlib
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from prompt_enhancer.request import IdeaError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 24_000_000
_SAMPLE = (64, 64)


@dataclass(frozen=True)
class PictureFacts:
    """Measured, not guessed.

    Attributes:
        width, height: pixels. brightness: mean from 0 to 1.
        colours: names of colours that fill at least a sixth of the picture, the largest first.
        sha256: of the file, the key of everything remembered about it.
    """

    width: int
    height: int
    brightness: float
    colours: tuple[str, ...]
    sha256: str

    @property
    def light(self) -> str:
        return "dark" if self.brightness < 0.25 else "bright" if self.brightness > 0.65 else "evenly lit"


def measure(path: str | Path) -> PictureFacts:
    """Facts of a picture file.

    Raises:
        IdeaError: it is no PNG, JPEG or WebP that can be read, or it has more than 24 million pixels.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise IdeaError(f"{path.name} has {width * height / 1e6:.0f} million pixels; at most 24 are read")
                image.draft("RGB", (256, 256))
                small = image.convert("RGB").resize(_SAMPLE, Image.Resampling.BOX)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        if isinstance(error, IdeaError):
            raise
        raise IdeaError(f"{path.name} cannot be read as a picture (PNG, JPEG or WebP)") from None
    data = small.tobytes()
    pixels = list(zip(data[0::3], data[1::3], data[2::3], strict=True))
    names = Counter(colour_name(pixel) for pixel in pixels)
    wide = tuple(name for name, count in names.most_common(3) if count * 6 >= len(pixels))
    brightness = sum(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in pixels) / (255 * len(pixels))
    return PictureFacts(width, height, brightness, wide, digest)


def colour_name(pixel: tuple[int, int, int]) -> str:
    """The everyday name of an RGB colour (0 to 255)."""
    hue, light, saturation = colorsys.rgb_to_hls(*(part / 255 for part in pixel))
    if light < 0.12:
        return "black"
    if light > 0.92:
        return "white"
    if saturation < 0.15:
        return "grey"
    degrees = hue * 360
    if 15 <= degrees < 45 and light < 0.4:
        return "brown"
    bounds = ((15, "red"), (45, "orange"), (70, "yellow"), (165, "green"), (255, "blue"), (290, "purple"))
    name = next((name for bound, name in bounds if degrees < bound), "pink" if degrees < 345 else "red")
    return "pink" if name == "red" and light > 0.7 else name

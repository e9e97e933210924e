"""Pictures: what a user brings, made into plain RGB of the size the model wants.

Formats are decided by content, never by extension, and only PNG, JPEG and WebP are opened. The size is checked from
the header before any pixel is decoded: a PNG of 17 KiB can unfold to 700 MB.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import MediaError, OutputError
from engine.media.publish import atomic_file

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 24_000_000  # 24 megapixels: a full-frame camera
MAX_BYTES = 128 << 20  # more than 24 megapixels of 16-bit RGBA take as PNG in practice


def load_image(source: str | os.PathLike[str] | Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture as RGB, upright, with transparency laid over white.

    PNG, JPEG and WebP in any mode: 16-bit grey is scaled to 8 bits, CMYK converted, the EXIF rotation applied; of an
    animation the first frame is taken. A `PIL.Image` goes through the same normalisation.

    Args:
        source: path of the file, or an image that is already open.
        max_pixels: width * height allowed, checked before decoding.

    Returns:
        An RGB image of its own, not tied to the file.

    Raises:
        MediaError: missing, not one of the formats, too large, truncated or broken. One line that names the file.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Image.Image):
        return _normalised(source, "the image", max_pixels)
    path = Path(source)
    name = path.name or str(path)
    if path.is_dir():
        raise MediaError(f"{name} is a folder; choose a PNG, JPEG or WebP picture")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MediaError(f"{name} is larger than {MAX_BYTES >> 20} MiB; save it smaller")
        with warnings.catch_warnings():
            # Pillow warns of big pictures, which our own stricter limit refuses, and of odd EXIF, which is no matter.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return _normalised(image, name, max_pixels)
    except FileNotFoundError:
        raise MediaError(f"{name} does not exist") from None
    except UnidentifiedImageError:
        raise MediaError(f"{name} is not a PNG, JPEG or WebP picture; convert it to one of these") from None
    except Image.DecompressionBombError:
        raise MediaError(f"{name} has far more than {max_pixels / 1e6:g} megapixels; make it smaller") from None
    except PermissionError:
        raise MediaError(f"{name} may not be read; check its permissions") from None
    except MediaError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        detail = " ".join(str(error).split())[:120]
        raise MediaError(f"{name} is damaged or incomplete ({detail}); save or download it again") from error


def _normalised(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """Size check, decode, first frame, upright, RGB."""
    from PIL import ImageOps

    width, height = image.size
    if width * height > max_pixels:
        raise MediaError(
            f"{name} has {width}x{height} = {width * height / 1e6:.1f} megapixels, "
            f"more than {max_pixels / 1e6:g}; make it smaller"
        )
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    image.load()
    upright = ImageOps.exif_transpose(image)
    return _to_rgb(upright)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB, 8 bits a channel; transparent parts show white."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey_to_rgb(image)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    rgb = image.convert("RGB") if image.mode != "RGB" else image.copy()
    rgb.info = {}  # colour profiles and comments of the source say nothing true about the converted picture
    return rgb


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit or float grey: Pillow's own convert clips at 255 instead of scaling."""
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        full = 1.0 if values.size and np.nanmax(values) <= 1.0 else 255.0
    else:  # "I" and "I;16*" come from 16-bit files
        full = 65535.0
    hidden = image.info.get("transparency")
    grey = np.rint(np.clip(np.nan_to_num(values) / full, 0.0, 1.0) * 255.0).astype(np.uint8)
    if isinstance(hidden, int):  # one grey level that stands for "see through"
        grey[values == hidden] = 255
    return Image.fromarray(grey).convert("RGB")


def fit_image(image: Image.Image, width: int, height: int, crop: tuple[float, float] | None = None) -> Image.Image:
    """Scale `image` to cover `width` x `height` and cut it to exactly that size.

    Bicubic with antialiasing. An image of that size already comes back bit-exact.

    Args:
        image: any size, RGB.
        width, height: pixels of the result.
        crop: where the middle of the cut should lie, as fractions (x, y) of the image from 0 to 1; moved inside as
            far as needed. None: the centre.

    Raises:
        ValueError: a size below 1 or a crop outside 0..1.
    """
    from PIL import Image

    if width < 1 or height < 1:
        raise ValueError(f"size must be at least 1x1, not {width}x{height}")
    centre_x, centre_y = (0.5, 0.5) if crop is None else crop
    if not (0.0 <= centre_x <= 1.0 and 0.0 <= centre_y <= 1.0):
        raise ValueError(f"crop must lie between 0 and 1, not {crop}")
    if image.size == (width, height):
        return image.copy()
    box = cover_box(image.size, (width, height), (centre_x, centre_y))
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def cover_box(
    size: tuple[int, int], wanted: tuple[int, int], centre: tuple[float, float] = (0.5, 0.5)
) -> tuple[float, float, float, float]:
    """The part (left, top, right, bottom) of a picture of `size` pixels that has the aspect of `wanted`."""
    scale = min(size[0] / wanted[0], size[1] / wanted[1])
    box_width, box_height = min(wanted[0] * scale, size[0]), min(wanted[1] * scale, size[1])
    left = min(max(centre[0] * size[0] - box_width / 2, 0.0), size[0] - box_width)
    top = min(max(centre[1] * size[1] - box_height / 2, 0.0), size[1] - box_height)
    return left, top, left + box_width, top + box_height


def thumbnail(picture: np.ndarray | Image.Image, size: int = 320, *, kind: str = "JPEG", quality: int = 82) -> bytes:
    """A small picture for lists, as the bytes of a JPEG or WebP file.

    Args:
        picture: an image, one frame (H, W, 3) uint8, or a clip (F, H, W, 3) uint8 of which the middle is taken.
        size: longest side in pixels; smaller pictures are not enlarged.
        kind: "JPEG" or "WEBP".

    Raises:
        ValueError: another kind or shape.
    """
    from PIL import Image

    if kind not in ("JPEG", "WEBP"):
        raise ValueError(f"kind must be JPEG or WEBP, not {kind}")
    if isinstance(picture, np.ndarray):
        frame: np.ndarray = picture[len(picture) // 2] if picture.ndim == 4 else picture
        if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"expected uint8 of shape (H, W, 3), not {frame.dtype} of {frame.shape}")
        picture = Image.fromarray(np.ascontiguousarray(frame))
    small = picture.convert("RGB")
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def save_png(path: str | os.PathLike[str], frame: np.ndarray) -> None:
    """Write one frame, uint8 (H, W, 3), as a PNG; the file appears whole or not at all.

    Raises:
        OutputError: the frame has another shape or type, or the file cannot be written.
    """
    from PIL import Image

    if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
        raise OutputError(f"a frame must be uint8 of shape (H, W, 3), not {frame.dtype} of {frame.shape}")
    with atomic_file(path) as part:
        Image.fromarray(np.ascontiguousarray(frame)).save(part, "PNG")

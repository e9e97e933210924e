"""Pictures of every kind a user may bring, made on the spot."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import MediaError, OutputError
from engine.media import cover_box, fit_image, load_image, save_png, thumbnail

RED = (220, 30, 40)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG that Pillow itself would not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


def load(tmp_path: Path, data: bytes, name: str = "picture.bin") -> Image.Image:
    path = tmp_path / name
    path.write_bytes(data)
    return load_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
def test_modes_become_rgb(kind: str, mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 16), RED).convert(mode, dither=Image.Dither.NONE)
    try:
        data = saved(image, kind)
    except OSError:
        pytest.skip(f"Pillow writes no {mode} {kind}")
    loaded = load(tmp_path, data, "name.txt")  # the extension says nothing
    assert (loaded.mode, loaded.size) == ("RGB", (32, 16))
    expected = image.convert("RGB").getpixel((0, 0))
    assert np.abs(np.subtract(loaded.getpixel((5, 5)), expected)).max() <= 6


def test_rgb_png_is_exact(tmp_path: Path) -> None:
    assert np.array_equal(np.asarray(load(tmp_path, saved(noise(), "PNG"))), np.asarray(noise()))


def test_cmyk_jpeg(tmp_path: Path) -> None:
    loaded = load(tmp_path, saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(np.subtract(loaded.getpixel((8, 8)), (255, 0, 0))).max() <= 8


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (32768, 128), (65535, 255), (257, 1), (300, 1)])
def test_16_bit_grey_is_scaled_not_clipped(value: int, expected: int, tmp_path: Path) -> None:
    rows = (b"\0" + struct.pack(">H", value) * 4) * 4
    assert load(tmp_path, raw_png(4, 4, 16, 0, rows)).getpixel((1, 1)) == (expected,) * 3


def test_16_bit_rgb_and_rgba(tmp_path: Path) -> None:
    rgb = (b"\0" + struct.pack(">HHH", 65535, 32896, 0) * 4) * 4
    assert load(tmp_path, raw_png(4, 4, 16, 2, rgb)).getpixel((1, 1)) == (255, 128, 0)
    rgba = (b"\0" + struct.pack(">HHHH", 65535, 0, 0, 0) * 4) * 4
    assert load(tmp_path, raw_png(4, 4, 16, 6, rgba)).getpixel((1, 1)) == (255, 255, 255)


def test_transparency_shows_white(tmp_path: Path) -> None:
    for colour, expected in (((0, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 128), (127, 127, 127)), ((*RED, 255), RED)):
        assert load(tmp_path, saved(Image.new("RGBA", (8, 8), colour), "PNG")).getpixel((2, 2)) == expected
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, *RED])
    assert load(tmp_path, saved(palette, "PNG", transparency=1)).getpixel((2, 2)) == (255, 255, 255)
    assert load(tmp_path, saved(palette, "PNG", transparency=0)).getpixel((2, 2)) == RED
    assert load(tmp_path, saved(Image.new("LA", (8, 8), (10, 0)), "PNG")).getpixel((2, 2)) == (255, 255, 255)
    keyed = raw_png(4, 4, 16, 0, (b"\0" + struct.pack(">H", 700) * 4) * 4, chunk(b"tRNS", struct.pack(">H", 700)))
    assert load(tmp_path, keyed).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(orientation: int, kind: str, tmp_path: Path) -> None:
    upright = Image.new("RGB", (32, 16), (255, 255, 255))
    upright.paste((0, 0, 0), (0, 0, 8, 8))  # a black mark at the top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load(tmp_path, saved(stored, kind, exif=exif))
    assert loaded.size == (32, 16)
    assert max(loaded.getpixel((2, 2))) < 40
    assert min(loaded.getpixel((28, 12))) > 215
    assert "exif" not in loaded.info


def test_broken_exif_does_not_matter(tmp_path: Path) -> None:
    assert load(tmp_path, saved(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")).size == (64, 48)


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_animation_gives_its_first_frame(kind: str, tmp_path: Path) -> None:
    pages = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    data = saved(
        pages[0], kind, save_all=True, append_images=pages[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert np.abs(np.subtract(load(tmp_path, data).getpixel((4, 4)), RED)).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.6, 0.9, 0.98])
def test_truncated(kind: str, part: float, tmp_path: Path) -> None:
    data = saved(noise(), kind)
    with pytest.raises(MediaError, match=r"^cut\.png is "):
        load(tmp_path, data[: int(len(data) * part)], "cut.png")


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
STRANGERS = {
    "text.png": b"just words\n" * 40,
    "zero.png": b"",
    "drawing.png": SVG,
    "page.jpg": b"<!doctype html><script>alert(1)</script>",
    "anim.png": saved(Image.new("P", (8, 8)), "GIF"),
    "scan.png": saved(Image.new("RGB", (8, 8)), "TIFF"),
    "bitmap.png": saved(Image.new("RGB", (8, 8)), "BMP"),
    "icon.png": saved(Image.new("RGB", (16, 16)), "ICO"),
    "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "signature.png": b"\x89PNG\r\n\x1a\n",
    "riff.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    "jpeg.jpg": b"\xff\xd8\xff\xe0" + bytes(60),
    "nul.png": bytes(4096),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        load(tmp_path, STRANGERS[name], name)
    message = str(caught.value)
    assert message.startswith(name)
    assert "\n" not in message
    assert str(tmp_path) not in message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"^none\.png does not exist"):
        load_image(tmp_path / "none.png")
    with pytest.raises(MediaError, match="is a folder"):
        load_image(tmp_path)


def test_more_than_24_megapixels(tmp_path: Path) -> None:
    rows = bytes(1 + 6001 // 8 + 1) * 4000
    with pytest.raises(MediaError, match=r"6001x4000 = 24\.0 megapixels, more than 24"):
        load(tmp_path, raw_png(6001, 4000, 1, 0, rows))
    assert load(tmp_path, raw_png(6000, 4000, 1, 0, (b"\0" + bytes(750)) * 4000)).size == (6000, 4000)
    with pytest.raises(MediaError, match=r"more than 0\.001"):
        load_image(noise(), max_pixels=1000)


@pytest.mark.skipif(sys.platform == "win32", reason="resource is POSIX")
def test_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    """30000x30000 in a few KB: the process that refuses it grows by less than 50 MB."""
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(raw_png(30_000, 30_000, 8, 2, bytes(1 << 22)))
    small = tmp_path / "small.png"
    small.write_bytes(saved(noise(8, 8), "PNG"))
    script = (
        "import resource, sys\nfrom engine.media import load_image\nfrom engine.errors import MediaError\n"
        f"load_image({str(small)!r})\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try:\n    load_image({str(bomb)!r})\nexcept MediaError as error:\n    print(error)\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "print(grown)\nassert 'torch' not in sys.modules and 'gradio' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    message, grown = done.stdout.strip().splitlines()
    assert message.startswith("bomb.png")
    assert int(grown) < 50_000  # KiB


def test_an_open_image_is_normalised_too() -> None:
    assert load_image(Image.new("RGBA", (4, 4), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_fit_is_identity_at_size() -> None:
    image = noise()
    assert np.array_equal(np.asarray(fit_image(image, 64, 48)), np.asarray(image))
    assert np.array_equal(np.asarray(fit_image(image, 64, 48, crop=(0.1, 0.9))), np.asarray(image))


@pytest.mark.parametrize("size", [(64, 48), (640, 64), (37, 500), (1, 1), (4000, 3)])
@pytest.mark.parametrize("wanted", [(64, 48), (48, 64), (128, 16)])
def test_fit_gives_the_exact_size(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert fit_image(Image.new("RGB", size, RED), *wanted).size == wanted


def test_crop_moves_the_cut() -> None:
    image = Image.new("RGB", (300, 100), (0, 255, 0))
    image.paste((255, 0, 0), (0, 0, 100, 100))
    image.paste((0, 0, 255), (200, 0, 300, 100))
    colours = [fit_image(image, 50, 50, crop=(x, 0.5)).getpixel((25, 25)) for x in (0.0, 0.5, 1.0)]
    assert colours == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert cover_box((300, 100), (50, 50), (0.25, 0.5)) == (25.0, 0.0, 125.0, 100.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_image(image, 50, 50, crop=(1.5, 0.5))


def test_thumbnail() -> None:
    clip = np.zeros((5, 48, 64, 3), np.uint8)
    clip[2] = RED
    for kind in ("JPEG", "WEBP"):
        small = Image.open(io.BytesIO(thumbnail(clip, 32, kind=kind)))
        assert (small.format, small.size) == (kind, (32, 24))
        assert np.abs(np.subtract(small.convert("RGB").getpixel((16, 12)), RED)).max() <= 12
    with pytest.raises(ValueError, match="uint8"):
        thumbnail(np.zeros((4, 4), np.float32))


def test_save_png(tmp_path: Path) -> None:
    frame = np.asarray(noise())
    save_png(tmp_path / "a.png", frame)
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), frame)
    with pytest.raises(OutputError):
        save_png(tmp_path / "b.png", frame.astype(np.float32))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]

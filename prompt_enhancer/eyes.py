"""The picture half of a vision model, through llama.cpp's mtmd. Imported only by the child process."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import llama_cpp as lib
from llama_cpp import mtmd_cpp as mtmd
from PIL import Image

from prompt_enhancer.llama import LoadError, check_header, listen, reason_of_failure
from prompt_enhancer.pictures import FORMATS, MAX_PIXELS

if TYPE_CHECKING:
    from prompt_enhancer.llama import Llama

LONG_SIDE = 768  # pixels a vision model gets to see; more costs time and tells little


@dataclass(frozen=True)
class Picture:
    """width * height pixels as bytes, red, green and blue in turn."""

    width: int
    height: int
    data: bytes


def read_picture(path: Path) -> Picture:
    """A picture file, made small enough to look at.

    Raises:
        LoadError: it is no PNG, JPEG or WebP that can be read, or has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise LoadError(f"{path.name} has too many pixels to look at")
                small = image.convert("RGB")
        small.thumbnail((LONG_SIDE, LONG_SIDE))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise LoadError(f"{path.name} cannot be read as a picture") from None
    return Picture(small.width, small.height, small.tobytes())


class Eyes:
    """A loaded projector."""

    def __init__(self, path: Path, model: Llama, threads: int) -> None:
        """Loads a projector for a model.

        Raises:
            LoadError: it is none, or not this model's.
        """
        check_header(path)
        mtmd.mtmd_log_set(listen, ctypes.c_void_p(0))
        mtmd.mtmd_helper_log_set(listen, ctypes.c_void_p(0))
        options = mtmd.mtmd_context_params_default()
        options.n_threads = threads
        options.print_timings = False
        options.warmup = False
        self.context = mtmd.mtmd_init_from_file(os.fsencode(path), model.model, options)
        if not self.context:
            raise LoadError(f"{path.name} cannot be used with this model: {reason_of_failure('no reason given')}")
        if not mtmd.mtmd_support_vision(self.context):
            raise LoadError(f"{path.name} is for sounds, not for pictures")

    def show(self, model: Llama, picture: Picture, parts: Sequence[tuple[str, bool] | None]) -> int:
        """Lets the model read the parts, the picture where one is None; the position after them.

        Raises:
            LoadError: it does not fit.
        """
        pixels = (ctypes.c_uint8 * len(picture.data)).from_buffer_copy(picture.data)
        bitmap = mtmd.mtmd_bitmap_init(picture.width, picture.height, pixels)
        texts = [_text(part) if part else None for part in parts]
        whole = [_part(text, bitmap) for text in texts]
        array = (ctypes.POINTER(mtmd.mtmd_input_part) * len(whole))(*(ctypes.pointer(one) for one in whole))
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            code = mtmd.mtmd_tokenize_from_parts(self.context, chunks, array, len(whole), True)
            if code:
                raise LoadError(f"the picture cannot be prepared (code {code})")
            if mtmd.mtmd_helper_get_n_tokens(chunks) > model.context - 200:
                raise LoadError("the picture needs more room than the model has")
            place = lib.llama_pos(0)
            code = mtmd.mtmd_helper_eval_chunks(
                self.context, model.state, chunks, 0, 0, model.context, True, ctypes.byref(place)
            )
            if code:
                raise LoadError(f"the picture could not be looked at (code {code})")
            return int(place.value)
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            mtmd.mtmd_bitmap_free(bitmap)


def _text(part: tuple[str, bool]) -> mtmd.mtmd_input_text:
    """A text; its tokens of control count only where the part is our own."""
    raw = part[0].encode("utf-8", errors="ignore")
    return mtmd.mtmd_input_text(text=raw, text_len=len(raw), add_special=False, parse_special=part[1])


def _part(text: mtmd.mtmd_input_text | None, bitmap: int) -> mtmd.mtmd_input_part:
    if text is None:
        return mtmd.mtmd_input_part(bitmap=bitmap)
    return mtmd.mtmd_input_part(text=ctypes.pointer(text))

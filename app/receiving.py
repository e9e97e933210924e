"""A large file that comes with a form: its bytes go to the disk as they arrive, and never all into memory."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING

from fastapi import HTTPException
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from engine.errors import OutputError

if TYPE_CHECKING:
    from starlette.requests import Request

BLOCK = 4 << 20  # bytes that are gathered before they are written
MAX_HEADER = 8 << 10  # bytes of what a form says about one of its fields


@asynccontextmanager
async def received(request: Request, folder: Path, field: str = "file") -> AsyncIterator[tuple[Path, str]]:
    """The file in a form's field: where it lies, and what its sender calls it. It is gone when the block ends.

    The door has seen to it that the body is no larger than it may be.

    Args:
        folder: on the disk that shall hold it; it lies in a folder of its own there.

    Raises:
        HTTPException: 400 for a body that is no form, or has no such file.
        OutputError: the disk is full.
    """
    from anyio import to_thread

    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise HTTPException(400, "send the file as a form: multipart/form-data")
    length = int(request.headers.get("content-length", "0"))
    free = shutil.disk_usage(folder).free
    if length > free:
        raise OutputError(f"the file takes {length / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; make room first")
    with TemporaryDirectory(prefix="brought-in-", dir=folder) as place:
        path = Path(place) / "brought-in.bin"
        try:
            with path.open("wb") as target:
                form = _Form(options[b"boundary"], field, target)
                async for chunk in request.stream():
                    form.take(chunk)
                    if form.waiting >= BLOCK:
                        await to_thread.run_sync(form.write)  # the page goes on meanwhile
                await to_thread.run_sync(form.write)
        except (MultipartParseError, UnicodeDecodeError) as error:
            raise HTTPException(400, "the form cannot be read; send the file again") from error
        except OSError as error:
            raise OutputError(f"cannot keep the file: {(error.strerror or 'the disk failed').lower()}") from error
        if not form.complete:
            raise HTTPException(400, f"there is no file in the form's field {field!r}")
        yield path, form.filename


class _Form:
    """Reads a multipart body piece by piece; the bytes of one field's file go to `target`.

    Attributes:
        filename: of that file. complete: it has come to its end. waiting: bytes that are not written yet.
    """

    def __init__(self, boundary: bytes, field: str, target: IO[bytes]) -> None:
        self.filename, self.complete, self.waiting = "", False, 0
        self._field, self._target = field.encode(), target
        self._pieces: list[bytes] = []
        self._name = self._value = b""
        self._disposition = b""
        self._ours = False
        callbacks: dict[str, Callable] = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]

    def take(self, chunk: bytes) -> None:
        """The next bytes of the body."""
        self._parser.write(chunk)

    def write(self) -> None:
        """Puts what has gathered on the disk."""
        pieces, self._pieces, self.waiting = self._pieces, [], 0
        self._target.writelines(pieces)

    def _begin(self) -> None:
        self._name = self._value = self._disposition = b""
        self._ours = False

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._bounded(self._name)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._bounded(self._value)

    @staticmethod
    def _bounded(text: bytes) -> None:
        if len(text) > MAX_HEADER:
            raise MultipartParseError("a header is too long")

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._ours = not self.complete and options.get(b"name") == self._field and b"filename" in options
        if self._ours:
            self.filename = options[b"filename"].decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._ours:
            self._pieces.append(data[start:end])
            self.waiting += end - start

    def _end(self) -> None:
        self.complete = self.complete or self._ours
        self._ours = False

"""The ffmpeg binary as a child process: one place that starts it, feeds it, bounds it and reads its complaints.

A child process rather than bindings such as PyAV: when a foreign file crashes or hangs a decoder, the child dies and
the caller gets one `MediaError`; in-process bindings would take the whole worker along.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from engine.errors import MediaError

log = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes read at once from ffmpeg
STDERR_KEPT = 16_384  # bytes of complaints kept from each end; mutated files can cause megabytes
MAX_ALLOC = 1 << 30  # bytes that ffmpeg may take in one allocation

# Causes worth telling before whatever ffmpeg happened to say first.
_ROOT_CAUSES = ("No space left on device", "File too large", "Permission denied", "Read-only file system")


def program() -> str:
    """Path of the ffmpeg binary that comes with imageio-ffmpeg (or `IMAGEIO_FFMPEG_EXE`)."""
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MediaError("ffmpeg was not found; install the imageio-ffmpeg package again") from error


def local(path: str | os.PathLike[str]) -> str:
    """`path` as an ffmpeg address that can only be a local file, whatever colons or dashes its name holds."""
    return f"file:{Path(path).absolute()}"


def reading(demuxer: str, path: str | os.PathLike[str], *, max_pixels: int) -> list[str]:
    """Input options for a foreign file: fixed demuxer, local files only, bounded pictures and allocations."""
    return [
        *("-max_alloc", str(MAX_ALLOC), "-protocol_whitelist", "file", "-f", demuxer),
        *("-max_pixels", str(max_pixels), "-i", local(path)),
    ]


def run(
    arguments: list[str],
    *,
    timeout: float,
    feed: Iterable[bytes | memoryview] | None = None,
    max_output: int = 1 << 26,
    error: type[MediaError] = MediaError,
    what: str = "ffmpeg failed",
) -> bytearray:
    """Run ffmpeg to its end and return what it wrote to its standard output.

    Args:
        arguments: everything after the program name; ``pipe:0`` reads `feed`, ``pipe:1`` is returned.
        timeout: seconds after which the process is killed.
        feed: pieces written to its standard input; an exception raised while iterating kills ffmpeg and propagates.
        max_output: bytes of output after which the process is killed.
        error: class raised when ffmpeg is missing, dies, complains, takes too long or says too much.
        what: how the error message begins, for example ``cannot write a.mp4``.

    Raises:
        MediaError: or the subclass given as `error`; the message is one line.
    """
    try:
        command = [program(), "-hide_banner", "-nostdin", "-v", "error", *arguments]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # no console flashes up on Windows
        )
    except MediaError as missing:
        raise error(f"{what}: {missing}") from missing
    except OSError as cause:
        raise error(f"{what}: ffmpeg cannot be started ({cause.strerror or cause})") from cause

    output = _Collector(process.stdout, max_output, process)
    complaints = _Tail(process.stderr)
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    watchdog = threading.Timer(timeout, expire)
    watchdog.daemon = True
    watchdog.start()
    try:
        if feed is not None:
            _feed(process, feed)
        process.wait()
    finally:
        watchdog.cancel()
        if process.poll() is None:  # an exception is on its way: leave no process behind
            process.kill()
            process.wait()
        output.join()
        complaints.join()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    if expired.is_set():
        raise error(f"{what}: ffmpeg did not finish within {timeout:.0f} s")
    if output.overflow:
        raise error(f"{what}: more than {max_output / 2**20:.0f} MiB of decoded data")
    if process.returncode != 0:
        raise error(f"{what}: {reason(complaints.text(), process.returncode)}")
    if complaints.text():
        log.debug("ffmpeg: %s", complaints.text())
    return output.data


def reason(complaints: str, returncode: int) -> str:
    """The one line of ffmpeg's complaints that tells a user most, without memory addresses."""
    lines = [re.sub(r"^(\[[^\]]*\]\s*)+", "", line).strip() for line in complaints.splitlines()]
    lines = [line for line in lines if line and not line.startswith("Last message repeated")]
    for cause in _ROOT_CAUSES:
        if any(cause in line for line in lines):
            return cause[0].lower() + cause[1:]
    if lines:
        return lines[0][:200]
    if returncode < 0:
        return f"ffmpeg was killed by signal {-returncode} ({signal.strsignal(-returncode)})"
    return f"ffmpeg ended with code {returncode}"


def _feed(process: subprocess.Popen[bytes], pieces: Iterable[bytes | memoryview]) -> None:
    assert process.stdin is not None
    try:
        for piece in pieces:
            process.stdin.write(piece)
        process.stdin.close()
    except OSError:  # it died or closed its input early: its exit code and complaints tell why
        log.debug("ffmpeg closed its input early")


class _Collector(threading.Thread):
    """Reads a pipe into memory; kills the process when it says too much."""

    def __init__(self, pipe: IO[bytes] | None, limit: int, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        assert pipe is not None
        self.pipe, self.limit, self.process = pipe, limit, process
        self.data = bytearray()
        self.overflow = False
        self.start()

    def run(self) -> None:
        with self.pipe:
            while piece := self.pipe.read(CHUNK):
                if len(self.data) + len(piece) > self.limit:
                    self.overflow = True
                    self.process.kill()
                    return
                self.data += piece


class _Tail(threading.Thread):
    """Reads a pipe to its end and keeps the first and the last `STDERR_KEPT` bytes."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        assert pipe is not None
        self.pipe = pipe
        self.head, self.tail = b"", b""
        self.start()

    def run(self) -> None:
        with self.pipe:
            while piece := self.pipe.read(4096):
                if len(self.head) < STDERR_KEPT:
                    self.head += piece
                else:
                    self.tail = (self.tail + piece)[-STDERR_KEPT:]

    def text(self) -> str:
        return (self.head + self.tail).decode("utf-8", "replace").strip()

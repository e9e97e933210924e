"""Other shapes of a clip, made in a process of their own: decoding a clip takes memory that the page must not hold.

python -m app.exports KIND SOURCE TARGET START END     (seconds, or "-")
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import MediaError, MovaError, OutputError, RequestError

if TYPE_CHECKING:
    from engine.media import Clip

KINDS = ("mp4", "webm", "gif", "wav", "png", "derived")
SECONDS = 300.0  # the longest an export may take
ROOT = Path(__file__).resolve().parents[1]


def export(source: Path, kind: str, target: Path, start: float | None = None, end: float | None = None) -> None:
    """Writes `source`, or its part from `start` to `end` seconds, in another shape; whole or not at all.

    Args:
        kind: "mp4", "webm", "gif", "wav", "png" (the picture at `start`), or "derived" (thumbnail and peaks, into
            the folder `target`).

    Raises:
        RequestError: another kind. MediaError, OutputError: it cannot be read or written.
    """
    if kind not in KINDS:
        raise RequestError(f"there is no export {kind!r}; use {', '.join(KINDS[:-1])}")
    times = ["-" if value is None else repr(float(value)) for value in (start, end)]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONNOUSERSITE="1")
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "app.exports", kind, str(source), str(target), *times],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise OutputError(f"the export took longer than {SECONDS:g} s; trim the clip first") from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        wrong_input = done.returncode == 2
        raise (MediaError if wrong_input else OutputError)(
            said[-1] if said else f"the export ended with {done.returncode}"
        )


def main(argv: Sequence[str]) -> int:
    """Does one export; 2 and one line where the input is wrong."""
    kind, source, target = argv[0], Path(argv[1]), Path(argv[2])
    start, end = (None if value == "-" else float(value) for value in argv[3:5])
    try:
        _MAKERS[kind](source, target, start, end)
    except MovaError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 3 if isinstance(error, OutputError) else 2
    return 0


def _part(source: Path, start: float | None, end: float | None) -> Clip:
    from engine.media import read_clip, trim

    clip = read_clip(source)
    if start is None and end is None:
        return clip
    return trim(clip, start or 0.0, clip.seconds if end is None else min(end, clip.seconds))


def _mp4(source: Path, target: Path, start: float | None, end: float | None) -> None:
    from engine.media import write_clip

    clip = _part(source, start, end)
    write_clip(target, clip.frames, clip.samples, clip.fps, clip.sample_rate, clip.settings or {}, sidecar=False)


def _webm(source: Path, target: Path, start: float | None, end: float | None) -> None:
    from engine.media import export_webm

    export_webm(target, _part(source, start, end))


def _gif(source: Path, target: Path, start: float | None, end: float | None) -> None:
    from engine.media import export_gif

    export_gif(target, _part(source, start, end))


def _wav(source: Path, target: Path, start: float | None, end: float | None) -> None:
    from engine.media import export_wav

    clip = _part(source, start, end)
    export_wav(target, clip.samples, clip.sample_rate)


def _png(source: Path, target: Path, start: float | None, end: float | None) -> None:
    from engine.media import export_frame_png, read_clip

    clip = read_clip(source)
    index = min(max(round((start or 0.0) * clip.fps), 0), len(clip.frames) - 1)
    export_frame_png(target, clip, index=index)


def _derived(source: Path, target: Path, start: float | None, end: float | None) -> None:
    from app.derived import ensure

    ensure(target, source)


_MAKERS: dict[str, Callable[[Path, Path, float | None, float | None], None]] = {
    "mp4": _mp4,
    "webm": _webm,
    "gif": _gif,
    "wav": _wav,
    "png": _png,
    "derived": _derived,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Adds what must be built to the environment in use, while the studio already runs: `python -m bootstrap.later GROUP`.

Started by the studio after its page answers, with less claim to the processor than everything else. Exit codes: 0 the
group is there, 1 it could not be added (told on stderr; `launch.py setup` tries again).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bootstrap import store
from bootstrap.installer import SetupError
from bootstrap.setup import OPTIONAL, add_optional

ROOT = Path(__file__).resolve().parent.parent
STARTED = "Building"  # the first word of the line that says that the lock was had and work begins


def main(argv: Sequence[str], root: Path = ROOT) -> int:
    """Adds one group of `bootstrap.setup.OPTIONAL`."""
    [group] = argv
    if group not in OPTIONAL:
        sys.stderr.write(f"{group!r} is not one of: {', '.join(OPTIONAL)}\n")
        return 1
    if hasattr(os, "nice"):
        os.nice(5)  # a clip that is being made goes first
    os.environ.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(max(1, (os.cpu_count() or 2) // 2)))
    layout = store.Layout(root)
    try:
        with store.exclusive(layout, lambda: _say("Waiting for another set-up in this folder.")):
            _say(f"{STARTED} {group!r}.")
            with _scratch(layout):
                add_optional(layout, group)
    except (SetupError, OSError) as error:
        _say(str(error))
        return 1
    return 0


@contextmanager
def _scratch(layout: store.Layout) -> Iterator[None]:
    """Temporary files in a folder of our own, so that those of a build that was killed are found and deleted.

    Not on Windows, where they would lie too deep for its limit on paths.
    """
    if os.name == "nt":
        yield
        return
    folder = layout.state / "tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

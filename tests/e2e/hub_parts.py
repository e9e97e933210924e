"""A hub on this machine for tests of the page: it serves a small model under the name of a real one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import hub_server
from tests.hub_server import LocalHub, serving

NAME = "MOVA-360p"


@contextmanager
def local_hub(files: Mapping[str, bytes]) -> Iterator[LocalHub]:
    """Serves these files as the model `NAME`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_server, "REPOSITORY", f"OpenMOSS-Team/{NAME}")
        with serving(files) as hub:
            yield hub


@contextmanager
def empty_home(hub: LocalHub, folder: Path) -> Iterator[Path]:
    """A user's folder in which no model was ever fetched, and whose hub is the local one.

    Returns:
        Where the studio keeps models and secrets.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HF_", "MOVA_"))]:
            patch.delenv(name)
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("TMPDIR", str(folder))
        yield folder / "data" / "mova-studio"

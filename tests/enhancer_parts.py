"""What tests of the enhancer's model share."""

from __future__ import annotations

import os

import pytest

from prompt_enhancer.catalogue import BUNDLED_FILE
from prompt_enhancer.writer import missing


def need_llama() -> None:
    """Skips where llama.cpp could not be built; on CI that is a failure, because there it must run."""
    assert BUNDLED_FILE.is_file()
    if reason := missing():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

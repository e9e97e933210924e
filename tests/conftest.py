"""What all tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

# No test, and no studio that a test starts, writes into the keyring of whoever runs them.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

# A shell that starts the tests in the background lets them ignore Ctrl-C, and every process that they start inherits
# this: what a test interrupts would run to its end. With a handler here, those processes begin as in a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def _accelerate_afresh() -> Iterator[None]:
    """accelerate keeps one precision for the life of a process; each module of tests may choose its own."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(reset_partial_state=True)

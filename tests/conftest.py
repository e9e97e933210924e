"""What all tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

# No test, and no studio that a test starts, writes into the keyring of whoever runs them.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

# As many workers as cores: none of them, and nothing that they start, should want every core for itself.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background lets them ignore Ctrl-C, and every process that they start inherits
# this: what a test interrupts would run to its end. With a handler here, those processes begin as in a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker for every core; none where one file was asked for or the output is wanted, which workers swallow."""
    one_file = len(config.args) == 1 and ".py" in config.args[0]
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else (os.cpu_count() or 1)
    return 0 if one_file or config.option.capture == "no" or cores == 1 else cores


@pytest.fixture(autouse=True, scope="module")
def _accelerate_afresh() -> Iterator[None]:
    """accelerate keeps one precision for the life of a process; each module of tests may choose its own."""
    yield
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state(reset_partial_state=True)

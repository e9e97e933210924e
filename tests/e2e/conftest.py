"""A real studio and a real browser for the tests of the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.page_parts import RunningStudio, chromium, launched, started


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Chromium of the system. Without one these tests are skipped; in CI that is a failure.

    It ends with these tests: Playwright keeps an event loop in this thread, and other tests want one of their own.
    """
    if chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: .ci/run installs Debian's package")
        pytest.skip("no Chromium on this system")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = launched(playwright)
        yield running
        running.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """`python -m app.studio` on a folder of its own, with a model that makes a clip within seconds."""
    running = started(tmp_path_factory.mktemp("studio"))
    yield running
    running.stop()


@pytest.fixture
def page(browser: Any, studio: RunningStudio) -> Iterator[Any]:
    """The page, opened and filled, in a browser that knows nothing yet. Errors in its console fail the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US", accept_downloads=True)
    opened = studio.open(context)
    yield opened
    problems = list(opened.problems)
    context.close()
    assert not problems

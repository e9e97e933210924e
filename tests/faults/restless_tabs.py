"""Reloads and closes the studio's tab, again and again, while its clips are made.

    python -m tests.faults.restless_tabs --reloads 50 --closes 20

A clip is asked for in the page of a real browser; once the page names its job, the tab is reloaded or closed at a
random moment. Every job that a page has named must end done, started once, and a page that is opened at any time must
show what runs and what waits. Exits with 1 if anything of that fails.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.page_parts import PATIENCE, RunningStudio, fill_form, launched, ready, started
from tests.faults.verdict import verdict

WAITS_FOR = 4  # jobs at most; else the queue would only grow
NAMES = """() => [studio.state.running, ...studio.state.waiting].filter(Boolean).map((one) => one.id)"""


@dataclass
class Toll:
    """What a campaign came to. running: reloads and closes that met a running clip."""

    reloads: int = 0
    closes: int = 0
    running: int = 0
    jobs: int = 0
    done: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.reloads} reloads and {self.closes} closed tabs, {self.running} of them while a clip was made: "
            f"{self.done} of {self.jobs} jobs done, {len(self.faults)} faults"
        )


def campaign(browser: Any, folder: Path, reloads: int, closes: int, seed: int) -> Toll:
    """All of it on a studio of its own in `folder`; `browser` is Playwright's."""
    dice, toll, named = random.Random(seed), Toll(), set[str]()
    turns = ["reload"] * reloads + ["close"] * closes
    dice.shuffle(turns)
    studio = started(folder)
    context = browser.new_context(locale="en-US")
    try:
        page = studio.open(context)
        for number, turn in enumerate(turns):
            if len(page.evaluate(NAMES)) < WAITS_FOR:
                named |= _ask(page, number)
            time.sleep(dice.uniform(0.0, 1.0))
            toll.running += bool(page.evaluate("() => Boolean(studio.state.running)"))
            page = _restless(studio, context, page, turn)
            toll.reloads += turn == "reload"
            toll.closes += turn == "close"
            toll.faults += [f"{turn} {number}: {problem}" for problem in page.problems]
            page.problems.clear()
            shown, there = set(page.evaluate(NAMES)), _open_jobs(studio)
            # what ended between the two looks is in neither, or in the first alone
            toll.faults += [f"{turn} {number}: {job[:8]} is not shown" for job in there - shown & named]
        page.wait_for_function("() => !studio.state.running && !studio.state.waiting.length", timeout=5 * PATIENCE)
        toll.faults += _ends(studio, named)
        states = [state for (state,) in studio.rows("SELECT state FROM jobs")]
        toll.jobs, toll.done = len(states), states.count("done")
    finally:
        context.close()
        studio.stop()
    return toll


def _ask(page: Any, number: int) -> set[str]:
    """Presses Generate; returns the jobs that the page then names and did not before."""
    before = page.evaluate(NAMES)
    clips = page.evaluate("() => studio.state.clips.length")
    fill_form(page, f"a clip before turn {number}", seconds=0.5, steps=6)
    page.click("#generate")
    page.wait_for_function(
        f"([before, clips]) => ({NAMES})().some((id) => !before.includes(id)) || studio.state.clips.length > clips",
        arg=[before, clips],
    )
    return set(page.evaluate(NAMES)) - set(before)


def _restless(studio: RunningStudio, context: Any, page: Any, turn: str) -> Any:
    if turn == "reload":
        page.reload()
        ready(page)
        return page
    page.close()
    return studio.open(context)


def _open_jobs(studio: RunningStudio) -> set[str]:
    return {str(row[0]) for row in studio.rows("SELECT id FROM jobs WHERE state IN ('queued', 'running')")}


def _ends(studio: RunningStudio, named: set[str]) -> list[str]:
    rows = {str(row[0]): row[1:] for row in studio.rows("SELECT id, state, attempts, result FROM jobs")}
    files = {str(row[0]): studio.data / "results" / str(row[1]) for row in studio.rows("SELECT id, file FROM clips")}
    faults = [f"{job[:8]} is lost" for job in named - rows.keys()]
    for job, (state, attempts, result) in rows.items():
        if state != "done" or attempts != 1 or not files[str(result)].is_file():
            faults.append(f"{job[:8]} ended {state} after {attempts} starts, with {result}")
    return faults


def main() -> int:
    from playwright.sync_api import sync_playwright

    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--reloads", type=int, default=50)
    p.add_argument("--closes", type=int, default=20)
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="mova-tabs-") as folder, sync_playwright() as playwright:
        browser = launched(playwright)
        toll = campaign(browser, Path(folder), args.reloads, args.closes, args.seed)
        browser.close()
    return verdict(toll, toll.faults)


if __name__ == "__main__":
    sys.exit(main())

"""The token's field in a real browser: it opens a gated model, and lies in one file and nowhere else."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hub_parts import NAME, empty_home, local_hub
from tests.e2e.page_parts import ROOT, RunningStudio, make_clip, ready, small_model, tab
from tests.hub_server import LocalHub, model_files

TOKEN = "hf_Vt7RkQwYx3LpNs"  # noqa: S105


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalHub]:
    with local_hub(model_files()) as hub:
        hub.token = TOKEN
        yield hub


@pytest.fixture(scope="module")
def home(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder: Path = tmp_path_factory.mktemp("home")
    with empty_home(hub, folder):
        yield folder


@pytest.fixture(scope="module")
def studio(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    running = RunningStudio(home / "studio", small_model(tmp_path_factory.mktemp("model")))
    running.start()
    yield running
    running.stop()


def files_with(secret: str, folder: Path) -> list[Path]:
    """Every file below a folder that holds these bytes, in whatever format."""
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_opens_a_gated_model_and_leaks_nowhere(page: Any, studio: RunningStudio, home: Path, hub: LocalHub) -> None:
    answers: list[str] = []
    page.on("response", lambda answer: answers.append(answer.url) if TOKEN in answer.url else None)
    tab(page, "models")
    page.locator(f".modelrow[data-name='{NAME}'] button[data-do=get]").click()
    refused = page.wait_for_selector(f".modelrow[data-name='{NAME}'][data-condition=failed] small.bad")
    assert "it asks who you are" in refused.inner_text()
    assert "Settings" in refused.inner_text()

    tab(page, "settings")
    page.wait_for_selector(".token[data-where='']")
    assert page.get_attribute("#hub-token", "type") == "password"
    page.fill("#hub-token", "two words")
    page.click(".token [data-do=keep]")
    page.wait_for_selector(".notice.bad:has-text('not a token')")
    page.fill("#hub-token", TOKEN)
    page.click(".token [data-do=keep]")
    page.wait_for_selector(".token[data-where=file]")
    assert page.input_value("#hub-token") == ""
    file = home / "data" / "mova-studio" / "hub-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    tab(page, "models")
    page.locator(f".modelrow[data-name='{NAME}'] button[data-do=get]").click()
    page.wait_for_selector(f".modelrow[data-name='{NAME}'][data-condition=verified]")
    tab(page, "create")
    make_clip(page, "a bell rings")
    page.reload()
    ready(page)
    tab(page, "settings")
    page.wait_for_selector(".token[data-where=file]")

    assert TOKEN not in page.content()
    assert TOKEN not in page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert TOKEN not in page.evaluate("() => JSON.stringify(window.gradio_config)")
    assert answers == []
    export = page.evaluate(
        """async () => {
            const id = studio.state.clips[0].id;
            const bytes = new Uint8Array(await (await fetch(`/media/clips/${id}/export/mp4?`)).arrayBuffer());
            return Array.from(bytes, (one) => String.fromCharCode(one)).join("");
        }"""
    )
    assert len(export) > 1000
    assert TOKEN not in export
    for log in ("doctor", "log"):
        assert TOKEN not in str(page.evaluate(f"async () => JSON.stringify(await studio.ask('{log}'))"))
    assert files_with(TOKEN, home) == [file]  # data, settings, database, logs, models, caches, temporary files
    assert files_with(TOKEN, studio.data.parent) == [file]


def test_forgotten_from_settings(page: Any, studio: RunningStudio, home: Path) -> None:
    tab(page, "settings")
    page.click(".token [data-do=forget]")
    page.wait_for_selector(".token[data-where='']")
    assert files_with(TOKEN, home) == []


def test_the_environments_token_is_told_and_not_shown(
    browser: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    running = RunningStudio(tmp_path / "studio", small_model(tmp_path))
    running.start()
    try:
        page = running.open(browser.new_context(locale="en-US"))
        tab(page, "settings")
        page.wait_for_selector(".token[data-where=environment]")
        assert not page.is_visible(".token [data-do=forget]")
        assert TOKEN not in page.content()
        page.context.close()
    finally:
        running.stop()
    assert files_with(TOKEN, tmp_path) == []


def test_the_doctors_report_does_not_hold_it(home: Path) -> None:
    environment = os.environ | {"HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "import sys; from engine.doctor import main; sys.exit(main(['--json']))"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("{")
    assert TOKEN not in done.stdout + done.stderr

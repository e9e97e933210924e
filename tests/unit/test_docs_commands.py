"""docs/commands.md: every command and option of the program is there, and nothing that the program does not have."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine.cli
import launch
import prompt_enhancer.cli
from engine.downloads import cli as models
from engine.evaluation import cli as evaluate
from engine.lora import cli as lora
from engine.training import cli as train

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
PARSERS = {
    "generate": engine.cli.parser,
    "enhance": prompt_enhancer.cli.parser,
    "models": models.build_parser,
    "lora": lora.build_parser,
    "train": train.build_parser,
    "evaluate": evaluate.build_parser,
}
SHORT = {  # commands of a line each: where their options are defined
    "doctor": "engine/doctor.py",
    "bench": "tests/bench/__main__.py",
    "update": "bootstrap/update.py",
    "shortcuts": "bootstrap/shortcuts.py",
    "uninstall": "bootstrap/uninstall.py",
    "package": "bootstrap/package.py",
}
OPTION = re.compile(r"`(--[a-z0-9-]+)")


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Of a parser and of its sub-commands."""
    for action in parser._actions:
        yield from (name for name in action.option_strings if name.startswith("--") and name != "--help")
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from options(below)


@pytest.mark.parametrize("command", PARSERS)
def test_every_option_is_on_the_page_and_the_other_way_round(command: str) -> None:
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    [text] = [part for part in section if part.split()[0] == command]
    assert sorted(set(OPTION.findall(text))) == sorted(set(options(PARSERS[command]())))


@pytest.mark.parametrize("command", SHORT)
def test_short_commands_are_told_in_a_line(command: str) -> None:
    [line] = [line for line in PAGE.splitlines() if re.match(rf"\| `{command}[ `]", line)]
    source = (ROOT / SHORT[command]).read_text(encoding="utf-8")
    assert sorted(OPTION.findall(line)) == sorted(set(re.findall(r'add_argument\(\s*"(--[a-z0-9-]+)"', source)))


def test_all_commands_are_there() -> None:
    assert set(launch.COMMANDS) == {*PARSERS, *SHORT, "test", "setup"}
    for command in launch.COMMANDS:
        assert re.search(rf"^\| `{command}[ `]", PAGE, re.MULTILINE), command

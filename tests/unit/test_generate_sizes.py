"""Sizes and lengths on the command line are judged by what the chosen model's own networks allow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine import cli
from engine.errors import MovaError, RequestError
from engine.folders import find_model
from engine.profile import read_profile, read_rules
from engine.request import MAX_SIDE, check_size

TINY = Path(__file__).resolve().parents[1] / "data" / "mova-tiny" / "checkpoint"


def settings(folder: Path, *arguments: str) -> dict[str, Any]:
    args = cli.parser().parse_args(["--prompt", "a ball", *arguments])
    found, _ = cli._settings(args, read_profile(folder), read_rules(folder))
    return found


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A model whose picture network takes eight frames at once, and pixels in squares of 32."""
    folder = tmp_path / "slow"
    for part, changes in (
        ("video_vae", {"scale_factor_spatial": 16, "scale_factor_temporal": 8}),
        ("video_dit", {"patch_size": [1, 2, 2]}),
    ):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(changes))
    shutil.copy(TINY / "model_index.json", folder)
    return folder


def test_the_demo_model_takes_what_its_networks_take() -> None:
    demo = find_model("demo")
    multiple = read_rules(demo).multiple
    side = 5 * multiple
    found = settings(demo, "--size", f"{side}x{side}")
    assert (found["width"], found["height"]) == (side, side)
    assert (settings(demo)["width"], settings(demo)["height"]) == read_profile(demo).sizes[0]
    wrong = f"{side + 1}x{2 * multiple - 1}"
    with pytest.raises(
        RequestError, match=f"{wrong} .* multiples of {multiple}, .*nearest valid size is {side}x{2 * multiple}"
    ):
        settings(demo, "--size", wrong)


def test_each_model_has_its_own_rules(slow: Path) -> None:
    assert settings(TINY, "--size", "48x16")["width"] == 48
    with pytest.raises(RequestError, match=r"48x16 .*multiples of 32.*nearest valid size is 64x32"):
        settings(slow, "--size", "48x16")
    assert settings(slow, "--size", "64x32", "--frames", "17")["frames"] == 17
    with pytest.raises(RequestError, match=r"8k\+1.*nearest valid value is 17"):
        settings(slow, "--size", "64x32", "--frames", "15")
    assert settings(slow, "--size", "64x32", "--seconds", "0.6", "--fps", "24")["frames"] == 17


@pytest.mark.parametrize("size", ["0x0", "1x1", "999999x999999", "16x4097", "999999999999x1"])
@pytest.mark.parametrize("multiple", [1, 16, 24, 32])
def test_the_size_that_a_message_names_is_valid(size: str, multiple: int) -> None:
    width, height = map(int, size.split("x"))
    try:
        check_size(width, height, multiple)
    except RequestError as error:
        width, height = map(int, str(error).rpartition(" ")[2].split("x"))
    assert check_size(width, height, multiple) == (width, height)
    assert 0 < width <= MAX_SIDE
    assert 0 < height <= MAX_SIDE


def test_a_model_whose_configs_cannot_be_read_is_told(slow: Path) -> None:
    (slow / "video_vae" / "config.json").write_text("{")
    with pytest.raises(MovaError, match="slow"):
        settings(slow, "--size", "64x32")

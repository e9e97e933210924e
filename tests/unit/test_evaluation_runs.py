"""The evaluate command: which calls it makes of a pipeline, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import MovaPipeline
from engine.evaluation import cli
from engine.evaluation.runs import Options, given_trials, held_out_trials, make_clips, make_clips_side_by_side
from engine.training.demo_world import FAMILIES


class FakePipe:
    """Remembers how it was called and returns a grey clip with noise."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def encode_video(self, frames: torch.Tensor) -> str:
        assert frames.shape == (1, 9, 48, 64, 3)
        assert 0.0 <= float(frames.min()) <= float(frames.max()) <= 1.0
        return "video latents"

    def encode_audio(self, samples: torch.Tensor, rate: int) -> str:
        assert samples.shape == (1, 6000)
        assert rate == 16000
        return "audio latents"

    def __call__(self, prompt: str, **asked: Any) -> SimpleNamespace:
        self.calls.append({"prompt": prompt, **asked})
        frames = torch.full((1, asked["num_frames"], asked["height"], asked["width"], 3), 0.5)
        return SimpleNamespace(frames=frames, audio=torch.randn(1, 6000) * 0.1, sample_rate=16000)


@pytest.mark.parametrize(("mode", "given"), [
    ("text", set()),
    ("image", {"image"}),
    ("sound", {"image", "given_video_latents"}),
    ("picture", {"given_audio_latents"}),
])  # fmt: skip
def test_each_mode_gives_the_model_what_it_says(mode: str, given: set[str]) -> None:
    pipe = FakePipe()
    options = Options(mode, height=48, width=64, frames=9, steps=3, a2v=0.5, v2a=0.0)
    clips = list(make_clips(pipe, held_out_trials(3, 5), options))
    call = pipe.calls[1]
    assert {name for name in call if name == "image" or name.startswith("given")} == given
    assert (call["a2v_scale"], call["v2a_scale"]) == (0.5, 0.0)
    assert call["num_inference_steps"] == 3
    assert "guidance_scale" not in call
    assert len({call["seed"] for call in pipe.calls}) == 3
    if "image" in given:
        assert isinstance(call["image"], Image.Image)
        assert clips[1].image is not None
    assert clips[1].frames.shape == (9, 48, 64, 3)


def test_trials_are_the_same_every_time_and_cover_the_families() -> None:
    first, second = held_out_trials(16, 3), held_out_trials(16, 3)
    assert first == second
    assert [trial.promise.family for trial in first[: len(FAMILIES)]] == list(FAMILIES)
    assert held_out_trials(4, 4) != first[:4]
    own = given_trials(["red ball, fast"], 3, 1)
    assert [trial.seed for trial in own] == [1, 2, 3]
    with pytest.raises(ValueError, match="choose from"):
        held_out_trials(1, 1, ("cat",))
    with pytest.raises(ValueError, match="demo world"):
        list(make_clips(FakePipe(), own, Options("sound")))


def test_the_command_writes_table_scores_and_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    code = cli.main(["--model", "rendered", "--clips", "8", "--mode", "image", "--out", str(out), "--sheet", "3"])
    assert code == 0
    shown = capsys.readouterr().out
    assert "speaker" in shown
    data = json.loads((out / "scores-image.json").read_text())
    assert data["mode"] == "image"
    assert data["overall"]["first_frame_db"] == 99.0
    with Image.open(out / "sheet-image.png") as sheet:
        assert sheet.width > 8 * 96
        assert np.asarray(sheet).std() > 10
    assert not list(out.glob("*.part"))


def test_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--model", "nowhere", "--out", str(tmp_path)]) == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "empty.txt").write_text("# nothing\n")
    assert cli.main(["--model", "rendered", "--prompts", str(tmp_path / "empty.txt"), "--out", str(tmp_path)]) == 2
    assert "no caption" in capsys.readouterr().err


def test_clips_made_side_by_side_are_those_made_one_after_another() -> None:
    folder = Path(__file__).parents[1] / "data" / "mova-tiny" / "checkpoint"
    trials = held_out_trials(3, 5)
    options = Options("image", height=32, width=32, frames=5, steps=2, guidance=2.0)
    torch.set_num_threads(1)
    slow = list(make_clips(MovaPipeline.from_pretrained(folder), trials, options))
    fast = make_clips_side_by_side(folder, trials, options, processes=2)
    for one, other in zip(slow, fast, strict=True):
        assert other.frames.dtype == np.uint8
        assert np.array_equal(np.rint(one.frames * 255.0).astype(np.uint8), other.frames)
        assert np.array_equal(one.audio, other.audio)
        assert one.prompt == other.prompt

"""The generate command as a user runs it: a real process, real files, real Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.media import probe, read_settings

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "mova-tiny" / "checkpoint"
SMALL = ["--size", "96x64", "--frames", "9", "--steps", "3", "--model", str(TINY)]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app.generate", *arguments]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_clip_from_prompt_and_picture(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)).save(tmp_path / "ä b.png")
    prompt = 'a ball says "hello = world; #1"\nand 你好 \\ bounces'
    done = run(
        "--prompt",
        prompt,
        "--image",
        "ä b.png",
        "--seed",
        "5",
        "--output",
        "clip ü.mp4",
        "--json",
        *SMALL,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["seed"] == 5
    assert told["image"]["name"] == "ä b.png"
    clip = tmp_path / "clip ü.mp4"
    info = probe(clip)
    assert (info.width, info.height) == (96, 64)
    settings = read_settings(clip)
    assert settings is not None
    assert settings["prompt"] == prompt
    assert settings == json.loads((tmp_path / "clip ü.json").read_text(encoding="utf-8"))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["ä b.png", "clip ü.mp4", "clip ü.json"])


def test_the_same_seed_makes_the_same_file_twice(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        assert run("--prompt", "a bell", "--seed", "1", "--output", name, *SMALL, cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_ctrl_c_stops_within_a_step_and_leaves_nothing(tmp_path: Path) -> None:
    arguments = ["--prompt", "a bell", "--output", "a.mp4", *SMALL, "--steps", "1000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command(*arguments), cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "making picture and sound" in line:
                break
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        begun = time.monotonic()
        rest = child.stderr.read()
        assert child.wait(30) == 130
    assert time.monotonic() - begun < 10
    assert rest.strip().splitlines()[-1] == "generate: stopped; nothing was written"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the wrong inputs below refer to."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("broken")
    (folder / "text.png").write_text("this is no picture")
    (folder / "vector.png").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (folder / "folder.mp4").mkdir()
    for name in ("missing", "misshapen", "unbuilt", "cut", "noindex"):
        shutil.copytree(TINY, folder / name)
    weights = "video_dit/diffusion_pytorch_model.safetensors"
    tensors = load_file(TINY / weights)
    save_file({k: v for k, v in tensors.items() if k != "blocks.1.ffn.0.bias"}, folder / "missing" / weights)
    save_file(tensors | {"head.head.bias": tensors["head.head.bias"][:-1].clone()}, folder / "misshapen" / weights)
    config = folder / "unbuilt" / "video_dit" / "config.json"
    config.write_text(config.read_text().replace('"has_image_input": false', '"has_image_input": true'))
    (folder / "cut" / weights).write_bytes((TINY / weights).read_bytes()[:5000])
    (folder / "noindex" / "model_index.json").unlink()
    return folder


WRONG = {
    "no prompt": ([], "--prompt"),
    "empty prompt": (["--prompt", "  "], "prompt is empty"),
    "missing image": (["--prompt", "x", "--image", "none.png"], "none.png"),
    "text named .png": (["--prompt", "x", "--image", "text.png"], "text.png"),
    "svg named .png": (["--prompt", "x", "--image", "vector.png"], "vector.png"),
    "image is a folder": (["--prompt", "x", "--image", "missing"], "missing"),
    "13x7": (["--prompt", "x", "--size", "13x7"], "nearest valid size is 16x16"),
    "13x7 for the model in the box": (["--prompt", "x", "--size", "13x7", "--model", "demo"], "valid size is 24x24"),
    "size of words": (["--prompt", "x", "--size", "big"], "640x352"),
    "6 frames": (["--prompt", "x", "--frames", "6"], "nearest valid value is 5"),
    "frames and seconds": (["--prompt", "x", "--frames", "9", "--seconds", "1"], "not allowed"),
    "NaN guidance": (["--prompt", "x", "--guidance", "nan"], "finite"),
    "infinite seconds": (["--prompt", "x", "--seconds", "inf"], "finite"),
    "negative seed": (["--prompt", "x", "--seed", "-1"], "nearest valid value is 0"),
    "zero steps": (["--prompt", "x", "--steps", "0"], "nearest valid value is 1"),
    "a word for steps": (["--prompt", "x", "--steps", "many"], "steps"),
    "unknown option": (["--prompt", "x", "--stpes", "3"], "--stpes"),
    "no such model": (["--prompt", "x", "--model", "nowhere"], "nowhere"),
    "model without index": (["--prompt", "x", "--model", "noindex"], "model_index.json"),
    "missing tensor": (["--prompt", "x", "--model", "missing"], "blocks.1.ffn.0.bias"),
    "wrong shape": (["--prompt", "x", "--model", "misshapen"], "head.head.bias"),
    "unbuilt option": (["--prompt", "x", "--model", "unbuilt"], "has_image_input"),
    "cut weights": (["--prompt", "x", "--model", "cut"], "damaged"),
    "output in no folder": (["--prompt", "x", "--output", "nowhere/a.mp4"], "does not exist"),
    "output is a folder": (["--prompt", "x", "--output", "folder.mp4"], "folder"),
    "output is no mp4": (["--prompt", "x", "--output", "a.avi"], ".mp4"),
    "no such device": (["--prompt", "x", "--device", "abacus"], "abacus"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line(case: str, broken: Path) -> None:
    arguments, expected = WRONG[case]
    defaults = {"--model": str(TINY), "--size": "96x64", "--steps": "2", "--output": "out.mp4"}
    if "--frames" not in arguments and "--seconds" not in arguments:
        defaults["--frames"] = "9"
    filled = [*arguments, *(w for k, v in defaults.items() if k not in arguments for w in (k, v))]
    before = sorted(broken.rglob("*"))
    done = run(*filled, cwd=broken)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("generate: ")]
    assert lines[-1:] == errors, done.stderr
    assert expected in errors[0]
    assert "Traceback" not in done.stderr
    assert sorted(broken.rglob("*")) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], check=True)
    try:
        done = run("--prompt", "x", "--output", str(disk / "a.mp4"), *SMALL, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1].startswith("generate: cannot write a.mp4")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_enhanced_prompt_is_told_and_kept_with_the_clip(tmp_path: Path) -> None:
    idea = 'A red ball bounces. A man says "Hello, 世界!"'
    done = run("--prompt", idea, "--enhance", "rules", "--seed", "5", "--output", "clip.mp4", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    settings = read_settings(tmp_path / "clip.mp4")
    assert settings is not None
    assert settings["prompt"].startswith("This video has no subtitles.")
    assert '"Hello, 世界!"' in settings["prompt"]
    assert settings["prompt"].splitlines()[0] in done.stderr
    refused = run("--prompt", idea, "--enhance", "no such model", *SMALL, cwd=tmp_path)
    assert refused.returncode == 2
    assert "no such model" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1

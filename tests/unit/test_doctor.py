"""The doctor: real checks on this machine, and planted faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import doctor
from engine.doctor import Finding

ROOT = Path(doctor.__file__).resolve().parent.parent


def finding(name: str) -> Finding:
    return dict(doctor.CHECKS)[name]()


def test_report_as_text_and_json() -> None:
    """As a user runs it: a line a check, and the same in JSON; the home folder shows in neither."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    outputs = []
    for options in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "engine.doctor", *options], env=environment, capture_output=True, encoding="utf-8"
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        outputs.append(done.stdout)
    text, report = outputs[0], json.loads(outputs[1])
    names = [entry["name"] for entry in report["findings"]]
    assert names == [name for name, _ in doctor.CHECKS]
    assert all(name in text for name in names)
    assert report["status"] in ("ok", "warn")
    assert text.splitlines()[-1].endswith("0 fail")
    for output in outputs:
        assert f"{Path.home()}/" not in output


def test_a_check_that_raises_does_not_stop_the_others() -> None:
    def broken() -> Finding:
        raise OSError("the disk\nis on fire")

    found = doctor.examine([("disk", broken), ("machine", doctor.check_machine)])
    assert [entry.status for entry in found] == ["fail", "ok"]
    assert found[0].summary == "could not be checked: OSError: the disk"


def test_exit_code_and_worst_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Finding("x", "fail", "is broken", "mend it")
    monkeypatch.setattr(doctor, "examine", lambda checks: [Finding("y", "ok", "fine"), bad])
    assert doctor.main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["status"] == "fail"
    assert doctor.main([]) == 1
    assert "-> mend it" in capsys.readouterr().out


def test_wrong_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.metadata.version
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "0.1" if name == "numpy" else real(name))
    assert finding("packages").status == "warn"
    assert "numpy 0.1 (locked: " in finding("packages").summary

    def gone(name: str) -> str:
        if name == "pydub":
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", gone)
    assert (finding("packages").status, finding("packages").summary) == ("fail", "missing: pydub")
    assert "launch.py setup" in finding("packages").todo


@pytest.mark.skipif(os.name == "nt", reason="uses a shell script")
def test_card_that_torch_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("torch has a card here")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 3060'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert finding("device").status == "warn"
    assert "RTX 3060" in finding("device").summary
    assert "launch.py setup" in finding("device").todo


@pytest.mark.parametrize("exit_code", [0, 1])
@pytest.mark.skipif(os.name == "nt", reason="uses a shell script")
def test_ffmpeg_that_does_not_encode(exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho 'Unknown encoder' >&2\nexit {exit_code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    assert (finding("ffmpeg").status, finding("ffmpeg").summary) == ("fail", "cannot encode: Unknown encoder")


def test_missing_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    assert finding("ffmpeg").status == "fail"


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file stands where the folder should be: nobody can write below it, not even an administrator."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(doctor, "folders", lambda: {"data": tmp_path, "models": tmp_path / "file"})
    found = finding("folders")
    assert found.status == "fail"
    assert str(tmp_path / "file") in found.summary


def test_little_disk_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_DISK", 2**60)
    monkeypatch.setattr(doctor, "memory_limit", lambda: 2 * doctor.GIB)
    assert finding("disk").status == "warn"
    assert finding("memory").status == "warn"
    assert finding("memory").summary.startswith("2.0 GiB")


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("memory.max", "max\n", None),
        ("memory.max", "4294967296\n", 4 * 2**30),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("memory/memory.limit_in_bytes", "1073741824\n", 2**30),
    ],
)
def test_memory_limit_of_containers(file: str, text: str, limit: int | None, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert doctor.memory_limit(tmp_path) == limit


def test_home_folder_is_hidden_but_not_its_namesakes() -> None:
    shown = {"a": ["/home/ana/x", "/home/anabel/x"], "b": "in /home/ana, and (/home/ana)", "c": 3}
    hidden = {"a": ["~/x", "/home/anabel/x"], "b": "in ~, and (~)", "c": 3}
    assert doctor.without_secrets(shown, "/home/ana") == hidden
    assert doctor.without_secrets("/x", "/") == "/x"


def test_demo_model_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert finding("demo model").status == "ok"
    folder = tmp_path / "assets" / "models" / "demo"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_bytes(b" " * 2**20)
    assert "1 MiB" in finding("demo model").summary

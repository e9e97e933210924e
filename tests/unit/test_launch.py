"""launch.py and bootstrap/: rules that can be checked without making an environment."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import launch
from bootstrap import front, installer, setup, store

ROOT = Path(launch.__file__).resolve().parent
SOURCES = [ROOT / "launch.py", *sorted((ROOT / "bootstrap").glob("*.py"))]
posix_only = pytest.mark.skipif(os.name == "nt", reason="uses a shell script")


# --- rules of the source -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name != "smoke.py"], ids=lambda path: path.name)
def test_only_the_standard_library_is_imported(path: Path) -> None:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(str(node.module).split(".")[0])
    assert names <= set(sys.stdlib_module_names) | {"bootstrap"}


def test_launch_reads_in_old_pythons_and_asks_for_a_newer_one() -> None:
    text = (ROOT / "launch.py").read_text(encoding="ascii")
    tree = ast.parse(text, feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Match, ast.AsyncFunctionDef)
    assert not any(isinstance(node, newer) for node in ast.walk(tree))
    old = text.replace("if sys.version_info", "sys.version_info = (3, 8)\nif sys.version_info", 1)
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "needs Python 3.11 or newer; this is Python 3.8" in done.stderr


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.10"])
def test_a_real_old_python_gets_one_line(version: str) -> None:
    found = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    if not found:
        pytest.skip(f"no Python {version} on this machine")
    done = subprocess.run([str(found[0]), str(ROOT / "launch.py")], capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert f"this is Python {version}" in done.stderr
    assert "Traceback" not in done.stderr


# --- the command line --------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_needs_no_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(launch.COMMANDS, ["--help"], root=tmp_path) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in launch.COMMANDS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("typed", "hint"), [("generat", "did you mean 'generate'"), ("xyzzy", "--help")])
def test_unknown_command(typed: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(launch.COMMANDS, [typed], root=tmp_path) == 2
    message = capsys.readouterr().err
    assert hint in message
    assert message.count("\n") == 1


def test_command_that_is_not_built_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main({"dance": ("engine.dance", None, "here", "")}, ["dance"], root=tmp_path) == 2
    assert "not part of this version" in capsys.readouterr().err


# --- the package index: which build to ask for -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "system", "asked"),
    [
        ("cpu", "Linux", "torch==2.13.0+cpu"),
        ("cpu", "Windows", "torch==2.13.0+cpu"),
        ("cu130", "Windows", "torch==2.13.0+cu130"),
        ("default", "Darwin", "torch==2.13.0"),
        ("cpu", "Darwin", "torch==2.13.0"),
        ("default", "Linux", "torch==2.13.0"),
    ],
)
def test_the_build_is_named_so_that_no_other_can_come(tag: str, system: str, asked: str) -> None:
    assert setup.torch_pin("torch==2.13.0", tag, system) == asked


# --- whether it answers -------------------------------------------------------------------------------------------


def test_closed_index_is_told_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    assert not setup.index_answers(f"http://127.0.0.1:{port}/whl/cpu/")
    assert time.monotonic() - started < 1


def test_silent_index_does_not_hold_us_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        assert not setup.index_answers(f"http://127.0.0.1:{server.getsockname()[1]}/", seconds=0.3)
        assert time.monotonic() - started < 2


def test_path_too_long_for_windows_is_told_before_anything_is_fetched() -> None:
    longest = setup.WINDOWS_PATH - 2 - setup.LONGEST_INSIDE
    setup.check_path_length(Path("C:" + "x" * (longest - 2)), "nt")
    with pytest.raises(installer.SetupError, match=rf"has {longest + 1} characters, and at most {longest} leave room"):
        setup.check_path_length(Path("C:" + "x" * (longest - 1)), "nt")
    setup.check_path_length(Path("/" + "x" * 300), "posix")


def test_what_was_downloaded_is_added_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = ["  Downloading a-1.whl (1.5 MB)", "Downloading torch (175.5MiB)", "  Using cached b-1.whl (9 MB)"]
    log.write_text("\n".join([*lines, "  Downloading c-2.tar.gz (500 kB)", "Downloading nothing"]))
    assert installer.downloaded(log) == pytest.approx(177.5e6)
    assert installer.downloaded(tmp_path / "none") == 0


# --- places, stamps and progress ---------------------------------------------------------------------------------


def test_lock_hash_does_not_see_line_ends(tmp_path: Path) -> None:
    layout = store.Layout(tmp_path)
    layout.lock_file("base").parent.mkdir()
    layout.lock_file("base").write_bytes(b"a==1\nb==2\n")
    unix = layout.lock_hash("base")
    layout.lock_file("base").write_bytes(b"a==1\r\nb==2\r\n")
    assert layout.lock_hash("base") == unix


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"backend": 1}', "null", "\x00"])
def test_damaged_stamp_is_no_stamp(content: str, tmp_path: Path) -> None:
    (tmp_path / store.STAMP).write_text(content)
    assert store.read_stamp(tmp_path) is None


def fake_env(folder: Path, created: float) -> None:
    """What `store` looks at of an environment."""
    python = store.python_in(folder)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (folder / store.MARK).touch()
    store.write_stamp(folder, store.Stamp("cpu", {"base": str(created)}, store.base_python(folder), created))


@posix_only
def test_stamp_dies_with_its_interpreter(tmp_path: Path) -> None:
    fake_env(tmp_path / "env", 1.0)
    assert store.read_stamp(tmp_path / "env") is not None
    store.python_in(tmp_path / "env").unlink()
    assert store.read_stamp(tmp_path / "env") is None


@posix_only
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_swap_killed_after_each_rename(renames: int, tmp_path: Path) -> None:
    """Whatever the moment, the next start finds a whole environment and no leftovers."""
    layout = store.Layout(tmp_path)
    fake_env(layout.env, 1.0)
    side = layout.new_side()
    fake_env(side, 2.0)
    killed = f"""if True:
        import os, pathlib
        from bootstrap import store
        rename, left = os.rename, [{renames}]
        def fragile(*places):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            rename(*places)
        os.rename = fragile
        store.remove, really = lambda folder: os._exit(9) if left[0] == 0 else really(folder), store.remove
        store.swap_in(store.Layout(pathlib.Path({str(tmp_path)!r})), pathlib.Path({str(side)!r}))
    """
    done = subprocess.run([sys.executable, "-c", killed], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (9, "")
    store.recover(layout)
    stamp = store.read_stamp(layout.env)
    assert stamp is not None
    assert stamp.created == (1.0 if renames == 0 else 2.0)
    assert layout.sides() == []


@posix_only
def test_an_environment_of_somebody_else_is_kept(tmp_path: Path) -> None:
    layout = store.Layout(tmp_path)
    layout.env.mkdir()
    (layout.env / "precious").touch()
    side = layout.new_side()
    fake_env(side, 2.0)
    kept = store.swap_in(layout, side)
    assert kept is not None
    assert (kept / "precious").is_file()
    assert store.read_stamp(layout.env) is not None


@posix_only
def test_scripts_point_at_the_final_place(tmp_path: Path) -> None:
    side, final = tmp_path / ".vabc", tmp_path / ".venv"
    scripts = store.python_in(side).parent
    scripts.mkdir(parents=True)
    (side / "pyvenv.cfg").write_text(f"command = python -m venv {side}\n", encoding="utf-8")
    cached = tmp_path / "cached"
    cached.write_bytes(b"\x00MZ#!" + os.fsencode(scripts / "python") + b"\nPK\x03\x04")
    cached.chmod(0o755)
    os.link(cached, scripts / "tool")
    store.point_scripts_at(side, final)
    assert (scripts / "tool").read_bytes() == b"\x00MZ#!" + os.fsencode(final / "bin" / "python") + b"\nPK\x03\x04"
    assert os.access(scripts / "tool", os.X_OK)
    assert b".vabc" in cached.read_bytes()  # an installer's cache is not ours to change
    assert str(final) in (side / "pyvenv.cfg").read_text(encoding="utf-8")


def test_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    layout = store.Layout(tmp_path)
    other = f"""if True:
        import pathlib, sys
        from bootstrap import store
        with store.exclusive(store.Layout(pathlib.Path({str(tmp_path)!r})), lambda: print("waits", flush=True)):
            print("has it", flush=True)
    """
    with store.exclusive(layout, pytest.fail):
        process = subprocess.Popen([sys.executable, "-c", other], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8")
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        assert process.poll() is None
    assert process.communicate(timeout=90)[0] == "has it\n"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Collecting numpy==2.4.6 (from -r x.txt (line 3))", "3 of 9  numpy==2.4.6"),
        ("  Downloading numpy-2.4.6-cp311-cp311-win_amd64.whl (16.1 MB)", "3 of 9  downloading numpy (16.1 MB)"),
        (
            "  Using cached https://host/a/torch-2.13.0-cp311-none.whl (190.2 MB)",
            "3 of 9  using cached torch (190.2 MB)",
        ),
        ("Progress 5000000 of 190000000", "3 of 9  5 of 190 MB"),
        (" + einops==0.8.2", "3 of 9  einops==0.8.2"),
        ("Installing collected packages: a, b, c", "unpacking 3 packages"),
        ("something else", ""),
    ],
)
def test_progress_in_words(line: str, shown: str) -> None:
    assert installer._describe(line, seen=3, total=9) == shown


def test_foreign_settings_do_not_reach_the_installers() -> None:
    dirty = {"PATH": "/bin", "PYTHONHOME": "/x", "PYTHONPATH": "/y", "PIP_TARGET": "/z", "PIP_USER": "1"}
    clean = installer.clean_environment(dirty)
    assert clean["PATH"] == "/bin"
    assert clean["PIP_USER"] == "0"
    assert not {"PYTHONHOME", "PYTHONPATH", "PIP_TARGET"} & set(clean)


def test_stamp_survives_a_round_trip(tmp_path: Path) -> None:
    stamp = store.Stamp("cpu", {"base": "abc"}, store.base_python(tmp_path), 1.5)
    store.write_stamp(tmp_path, stamp)
    assert store.read_stamp(tmp_path) == stamp
    raw = json.loads((tmp_path / store.STAMP).read_text())
    (tmp_path / store.STAMP).write_text(json.dumps({**raw, "format": store.FORMAT + 1}))
    assert store.read_stamp(tmp_path) is None

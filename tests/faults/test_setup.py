"""Real set-ups: a copy of launch.py and bootstrap/ in a folder with an awkward name, and a lock of tiny wheels."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bootstrap import store

SOURCE = Path(store.__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes the POSIX way")

# Stands in for bootstrap/smoke.py: the real check of files, and a failure on demand.
SMOKE = """
import importlib.util, pathlib, sys
here = pathlib.Path(__file__).parent
spec = importlib.util.spec_from_file_location("real", here / "real_smoke.py")
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)
real.MODULES = ("torch", "tinything")
real.check_matmul = real.check_encode = lambda backend: "left out"
if (here / "broken").exists():
    sys.exit("smoke test fails as asked")
sys.exit(real.main())
"""

# Stands in for the command line: tells what it got.
CLI = """
import json, os, signal, sys, time
import tinything, torch
if sys.argv[1:] == ["sleep"]:
    try:
        print("sleeping", flush=True)
        time.sleep(30)
    except KeyboardInterrupt:
        sys.exit(130)
told = {"argv": sys.argv[1:], "cwd": os.getcwd(), "prefix": sys.prefix, "torch": torch.BUILD}
print(json.dumps(told))
sys.exit(int(sys.argv[1]) if sys.argv[1:] else 0)
"""


def write_wheel(folder: Path, name: str, version: str, code: str, requires: str = "", script: str = "") -> None:
    """A wheel made by hand: one module, perhaps one requirement and one console script."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script} = {name}:main\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in files) + f"{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    (folder / f"{name}-{version}-py3-none-any.whl").write_bytes(buffer.getvalue())


class Project:
    """A small project with the real front door."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = store.Layout(root)
        wheels = root / "requirements" / "wheels"
        wheels.mkdir(parents=True)
        shutil.copytree(SOURCE / "bootstrap", root / "bootstrap", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(SOURCE / "launch.py", root)
        (root / "bootstrap" / "smoke.py").rename(root / "bootstrap" / "real_smoke.py")
        (root / "bootstrap" / "smoke.py").write_text(SMOKE)
        (root / "app").mkdir()
        (root / "app" / "generate.py").write_text(CLI)
        write_wheel(wheels, "tinything", "1.0", "VERSION = 1\ndef main():\n    print('tiny')\n", script="tiny")
        write_wheel(wheels, "tinything", "2.0", "VERSION = 2\ndef main():\n    print('tiny')\n", script="tiny")
        write_wheel(wheels, "torch", "2.13.0+cpu", "BUILD = 'cpu'\n")
        # like the registry's build for Linux: same version without a name, and gigabytes behind it
        write_wheel(wheels, "torch", "2.13.0", "BUILD = 'cuda'\n", requires="nvidia-gigabytes==1.0")
        write_wheel(wheels, "nvidia_gigabytes", "1.0", "")
        # stands in for pytest: `launch.py test` runs the module of that name
        write_wheel(wheels, "pytest", "1.0", "import os, sys\nprint('tests', os.getcwd(), *sys.argv[1:])\n")
        self.lock("base", "torch==2.13.0", "tinything==1.0")
        self.lock("test", "pytest==1.0")

    def lock(self, group: str, *pins: str) -> None:
        path = self.root / "requirements" / f"{group}.txt"
        path.write_text("# made by hand\n--only-binary :all:\n" + "".join(f"{pin}\n" for pin in pins))

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MOVA_"))}
        wheels = str(self.root / "requirements" / "wheels").replace(" ", "%20")
        # A closed port for PyTorch's index, and nothing but our own wheels for all the rest.
        kept.update(MOVA_TORCH_INDEX="http://127.0.0.1:9", MOVA_NO_UV="1", PATH=os.environ["PATH"])
        kept.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=f"file://{wheels}", PIP_CONFIG_FILE=os.devnull)
        kept.update(MOVA_BACKEND="cpu")
        return {**kept, **more}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.root / "launch.py"), *arguments]

    def start(self, *arguments: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=cwd or self.root,
            env=self.environment(**more),
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            stdin=subprocess.DEVNULL,
        )

    def works(self) -> bool:
        return self.start("generate").returncode == 0

    def leftovers(self) -> list[Path]:
        return [path for path in self.root.glob(".v???") if path.name != ".venv"]


@contextlib.contextmanager
def stopped_at(project: Project, text: str, how: signal.Signals) -> Iterator[subprocess.Popen[str]]:
    """Run a set-up until it says `text`, send its whole group a signal, wait for its end."""
    process = subprocess.Popen(
        project.command("generate"),
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            break
    else:
        pytest.fail(f"{text!r} was never said: {said}")
    time.sleep(0.05)
    os.killpg(process.pid, how)
    process.stdout.read()
    process.stdout.close()
    process.wait(timeout=120)
    yield process


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that is set up; tests that change it leave it working."""
    project = Project(tmp_path_factory.mktemp("setup") / "Größe mit Leerzeichen")
    done = project.start("generate", "0")
    assert done.returncode == 0, done.stderr
    # what the user saw
    steps = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert [line[:5] for line in steps] == [f"[{number}/6]" for number in range(1, 7)]
    assert "Ready after" in done.stderr
    assert project.leftovers() == []
    return project


def test_torch_is_the_build_without_cuda(ready: Project) -> None:
    told = json.loads(ready.start("generate").stdout)
    assert told["torch"] == "cpu"
    assert not list(ready.layout.env.rglob("nvidia*"))


def test_arguments_exit_code_and_folder_are_passed_on(ready: Project, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")  # nothing from here may be imported
    done = ready.start("generate", "7", "two words", "--größe", "", cwd=tmp_path)
    assert done.returncode == 7
    told = json.loads(done.stdout)
    assert told["argv"] == ["7", "two words", "--größe", ""]
    assert told["cwd"] == str(tmp_path)
    assert told["prefix"] == str(ready.layout.env)


def test_second_start_is_fast_and_touches_nothing(ready: Project) -> None:
    """Neither a socket nor another program before the command takes over, and the command within a second."""
    watched = f"""if True:
        import runpy, sys
        def watch(event, arguments):
            if event.startswith("socket.") or event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork"):
                raise SystemExit(f"forbidden: {{event}}")
        sys.addaudithook(watch)
        sys.argv = ["launch.py", "generate"]
        sys.path.insert(0, {str(ready.root)!r})
        runpy.run_path({str(ready.root / "launch.py")!r}, run_name="__main__")
    """
    done = subprocess.run(
        [sys.executable, "-c", watched], env=ready.environment(), capture_output=True, encoding="utf-8"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["prefix"] == str(ready.layout.env)

    times = []
    for _ in range(3):
        started = time.perf_counter()
        assert ready.works()
        times.append(time.perf_counter() - started)
    assert min(times) < 1.0


def test_console_scripts_work_after_the_swap(ready: Project) -> None:
    script = ready.layout.env / "bin" / "tiny"
    assert subprocess.run([str(script)], capture_output=True, encoding="utf-8").stdout == "tiny\n"


def test_ctrl_c_reaches_the_command(ready: Project) -> None:
    process = subprocess.Popen(
        ready.command("generate", "sleep"),
        env=ready.environment(),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "sleeping\n"
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=90)
    assert process.returncode == 130


def test_no_command_names_the_one_that_works(ready: Project) -> None:
    done = ready.start()
    assert done.returncode == 0
    assert "generate" in done.stdout
    assert done.stdout.count("\n") == 1


def test_missing_group_is_added_in_place(ready: Project, tmp_path: Path) -> None:
    """With a uv in the way that cannot install, as where packages come from pip's own configuration."""
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\nexit 2\n")
    uv.chmod(0o755)
    before = store.read_stamp(ready.layout.env)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = ready.start("test", "-k", "launch", cwd=tmp_path, MOVA_NO_UV="", PATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"tests {ready.root} -k launch\n"
    assert "pip does it" in done.stderr
    after = store.read_stamp(ready.layout.env)
    assert before is not None
    assert after is not None
    assert after.created == before.created  # the same environment, one group more
    assert set(after.groups) == {"base", "test"}
    assert ready.start("test", "again").stderr == ""


def test_failing_smoke_test_leaves_the_old_environment(ready: Project) -> None:
    """An update whose packages install but do not work: the version in use goes on working, and the repeat succeeds."""
    before = (ready.layout.env / store.STAMP).read_bytes()
    (ready.root / "bootstrap" / "broken").touch()
    ready.lock("base", "torch==2.13.0", "tinything==2.0")
    try:
        done = ready.start("generate")
        assert done.returncode == 1
        assert "Set-up failed; nothing was changed" in done.stderr
        assert "smoke test fails as asked" in done.stderr
        assert (ready.layout.env / store.STAMP).read_bytes() == before
        assert ready.leftovers() == []
    finally:
        (ready.root / "bootstrap" / "broken").unlink()
        ready.lock("base", "torch==2.13.0", "tinything==1.0")
    assert ready.works()


def test_setup_repairs_a_damaged_environment(ready: Project) -> None:
    assert ready.start("setup").returncode == 0
    [module] = ready.layout.env.rglob("tinything.py")
    module.unlink()
    assert not ready.works()
    done = ready.start("setup")
    assert done.returncode == 0, done.stderr
    assert ready.works()


def test_addition_that_was_killed(ready: Project) -> None:
    """Half an added group: what was there before goes on working at once; the group's command rebuilds."""
    stamp = store.read_stamp(ready.layout.env)
    assert stamp is not None
    store.write_stamp(ready.layout.env, replace(stamp, groups={"base": stamp.groups["base"]}))
    (ready.layout.env / store.ADDING).touch()
    assert ready.start("generate").stderr == ""
    done = ready.start("test")
    assert done.returncode == 0, done.stderr
    assert "[6/6]" in done.stderr
    assert ready.works()


def test_killed_and_repeated(tmp_path: Path) -> None:
    """SIGKILL at three points of a first set-up: never an environment that counts as valid; then it succeeds."""
    project = Project(tmp_path / "Ключ 钥匙")
    for point in ("[2/6]", "[3/6]", "[5/6]"):
        with stopped_at(project, point, signal.SIGKILL) as process:
            assert process.returncode == -signal.SIGKILL
        assert not project.layout.env.exists()
        assert all(store.read_stamp(side) is None for side in project.leftovers())
    with stopped_at(project, "[3/6]", signal.SIGINT) as process:
        assert process.returncode == 130
    assert project.leftovers() == []  # interrupted, it tidies up behind itself and behind those before
    assert project.works()


def test_two_at_once(tmp_path: Path) -> None:
    """The second waits for the first and uses what it made."""
    project = Project(tmp_path / "twice")
    both = [
        subprocess.Popen(
            project.command("generate"),
            env=project.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("Ready after" in text for text in said) == [False, True]
    assert sum("waiting for it to end" in text for text in said) == 1
    assert project.leftovers() == []


def test_no_build_without_cuda_to_be_had(tmp_path: Path) -> None:
    """Gigabytes are never fetched by mistake: set-up stops and says what can be done."""
    project = Project(tmp_path / "none")
    [named] = (project.root / "requirements" / "wheels").glob("torch-*cpu*")
    named.unlink()
    done = project.start("generate")
    assert done.returncode == 1
    assert "torch==2.13.0+cpu could not be installed" in done.stderr
    assert "MOVA_TORCH_INDEX" in done.stderr
    assert not project.layout.env.exists()
    assert project.leftovers() == []


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    project = Project(tmp_path / "closed")
    (project.root / ".venv-setup").write_text("a file where a folder is needed")
    done = project.start("generate")
    assert done.returncode == 1
    assert "Set-up failed; nothing was changed" in done.stderr
    assert "Traceback" not in done.stderr

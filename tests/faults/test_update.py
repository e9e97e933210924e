"""Updates of a small project: good ones, broken ones, killed ones. The version in use must go on working."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bootstrap import package, store, update
from tests.faults.test_setup import Project

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes the POSIX way")

CLI = """
import sys, tinything
if sys.argv[1:] == ["--help"]:
    print("usage")
    sys.exit(0)
print("version {version} with tinything", tinything.VERSION)
"""
# A command that does not start once it lies in the program's own folder.
ONLY_BESIDE = """
import sys
sys.exit(0 if ".update" in __file__ else "not here")
"""
# Kills the process at the N-th rename of the swap. The new environment is a copy, which is faster than a new one.
KILLED = """
import os, shutil, signal, sys
from dataclasses import replace
from pathlib import Path
root, archive, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
sys.path.insert(0, str(root))
from bootstrap import store, update
def build(layout, groups):
    side = layout.new_side()
    shutil.copytree(layout.env, side, symlinks=True, dirs_exist_ok=True)
    stamp = store.read_stamp(layout.env)
    store.write_stamp(side, replace(stamp, groups={group: layout.lock_hash(group) for group in groups}))
    return side
update.build_beside = build
real, count = os.rename, 0
def counted(*arguments):
    global count
    count += 1
    if count == last:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments)
os.rename = counted
sys.exit(update.main([archive], root))
"""


class Installed(Project):
    """A project that came as a release, and makes archives of other versions."""

    def __init__(self, root: Path, archives: Path) -> None:
        super().__init__(root)
        self.archives = archives
        self.version("1.0", "1.0")
        archive = self.archive("1.0")
        shutil.copy(root / "pyproject.toml", archives)
        with zipfile.ZipFile(archive) as file:
            (root / package.RELEASE).write_bytes(file.read(f"mova-studio-1.0/{package.RELEASE}"))
        (root / "assets").mkdir(exist_ok=True)
        done = self.start("generate")
        assert done.returncode == 0, done.stderr

    def version(self, number: str, tiny: str, cli: str = CLI, folder: Path | None = None) -> None:
        folder = folder or self.root
        (folder / "pyproject.toml").write_text(f'version = "{number}"\n')
        (folder / "app" / "generate.py").write_text(cli.replace("{version}", number))
        lock = "# made by hand\n--only-binary :all:\ntorch==2.13.0\n"
        (folder / "requirements" / "base.txt").write_text(f"{lock}tinything=={tiny}\n")

    def archive(self, number: str, folder: Path | None = None) -> Path:
        folder = folder or self.root
        paths = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        ours = re.compile(r"(launch\.py|pyproject\.toml|bootstrap/|app/|assets/|requirements/[a-z]+\.txt)")
        return package.make(folder, self.archives, [p for p in paths if ours.match(p) and "__pycache__" not in p])

    def other(self, number: str, tiny: str = "1.0", cli: str = CLI) -> Path:
        """The archive of another version."""
        tree = self.archives / f"tree-{number}"
        shutil.copytree(self.root, tree, ignore=shutil.ignore_patterns(".v*", ".update", "__pycache__", "wheels"))
        (tree / package.RELEASE).unlink()
        self.version(number, tiny, cli, tree)
        (tree / "assets").mkdir(exist_ok=True)
        (tree / "assets" / f"new-{number}").touch()
        return self.archive(number, tree)

    def says(self) -> str:
        done = self.start("generate")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("update") / "Mein Stüdio", tmp_path_factory.mktemp("archives"))


def whole(project: Installed) -> None:
    """Version 1.0 is in use, exactly its files are there, and nothing of another one."""
    assert project.says() == "version 1.0 with tinything 1"
    release = package.read_release(project.root)
    assert release.version == "1.0"
    for path, digest in release.files.items():
        assert package.sha256(project.root / path) == digest, path
    assert not list((project.root / "assets").glob("new-*"))
    assert project.leftovers() == []
    assert not (project.root / update.FOLDER / "journal").exists()


def test_update_and_back_again(installed: Installed) -> None:
    (installed.root / "assets" / "my own.png").write_bytes(b"mine")
    (installed.root / "outputs").mkdir(exist_ok=True)
    archive = installed.other("2.0", "2.0")
    done = installed.start("update", str(archive), "--sha256", package.sha256(archive))
    assert done.returncode == 0, done.stderr
    assert "Version 2.0 is in use after" in done.stderr
    assert installed.says() == "version 2.0 with tinything 2"
    assert (installed.root / "assets" / "my own.png").read_bytes() == b"mine"
    assert (installed.root / "assets" / "new-2.0").exists()
    back = installed.start("update", "--rollback")
    assert back.returncode == 0, back.stderr
    assert re.search(r"Version 1\.0 is back after \d+\.\d\d s", back.stderr)
    assert (installed.root / "assets" / "my own.png").read_bytes() == b"mine"
    whole(installed)
    assert "no version before this one" in installed.start("update", "--rollback").stderr


def test_version_that_does_not_start_is_refused(installed: Installed) -> None:
    done = installed.start("update", str(installed.other("3.0", cli="raise SystemExit('broken')")))
    assert done.returncode == 1
    assert "app.generate of the new version does not start" in done.stderr
    assert "broken" in done.stderr
    whole(installed)


def test_packages_that_do_not_work_are_refused(installed: Installed) -> None:
    (installed.root / "bootstrap" / "broken").touch()  # as in the tests of set-up: the smoke test fails
    try:
        archive = installed.other("3.1", "2.0")
        with zipfile.ZipFile(archive) as file:
            assert "mova-studio-3.1/bootstrap/broken" in file.namelist()
    finally:
        (installed.root / "bootstrap" / "broken").unlink()
    done = installed.start("update", str(archive))
    assert done.returncode == 1
    assert "smoke test fails as asked" in done.stderr
    whole(installed)


def test_version_that_fails_in_its_place_is_taken_back(installed: Installed) -> None:
    done = installed.start("update", str(installed.other("3.2", "2.0", cli=ONLY_BESIDE)))
    assert done.returncode == 1
    assert re.search(r"did not start in its place; the old one is back after \d+\.\d\d s", done.stderr), done.stderr
    whole(installed)


def test_killed_at_every_rename(installed: Installed, tmp_path: Path) -> None:
    """The next start, with whatever command, puts the old version back and runs it."""
    archive = installed.other("4.0", "2.0")
    for last in range(1, 60):
        command = [sys.executable, "-c", KILLED, str(installed.root), str(archive), str(last)]
        done = subprocess.run(command, env=installed.environment(), capture_output=True, encoding="utf-8")
        if done.returncode != -signal.SIGKILL:
            break
        started = installed.start("generate")
        assert started.returncode == 0, started.stderr
        assert started.stdout == "version 1.0 with tinything 1\n", f"killed at rename {last}"
        if (installed.root / update.FOLDER / "old").is_dir() and "interrupted" in started.stderr:
            whole(installed)
    assert last > 8
    assert done.returncode == 0, done.stderr
    assert installed.says() == "version 4.0 with tinything 1"
    assert installed.start("update", "--rollback").returncode == 0
    whole(installed)


def damaged(archive: Path, kind: str, target: Path) -> Path:
    """A copy of an archive with something wrong."""
    if kind == "cut":
        target.write_bytes(archive.read_bytes()[:-500])
        return target
    if kind == "nonsense":
        target.write_bytes(os.urandom(5000))
        return target
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as sink:
        for info in source.infolist():
            data = source.read(info)
            if kind == "changed file" and info.filename.endswith("app/generate.py"):
                data += b"# one more line"
            if info.filename.endswith(package.RELEASE):
                said = json.loads(data)
                if kind == "leads out":
                    said["files"]["../../evil.py"] = "0" * 64
                if kind == "into the environment":
                    said["files"][".venv/evil.pth"] = "0" * 64
                if kind == "another program":
                    said["files"] = {"setup.exe": "0" * 64}
                data = json.dumps(said).encode()
            if kind == "file missing" and info.filename.endswith("app/generate.py"):
                continue
            sink.writestr(info.filename, data)
    return target


KINDS = ("cut", "nonsense", "changed file", "leads out", "into the environment", "another program", "file missing")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_archive_is_refused(kind: str, installed: Installed, tmp_path: Path) -> None:
    archive = damaged(installed.archives / "mova-studio-1.0.zip", kind, tmp_path / "bad.zip")
    with pytest.raises(package.ReleaseError):
        package.unpack(archive, tmp_path / "unpacked")
    assert not (tmp_path / "evil.py").exists()
    assert not (tmp_path / "unpacked" / ".venv").exists()


def test_refusals_in_words(installed: Installed, tmp_path: Path) -> None:
    archive = installed.archives / "mova-studio-1.0.zip"
    assert "another sha256" in installed.start("update", str(archive), "--sha256", "0" * 64).stderr
    assert "there is no file" in installed.start("update", "nothing.zip").stderr
    assert "cannot be fetched" in installed.start("update", "https://127.0.0.1:9/x.zip").stderr
    release = installed.root / package.RELEASE
    release.rename(tmp_path / "kept")
    try:
        assert "git pull" in installed.start("update", str(archive)).stderr
    finally:
        (tmp_path / "kept").rename(release)
    whole(installed)


def test_uninstall_says_what_goes_and_what_stays(installed: Installed, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".local" / "share" / "mova-studio").mkdir(parents=True)
    places = {"HOME": str(home), "XDG_DATA_HOME": "", "XDG_CACHE_HOME": ""}
    assert installed.start("shortcuts", **places).returncode == 0
    assert installed.start("uninstall", **places).returncode == 1  # nobody to ask
    assert installed.layout.env.exists()
    done = installed.start("uninstall", "--yes", **places)
    assert done.returncode == 0, done.stderr
    assert not installed.layout.env.exists()
    assert not (installed.root / ".venv-setup").exists()
    assert "mova-studio  0 MB  (clips, models and settings" in done.stdout
    assert (home / ".local" / "share" / "mova-studio").is_dir()
    assert not list(home.rglob("*.desktop"))
    assert store.read_stamp(installed.layout.env) is None
    assert installed.says() == "version 1.0 with tinything 1"  # and set up again when started

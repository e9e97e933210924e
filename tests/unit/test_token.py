"""The hub's token: in a keyring where there is one, else in a file for its owner alone; and nowhere else."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

from engine.downloads import token as tokens
from engine.downloads.hub import DownloadError
from engine.downloads.token import SERVICE, keep_token, note_file, read_token, token_file, where

SECRET = "hf_Zq81LmNoPq"  # noqa: S105
ROOT = Path(__file__).resolve().parents[2]


class Memory(KeyringBackend):
    """A backend as a system's: holds what it is given, and can be locked, slow or broken."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}
        self.asked = 0
        self.broken = ""
        self.slow = 0.0

    def _answer(self) -> None:
        self.asked += 1
        time.sleep(self.slow)
        if self.broken:
            raise RuntimeError(self.broken)

    def get_password(self, service: str, username: str) -> str | None:
        self._answer()
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._answer()
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._answer()
        if (service, username) not in self.held:
            raise PasswordDeleteError("no such password")
        del self.held[service, username]


class Weak(Memory):
    """One that keeps passwords as anyone can read them, as some do."""

    priority = 0.5  # type: ignore[assignment]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    before, backend = keyring.get_keyring(), Memory()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


def test_a_keyring_holds_it_and_no_file_does(backend: Memory, tmp_path: Path) -> None:
    assert keep_token(tmp_path, f" {SECRET}\n") == "keyring"
    assert list(backend.held.items()) == [((SERVICE, str(tmp_path)), SECRET)]
    assert read_token(tmp_path) == SECRET
    assert where(tmp_path) == "keyring"
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert keep_token(tmp_path, "") == ""
    assert (backend.held, list(tmp_path.iterdir()), read_token(tmp_path)) == ({}, [], "")


def test_where_no_token_was_kept_no_keyring_is_asked(backend: Memory, tmp_path: Path) -> None:
    """A locked one would ask its user for a password, and for nothing."""
    assert (read_token(tmp_path), where(tmp_path), backend.asked) == ("", "", 0)
    keep_token(tmp_path, "")
    assert backend.asked == 0


def test_two_folders_have_tokens_of_their_own(backend: Memory, tmp_path: Path) -> None:
    keep_token(tmp_path / "one", SECRET)
    keep_token(tmp_path / "two", SECRET[::-1])
    keep_token(tmp_path / "two", "")
    assert read_token(tmp_path / "one") == SECRET


def test_a_file_before_moves_into_the_keyring(backend: Memory, tmp_path: Path) -> None:
    backend.broken = "locked"
    assert keep_token(tmp_path, SECRET) == "file"
    backend.broken = ""
    assert read_token(tmp_path) == SECRET
    assert keep_token(tmp_path, SECRET) == "keyring"
    assert not token_file(tmp_path).exists()


@pytest.mark.parametrize("fault", ["weak", "broken", "silent"])
def test_without_a_good_keyring_a_file_for_its_owner_alone(
    backend: Memory, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    if fault == "weak":
        keyring.set_keyring(Weak())
    elif fault == "broken":
        backend.broken = f"cannot keep {SECRET}"  # what a backend says of itself may hold anything
    else:
        backend.slow = 5.0
        monkeypatch.setattr(tokens, "KEYRING_SECONDS", 0.2)
    former = os.umask(0)
    try:
        assert keep_token(tmp_path, SECRET) == "file"
    finally:
        os.umask(former)
    if os.name != "nt":
        assert stat.S_IMODE(token_file(tmp_path).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [token_file(tmp_path).name]
    assert read_token(tmp_path) == SECRET
    assert SECRET not in caplog.text


def test_one_that_its_owner_deleted_in_the_keyring(
    backend: Memory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_token(tmp_path, SECRET)
    backend.held.clear()
    assert read_token(tmp_path) == ""
    assert "keep it again in Settings" in caplog.text
    keep_token(tmp_path, "")
    assert not note_file(tmp_path).exists()


def test_a_keyring_that_does_not_let_go_is_told(backend: Memory, tmp_path: Path) -> None:
    keep_token(tmp_path, SECRET)
    backend.broken = "locked"
    with pytest.raises(DownloadError, match="delete 'mova-studio hub token' in it yourself"):
        keep_token(tmp_path, "")
    assert where(tmp_path) == "keyring"


def test_what_is_no_token_is_refused_and_not_repeated(backend: Memory, tmp_path: Path) -> None:
    for bad in ("two words", "short", "größe-größe", "x" * 513):
        with pytest.raises(DownloadError, match="not a token") as told:
            keep_token(tmp_path, bad)
        assert bad not in str(told.value)


def test_the_environment_comes_first(backend: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_token(tmp_path, SECRET)
    monkeypatch.setenv("HF_TOKEN", "hf_from_outside")
    assert (read_token(tmp_path), where(tmp_path)) == ("hf_from_outside", "environment")


def test_the_real_library_on_a_machine_without_a_keyring(tmp_path: Path) -> None:
    """In a process of its own, as the command line has it."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    environment |= {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "engine.downloads.cli", "--data-dir", str(tmp_path), "--verbose", "token"]
    done = subprocess.run(command, input=f"{SECRET}\n", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "for you alone to read" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert token_file(tmp_path).read_text().strip() == SECRET


# Runs inside a session bus of its own, with a keyring of its own, in an empty home folder.
IN_A_SESSION = """
import subprocess, sys
from pathlib import Path
subprocess.run(["gnome-keyring-daemon", "--unlock", "--components=secrets"], input=b"secret", check=True, stdout=-3)
import keyring
from engine.downloads.token import keep_token, read_token, where
folder, token = Path(sys.argv[1]), sys.stdin.readline().strip()
print(type(keyring.get_keyring()).__module__, keep_token(folder, token), where(folder))
assert read_token(folder) == token
print([path.name for path in folder.iterdir()])
keep_token(folder, "")
print(repr(read_token(folder)), [path.name for path in folder.iterdir()])
"""


@pytest.mark.skipif(
    not (shutil.which("dbus-run-session") and shutil.which("gnome-keyring-daemon")),
    reason="no gnome-keyring and session bus on this machine",
)
def test_a_real_keyring_of_linux(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    places = {f"XDG_{name}": str(tmp_path / "home" / name) for name in ("DATA_HOME", "CACHE_HOME", "RUNTIME_DIR")}
    for place in places.values():
        Path(place).mkdir(parents=True, mode=0o700)
    environment |= places | {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    environment |= {"PYTHON_KEYRING_BACKEND": "keyring.backends.SecretService.Keyring"}
    done = subprocess.run(
        ["dbus-run-session", "--", sys.executable, "-c", IN_A_SESSION, str(tmp_path / "data")],
        input=f"{SECRET}\n",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "keyring.backends.SecretService keyring keyring",
        "['hub-token.in-keyring']",
        "'' []",
    ]
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert holding == []  # the keyring's own file is encrypted

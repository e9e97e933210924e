"""The hub's token: kept where only its owner can read it, and told to nobody but the hub.

It lies in the system's keyring where there is one (Keychain, Windows' Credential Manager, the Secret Service, KWallet),
else in a file of mode 0600. A small file without the token says that the keyring holds it: without that file the
keyring is never asked, so that a download of a free model never makes the system ask for a password.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from engine.downloads.hub import DownloadError

log = logging.getLogger(__name__)

SERVICE = "mova-studio hub token"  # what the system's own list of passwords calls it
FORM = re.compile(r"[\x21-\x7e]{8,512}")
KEYRING_SECONDS = 60.0  # the system may be asking its user to unlock it
RECOMMENDED = 1  # priority from which a backend of keyring guards what it holds; below are files and stubs

Place = Literal["environment", "keyring", "file", ""]
T = TypeVar("T")


def token_file(folder: Path) -> Path:
    """Where the token lies, where no keyring has it."""
    return folder / "hub-token"


def note_file(folder: Path) -> Path:
    """Exists where the keyring holds the token of this folder."""
    return folder / "hub-token.in-keyring"


def where(folder: Path) -> Place:
    """Where the token is; "" where there is none. Asks no keyring."""
    if os.environ.get("HF_TOKEN", "").strip():
        return "environment"
    if note_file(folder).is_file():
        return "keyring"
    return "file" if token_file(folder).is_file() else ""


def read_token(folder: Path) -> str:
    """The token: HF_TOKEN, else the one that `keep_token` kept, else ""."""
    if token := os.environ.get("HF_TOKEN", "").strip():
        return token
    if note_file(folder).is_file():
        keyring = _keyring()
        held = keyring and _asked(lambda: keyring.get_password(SERVICE, _account(folder)), "read")
        if held:
            return str(held)
        log.warning("the system's keyring does not give the hub's token; keep it again in Settings")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return token_file(folder).read_text(encoding="ascii").strip()
    return ""


def keep_token(folder: Path, token: str) -> Place:
    """Keeps the token; "" removes it. Returns where it is now.

    Raises:
        DownloadError: it does not look like a token; the message does not hold it.
    """
    token = token.strip()
    if not token:
        _forget(folder)
        return ""
    if not FORM.fullmatch(token):
        raise DownloadError("that is not a token: a token is one word of letters, digits and signs")
    folder.mkdir(parents=True, exist_ok=True)
    keyring = _keyring()
    if keyring is not None and _asked(lambda: keyring.set_password(SERVICE, _account(folder), token) or True, "write"):
        note_file(folder).touch()
        token_file(folder).unlink(missing_ok=True)
        return "keyring"
    _write(token_file(folder), token)
    note_file(folder).unlink(missing_ok=True)
    return "file"


def _forget(folder: Path) -> None:
    token_file(folder).unlink(missing_ok=True)
    if not note_file(folder).is_file():
        return
    keyring = _keyring()

    def delete() -> bool:
        if keyring.get_password(SERVICE, _account(folder)) is not None:  # its owner may have done it there
            keyring.delete_password(SERVICE, _account(folder))
        return True

    if keyring is None or not _asked(delete, "delete"):
        raise DownloadError(f"the system's keyring does not let go of the token; delete {SERVICE!r} in it yourself")
    note_file(folder).unlink(missing_ok=True)


def _account(folder: Path) -> str:
    """Two studios with folders of their own have tokens of their own."""
    return str(folder.resolve())


def _keyring() -> Any:
    """A backend that guards what it holds, or None."""
    import keyring

    found = _asked(keyring.get_keyring, "find")
    return found if found is not None and getattr(found, "priority", 0) >= RECOMMENDED else None


def _asked(question: Callable[[], T], doing: str) -> T | None:
    """The answer of a keyring; None where it fails or says nothing for long. What it says of itself is not logged:
    nobody knows what a backend puts into its errors."""
    answers: list[T] = []

    def ask() -> None:
        try:
            answers.append(question())
        except Exception as error:  # each backend has its own
            log.info("the system's keyring could not %s: %s", doing, type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(KEYRING_SECONDS)
    return answers[0] if answers else None


def _write(path: Path, token: str) -> None:
    """For its owner alone from the first byte on, whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
    os.replace(fresh, path)

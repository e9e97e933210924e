"""Makes a release archive: `python launch.py package [--output FOLDER]`; and reads one.

The archive holds one folder, and in it `release.json`: the version and the sha256 of every file. What an archive is
unpacked to is decided by that list alone, so nothing can lie beside or above the folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

RELEASE = "release.json"
LEFT_OUT = re.compile(r"(\.ci|tests|runs|outputs|\.git[^/]*)(/|$)")
MOMENT = (2026, 1, 1, 0, 0, 0)  # of every file in the archive, so that the same tree gives the same archive
LARGEST = 4 * 2**30  # of all files of a release together


class ReleaseError(Exception):
    """The archive is not a release of this program, or it is damaged."""


@dataclass(frozen=True)
class Release:
    """What `release.json` says. `files` maps paths with slashes to sha256 in hex."""

    version: str
    files: dict[str, str]

    @property
    def entries(self) -> list[str]:
        """Names directly in the program's folder."""
        return sorted({path.split("/")[0] for path in self.files} | {RELEASE})


def main(argv: Sequence[str], root: Path) -> int:
    """Writes FOLDER/mova-studio-VERSION.zip and its .sha256."""
    parser = argparse.ArgumentParser(prog="launch.py package", description="Make a release archive of this tree.")
    parser.add_argument("--output", type=Path, default=Path("dist"))
    options = parser.parse_args(argv)
    archive = make(root, options.output)
    digest = sha256(archive)
    archive.with_name(archive.name + ".sha256").write_text(f"{digest}  {archive.name}\n", encoding="ascii")
    sys.stdout.write(f"{archive}, {archive.stat().st_size / 1e6:.1f} MB, sha256 {digest}\n")
    return 0


def make(root: Path, output: Path, paths: Sequence[str] | None = None) -> Path:
    """The archive of a tree, or of these paths in it; the same tree gives the same bytes."""
    files = {path: sha256(root / path) for path in paths or shipped(root)}
    release = json.dumps({"format": 1, "version": version_of(root), "files": files}, indent=1) + "\n"
    top = f"mova-studio-{version_of(root)}"
    output.mkdir(parents=True, exist_ok=True)
    archive = output / f"{top}.zip"
    fresh = archive.with_name(f"{archive.name}.{os.getpid()}")
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as file:
        for path in [*files, RELEASE]:
            info = zipfile.ZipInfo(f"{top}/{path}", MOMENT)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o100755 if path.endswith(".sh") else 0o100644) << 16
            file.writestr(info, release if path == RELEASE else (root / path).read_bytes())
    os.replace(fresh, archive)
    return archive


def shipped(root: Path) -> list[str]:
    """What git tracks, without tests and what only developers need; of an unpacked release, what it came with."""
    if (root / RELEASE).is_file():
        return list(read_release(root).files)
    command = ["git", "-C", str(root), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, check=True)
    paths = done.stdout.decode("utf-8").split("\0")
    return sorted(path for path in paths if path and not LEFT_OUT.match(path) and (root / path).is_file())


def version_of(root: Path) -> str:
    """From pyproject.toml."""
    match = re.search(r'^version = "([\w.+-]+)"$', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if not match:
        raise ReleaseError(f"{root / 'pyproject.toml'} names no version")
    return match[1]


def read_release(folder: Path) -> Release:
    """Raises `ReleaseError` where there is none that can be understood."""
    try:
        return _understood((folder / RELEASE).read_bytes())
    except OSError:
        raise ReleaseError(f"{folder} is not an unpacked release: {RELEASE} is missing") from None


def _understood(raw: bytes) -> Release:
    try:
        said = json.loads(raw)
        release = Release(str(said["version"]), {str(path): str(digest) for path, digest in said["files"].items()})
        known = said["format"] == 1
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ReleaseError(f"{RELEASE} cannot be understood") from None
    if not known or "launch.py" not in release.files:
        raise ReleaseError("this is a release of another program, or of a kind that this version does not know")
    for path in release.files:
        parts = PurePosixPath(path).parts
        if "\\" in path or ":" in path or path.startswith("/") or ".." in parts or "/".join(parts) != path:
            raise ReleaseError(f"{RELEASE} names a file outside of the program: {path!r}")
        if re.match(r"\.(venv|v[a-z]{3}|uv|update)(-setup)?$", parts[0]):
            raise ReleaseError(f"{RELEASE} names a file where the environment lies: {path!r}")
    return release


def unpack(archive: Path, folder: Path) -> Release:
    """Unpacks and verifies; nothing is kept of one that is not whole.

    Raises:
        ReleaseError: not a release, or a file is not what `release.json` says.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            [top] = {name.split("/")[0] for name in file.namelist()} or {""}
            release = _understood(file.read(f"{top}/{RELEASE}"))
            if sum(info.file_size for info in file.infolist()) > LARGEST:
                raise ReleaseError(f"{archive.name} would unpack to more than {LARGEST // 2**30} GiB")
            for path, digest in release.files.items():
                data = file.read(f"{top}/{path}")
                if hashlib.sha256(data).hexdigest() != digest:
                    raise ReleaseError(f"{archive.name} is damaged: {path} is not what it should be")
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                target.chmod(0o755 if path.endswith(".sh") else 0o644)
            (folder / RELEASE).write_bytes(file.read(f"{top}/{RELEASE}"))
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, RuntimeError) as error:
        raise ReleaseError(f"{archive.name} is not a whole release archive: {error}") from None
    return release


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()

"""A project that is installed by install.sh in tests: the script as it is shipped, and stand-ins for what it fetches.

uv is a small script in an archive of the right form, served by a web server on this machine; its sha256 takes the
place of the real one in the copied install.sh. The packages are the tiny wheels of tests/faults/test_setup.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.faults.test_setup import SOURCE, Project

TARGET = "x86_64-unknown-linux-gnu" if platform.machine() == "x86_64" else "aarch64-unknown-linux-gnu"
UV = """#!/bin/sh
# Stands in for uv.
case "$1 ${2:-}" in
"--version ") echo "uv 0.13.0 (stand-in)" ;;
"python install") mkdir -p "$UV_PYTHON_INSTALL_DIR"; exit "${FAKE_UV_EXIT:-0}" ;;
"python find") echo PYTHON ;;
*) exit 2 ;;
esac
"""
# A Python that seems to have no ensurepip: environments are made without pip, which takes seconds less.
NO_ENSUREPIP = "import sys\nsys.modules['ensurepip'] = None\n"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


class Installation(Project):
    """A folder as a user gets it, with the installer in it."""

    def __init__(self, root: Path, side: Path) -> None:
        super().__init__(root)
        self.side, self.uv_url = side, ""
        (side / "python").mkdir(parents=True)
        (side / "python" / "sitecustomize.py").write_text(NO_ENSUREPIP)
        (side / "web").mkdir()
        (side / "home" / "Desktop").mkdir(parents=True)
        self.serve(UV.replace("PYTHON", f"'{sys.executable}'"))

    def serve(self, uv: str, promised: str = "") -> None:
        """Puts a uv on the web, and its hash (or another one) into install.sh."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            info = tarfile.TarInfo(f"uv-{TARGET}/uv")
            info.size, info.mode = len(uv.encode()), 0o755
            archive.addfile(info, io.BytesIO(uv.encode()))
        packed = buffer.getvalue()
        (self.side / "web" / f"uv-{TARGET}.tar.gz").write_bytes(packed)
        digest = promised or hashlib.sha256(packed).hexdigest()
        script = (SOURCE / "install.sh").read_text(encoding="utf-8")
        changed = re.sub(rf"({TARGET}) sum=\w+", rf"\1 sum={digest}", script)
        assert changed != script
        (self.root / "install.sh").write_text(changed, encoding="utf-8")
        shutil.copy(SOURCE / "start.sh", self.root)

    def surroundings(self, **more: str) -> dict[str, str]:
        return self.environment(
            **{
                "MOVA_UV_URL": self.uv_url,
                "PYTHONPATH": str(self.side / "python"),
                "HOME": str(self.side / "home"),
                "XDG_DATA_HOME": "",
                "NO_PROXY": "*",
                **more,
            }
        )

    def command(self, *arguments: str) -> list[str]:
        return ["sh", str(self.root / "start.sh"), *arguments]

    def start(self, *arguments: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.command(*arguments), cwd=cwd, **more)

    def install(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run(["sh", str(self.root / "install.sh"), *arguments], cwd=self.side, **more)

    def begin(self, **more: str) -> subprocess.Popen[str]:
        """The installer in a process group of its own."""
        return subprocess.Popen(
            ["sh", str(self.root / "install.sh")],
            cwd=self.side,
            env=self.surroundings(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )

    def run(self, command: list[str], cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=cwd or self.side,
            env=self.surroundings(**more),
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            stdin=subprocess.DEVNULL,
        )

    def orphans(self) -> list[str]:
        """What a finished installation must not leave."""
        found = [*self.leftovers(), *self.root.glob(".uv/new.*"), *self.root.glob(".uv/path.*")]
        return sorted(path.name for path in found)


@contextlib.contextmanager
def installation(root: Path, side: Path) -> Iterator[Installation]:
    """A folder with the installer, and the web that it fetches from."""
    project = Installation(root, side)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(side / "web")))
    project.uv_url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield project
    finally:
        server.shutdown()
        server.server_close()


def tools_without_python(folder: Path) -> str:
    """A PATH on which there is everything that the installer calls, and no Python."""
    folder.mkdir()
    names = "sh uname mkdir rm mv cut find mktemp tar gzip curl sha256sum dirname tail cat sed".split()
    for name in names:
        program = shutil.which(name)
        if program:
            os.symlink(program, folder / name)
    return str(folder)

"""Fetches every wheel that the locks name for Windows and measures the longest path in them; for developers.

    python requirements/windows.py [--python 3.12] [--keep FOLDER] [options for pip, such as --extra-index-url URL]

Windows refuses paths of 260 characters, so set-up must know how many lie inside: `bootstrap.setup.LONGEST_INSIDE`.
Exits with 1 where a wheel is missing or a path is longer than that. Needs pip and packaging; about 700 MB.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bootstrap.setup import LONGEST_INSIDE  # noqa: E402

BUILT = ("llama-cpp-python",)  # no wheel is published; what it builds has short paths
PACKAGES = ".venv\\Lib\\site-packages\\"
WRITING = 16  # characters that Python adds to the name of a compiled file while it is written


def pins(python: str) -> list[str]:
    """The locked "name==version" that set-up would install on 64-bit Windows."""
    there = {
        "sys_platform": "win32",
        "platform_system": "Windows",
        "platform_machine": "AMD64",
        "os_name": "nt",
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    found = []
    for lock in sorted(HERE.glob("*.txt")):
        for line in lock.read_text(encoding="utf-8").splitlines():
            if not line or line.startswith(("#", "-")):
                continue
            wanted = Requirement(line)
            if wanted.name not in BUILT and (wanted.marker is None or wanted.marker.evaluate(there)):
                found.append(f"{wanted.name}{wanted.specifier}")
    return found


def unpacked(wheel: Path, tag: str) -> Iterator[str]:
    """The paths that a wheel leads to below the folder of the studio."""
    for name in zipfile.ZipFile(wheel).namelist():
        inside = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", name).replace("/", "\\")
        yield PACKAGES + inside
        if inside.endswith(".py"):
            folder, _, module = inside.rpartition("\\")
            compiled = f"{module.removesuffix('.py')}.{tag}.pyc"
            yield PACKAGES + f"{folder}\\__pycache__\\{compiled}".lstrip("\\") + "x" * WRITING


def main(argv: list[str] | None = None) -> int:
    """Fetches and measures; prints a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--keep", type=Path, help="a folder for the wheels; those that lie there are not fetched again")
    options, for_pip = parser.parse_known_args(argv)
    wanted, tag = pins(options.python), f"cpython-{options.python.replace('.', '')}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--platform", "win_amd64", "--python-version", options.python, "--implementation", "cp"]
        fetched = subprocess.run([*command, "--dest", str(folder), "--find-links", str(folder), *for_pip, *wanted])
        if fetched.returncode:
            return 1
        wheels = sorted(folder.glob("*.whl"))
        longest, wheel = max((len(path), wheel.name) for wheel in wheels for path in unpacked(wheel, tag))
        size = sum(wheel.stat().st_size for wheel in wheels)
    sys.stdout.write(
        f"{len(wheels)} wheels of {len(wanted)} pins, {size / 1e6:.0f} MB: the longest path has {longest} characters, "
        f"of {wheel}; set-up counts with {LONGEST_INSIDE}\n"
    )
    return 0 if longest <= LONGEST_INSIDE and len(wheels) >= len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())

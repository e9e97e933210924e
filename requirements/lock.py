"""Writes the lock files from pyproject.toml; for developers, needs uv (`pip install uv`).

    python requirements/lock.py [options for uv, such as --upgrade-package NAME or --extra-index-url URL]

base.txt holds what the engine needs, each other file what one extra adds to it. The pins are complete: set-up
installs them with --no-deps. What only torch's CUDA builds need is left out, because each such build names its own.
A new purpose is a new extra in pyproject.toml and a new line in GROUPS.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent / "pyproject.toml"
GROUPS = {"studio": "studio", "enhancer": "enhancer", "test": "dev"}  # lock file -> extra in pyproject.toml
OF_CUDA = re.compile(r"(nvidia-|cuda-|triton\b)")
BUILT = ("llama-cpp-python",)  # published as source only: built where it is installed
HEADER = """\
# Made by requirements/lock.py from pyproject.toml; do not edit by hand.
--only-binary :all:
"""


def resolve(options: list[str], extra: str | None = None, constraints: Path | None = None) -> list[str]:
    """The complete pins for all systems and Pythons, as uv finds them."""
    command = ["uv", "pip", "compile", "--universal", "--python-version", "3.11", "--no-header", "--no-annotate"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--only-binary", ":all:"]
    command += [part for name in BUILT for part in ("--no-binary", name)] + [*options, str(PROJECT)]
    if extra:
        command += ["--extra", extra]
    if constraints:
        command += ["--constraint", str(constraints)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    lines = [_without_browsers(line.strip()) for line in output.splitlines()]
    return [line for line in lines if re.match(r"[\w.-]+==", line) and not OF_CUDA.match(line)]


def _without_browsers(line: str) -> str:
    """Drop what concerns Python in a web page: it makes markers long and we never run there."""
    if "sys_platform == 'emscripten'" in line:
        return ""
    return re.sub(r" (;|and) sys_platform != 'emscripten'", "", line)


def main(options: list[str]) -> None:
    """Write every lock file."""
    base = resolve(options)
    (HERE / "base.txt").write_text(HEADER + "\n".join(base) + "\n", encoding="utf-8", newline="\n")
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "base.txt"
        constraints.write_text("\n".join(base) + "\n", encoding="utf-8")
        for group, extra in GROUPS.items():
            added = [line for line in resolve(options, extra, constraints) if line not in base]
            built = [f"--no-binary {name}\n" for name in BUILT if any(line.startswith(f"{name}==") for line in added)]
            (HERE / f"{group}.txt").write_text(
                HEADER + "".join(built) + "\n".join(added) + "\n", encoding="utf-8", newline="\n"
            )


if __name__ == "__main__":
    main(sys.argv[1:])

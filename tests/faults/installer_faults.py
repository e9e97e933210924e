"""Kills install.sh at points spread over its whole run, and runs it again.

    python tests/faults/installer_faults.py --kills 20

After every kill the folder must hold no environment that counts as whole and is not; after the second run the program
must start and nothing may be left over. Exits with 1 if anything of that fails.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap import store
from tests.installer_parts import Installation, installation


@dataclass
class Toll:
    """What a campaign came to."""

    kills: int = 0
    too_late: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills over a run of {self.seconds:.1f} s ({self.too_late} came after its end); "
            f"{len(self.faults)} faults"
        )


def clean(project: Installation) -> None:
    for path in [*project.root.glob(".v*"), project.root / ".uv"]:
        shutil.rmtree(path, ignore_errors=True)


def campaign(folder: Path, kills: int) -> Toll:
    """Runs it below `folder`."""
    toll = Toll(kills)
    with installation(folder / "MOVA Stüdio's copy", folder / "side") as project:
        began = time.monotonic()
        first = project.install()
        toll.seconds = time.monotonic() - began
        if first.returncode:
            toll.faults.append(f"the first installation failed: {first.stderr}")
            return toll
        for number in range(kills):
            clean(project)
            after = toll.seconds * (number + 0.5) / kills
            process = project.begin()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            toll.too_late += process.returncode == 0
            point = f"killed after {after:.2f} s"
            if project.layout.env.exists() and store.read_stamp(project.layout.env) is None:
                toll.faults.append(f"{point}: an environment without a stamp is in its place")
            again = project.install()
            if again.returncode:
                toll.faults.append(f"{point}: the second run failed: {again.stderr[-500:]}")
            elif not project.works():
                toll.faults.append(f"{point}: the program does not start")
            # A download of the killed run may lie there for an hour, because it could be another run's.
            orphans = [name for name in project.orphans() if not name.startswith("new.")]
            toll.faults += [f"{point}: {name} was left" for name in orphans]
    return toll


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        toll = campaign(Path(folder), options.kills)
    for fault in toll.faults:
        print(fault)
    print(toll)
    return 1 if toll.faults else 0


if __name__ == "__main__":
    sys.exit(main())

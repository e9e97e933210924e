"""Attacks a shared studio over real sockets, its page mounted: paths, hosts, origins, others' ids, logins,
uploads, trainings.

    python tests/security/attack_studio.py --paths 2000

Planted around the studio are files with a secret, and a clip, a job and a picture of another guest's. A fault is an
answer that holds any of them, a status of 500 or more, or a request that did what it must not. Exits with 1 on any.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.security.account_attacks import logging_out, logins, others_ids, page_functions
from tests.security.attacked import HOST, SECRET, Toll, raw, target
from tests.security.page_events import page_works
from tests.security.path_attacks import hosts_and_origins, traversal
from tests.security.training_attacks import trainings
from tests.security.upload_attacks import uploads

log = logging.getLogger(__name__)


def campaign(folder: Path, paths: int, guesses: int, seed: int) -> Toll:
    """All attacks on one studio."""
    dice = random.Random(seed)
    with target(folder) as at:
        for attack in (
            lambda: traversal(at, paths, dice),
            lambda: hosts_and_origins(at),
            lambda: page_works(at),
            lambda: page_functions(at),
            lambda: others_ids(at),
            lambda: uploads(at),
            lambda: trainings(at),
            lambda: logging_out(at),
            lambda: logins(at, guesses, dice),
        ):
            attack()
            log.info("%s", at.toll)
        alive = raw(at.port, "GET", "/v1/videos", {"host": HOST, **at.owner}, b"")
        if alive.status != 200 or SECRET.encode() not in alive.body:
            at.toll.fault(f"after all this the owner gets {alive.status}")
    return at.toll


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--paths", type=int, default=2000)
    p.add_argument("--guesses", type=int, default=300)
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="mova-attacks-") as folder:
        toll = campaign(Path(folder), args.paths, args.guesses, args.seed)
    print(toll)
    for fault, times in Counter(toll.faults).most_common(60):
        print("FAULT", fault, f"({times} times)" if times > 1 else "")
    return 1 if toll.faults else 0


if __name__ == "__main__":
    sys.exit(main())

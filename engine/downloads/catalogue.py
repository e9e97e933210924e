"""The models that the studio knows: where they are, what they may be used for, how big they are.

A new model is a new entry. Exact sizes come from the hub's listing before a download; the figures here are for the
list that is shown without a network.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from engine.errors import RequestError

GB = 10**9
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
Kind = Literal["mova", "enhancer", "other"]


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: of its folder, and what the user types.
        repository: "owner/name" on the hub.
        title: for people.
        licence: as its authors name it; shown before the download.
        kind: "mova" makes clips; "enhancer" writes prompts.
        size: bytes to expect, rounded; 0 if unknown.
        revision: branch, tag or commit. A branch is resolved to its commit before anything is fetched, and the
            commit is what is fetched and noted, so that a download never mixes two versions.
        wanted: patterns of the files that are needed; everything where empty.
        unwanted: patterns of files that are left out.
        note: what to know before choosing it.
    """

    name: str
    repository: str
    title: str
    licence: str
    kind: Kind = "mova"
    size: int = 0
    revision: str = "main"
    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = (".gitattributes", "*.md", "*.png", "*.jpg", "*.gif", "*.mp4", "*.bin", "*.pt", "*.pth")
    note: str = ""

    def wants(self, path: str) -> bool:
        """Whether a file of the repository belongs to the model."""
        if any(fnmatchcase(path, pattern) for pattern in self.unwanted):
            return False
        return not self.wanted or any(fnmatchcase(path, pattern) for pattern in self.wanted)


CATALOGUE = (
    Entry(
        name="MOVA-360p",
        repository="OpenMOSS-Team/MOVA-360p",
        title="MOVA for 640 x 352",
        licence="Apache-2.0",
        size=78 * GB,
        note="the one to begin with; shares 12.4 GB with MOVA-720p",
    ),
    Entry(
        name="MOVA-720p",
        repository="OpenMOSS-Team/MOVA-720p",
        title="MOVA for 1280 x 720",
        licence="Apache-2.0",
        size=78 * GB,
        note="sharper, and about five times the work a clip; shares 12.4 GB with MOVA-360p",
    ),
    Entry(
        name="qwen3-1.7b",
        repository="Qwen/Qwen3-1.7B-GGUF",
        title="prompts, small and quick",
        licence="Apache-2.0",
        kind="enhancer",
        size=1_834_426_016,
        revision="90862c4b9d2787eaed51d12237eafdfe7c5f6077",
        wanted=("Qwen3-1.7B-Q8_0.gguf",),
        note="for the enhancer",
    ),
    Entry(
        name="qwen3-4b",
        repository="Qwen/Qwen3-4B-GGUF",
        title="prompts, better",
        licence="Apache-2.0",
        kind="enhancer",
        size=2_497_280_256,
        revision="bc640142c66e1fdd12af0bd68f40445458f3869b",
        wanted=("Qwen3-4B-Q4_K_M.gguf",),
        note="for the enhancer",
    ),
    Entry(
        name="qwen3-vl-2b",
        repository="Qwen/Qwen3-VL-2B-Instruct-GGUF",
        title="prompts, and sees the picture",
        licence="Apache-2.0",
        kind="enhancer",
        size=1_107_409_952 + 445_053_216,
        revision="52d6c8ffea26cc873ac5ad116f8631268d7eb503",
        wanted=("Qwen3VL-2B-Instruct-Q4_K_M.gguf", "mmproj-Qwen3VL-2B-Instruct-Q8_0.gguf"),
        note="for the enhancer",
    ),
)


def find_entry(name: str) -> Entry:
    """The entry of a name in the catalogue, or of any repository written "owner/name".

    Raises:
        RequestError: neither; names the nearest.
    """
    for entry in CATALOGUE:
        if name.lower() in (entry.name.lower(), entry.repository.lower()):
            return entry
    if REPOSITORY.fullmatch(name):
        return Entry(name.split("/")[1], name, name, "see its page on the hub", kind="other")
    near = difflib.get_close_matches(name.lower(), [entry.name.lower() for entry in CATALOGUE], n=1, cutoff=0.4)
    best = next((entry.name for entry in CATALOGUE if near and entry.name.lower() == near[0]), CATALOGUE[0].name)
    raise RequestError(f"no model {name!r} in the catalogue; did you mean {best!r}? OWNER/NAME fetches any repository")

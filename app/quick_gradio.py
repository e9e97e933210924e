"""Gradio without the stub files that it writes for editors at every import.

Importing Gradio parses the source of every component three times, to keep ``.pyi`` files beside it up to date: a
quarter of the studio's start, and files written into an environment that nobody edits. The function that does it is
replaced while its module loads; nothing else of Gradio is touched.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

MODULE, WRITER = "gradio.component_meta", "create_or_modify_pyi"


class _WithoutStubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``MODULE`` where it always is, and loads it without ``WRITER``."""

    def __init__(self) -> None:
        self.loader: importlib.abc.Loader | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        assert self.loader is not None
        self.loader.exec_module(module)
        _leave_out(module)


def _leave_out(module: ModuleType) -> None:
    if hasattr(module, WRITER):  # a version without it has nothing to leave out
        setattr(module, WRITER, lambda *_: None)


def no_stubs() -> None:
    """To be called before Gradio is imported, for its start; later it still keeps stubs of our own components away."""
    if MODULE in sys.modules:
        _leave_out(sys.modules[MODULE])
    elif not any(isinstance(finder, _WithoutStubs) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithoutStubs())

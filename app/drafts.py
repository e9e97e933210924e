"""The Create form as each visitor left it: kept through reloads and restarts, written soon after the last change."""

from __future__ import annotations

import logging
import threading
from typing import Any

from app.settings import SettingsFile
from engine.errors import MovaError

log = logging.getLogger(__name__)

QUIET_SECONDS = 0.7  # typing is not written letter by letter
MAX_VISITORS = 100  # guests come and go; the longest unseen are forgotten


class Drafts:
    """Drafts by owner. Safe to use from any thread."""

    def __init__(self, settings: SettingsFile) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._drafts: dict[str, dict[str, Any]] = {
            owner: draft for owner, draft in settings.current.form.items() if isinstance(draft, dict)
        }

    def of(self, owner: str) -> dict[str, Any]:
        """What this visitor's form held, empty for a new one."""
        with self._lock:
            return dict(self._drafts.get(owner, {}))

    def keep(self, owner: str, draft: dict[str, Any]) -> None:
        """Remembers a form; it is on the disk a moment later."""
        with self._lock:
            if self._drafts.get(owner) == draft:
                return
            self._drafts.pop(owner, None)
            self._drafts[owner] = draft
            while len(self._drafts) > MAX_VISITORS:
                self._drafts.pop(next(iter(self._drafts)))
            if self._timer is None:
                self._timer = threading.Timer(QUIET_SECONDS, self.write)
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Writes what has changed; also called when the studio closes."""
        with self._lock:
            waiting, self._timer = self._timer, None
            drafts = dict(self._drafts)
        if waiting is None:
            return
        waiting.cancel()
        try:
            self._settings.change(form=drafts)
        except MovaError as error:
            log.warning("the form could not be kept: %s", error)

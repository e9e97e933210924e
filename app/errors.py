"""Every error that the studio raises on purpose; all are `MovaError`, so one line tells the user what to do.

MovaError (engine)
`-- StudioError      something about the studio itself: its folder, database, settings
    |-- NotFound     no such job, clip or upload, or it belongs to someone else: both look the same
    |-- NotAllowed   this visitor may not do that
    |   `-- QuotaReached   a guest's share is used up; try again later
    `-- WrongState   a job or clip is not in a state in which that can be done
"""

from __future__ import annotations

from engine.errors import MovaError


class StudioError(MovaError):
    """The studio cannot do that; the message says why and what would help."""


class NotFound(StudioError):
    """No such thing, or not yours."""


class NotAllowed(StudioError):
    """A visitor asked for what only the owner of the studio may do."""


class QuotaReached(NotAllowed):
    """A guest has as much in the queue or in uploads as guests may have."""


class WrongState(StudioError):
    """What is asked for is not possible in the present state of the job or clip."""

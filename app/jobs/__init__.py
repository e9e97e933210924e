"""The queue: jobs that survive the tab, the process and the power. Durable in SQLite; live progress in memory.

States and what leads from one to another:

    queued --claim--> running --finish--> done
      |  ^               |  `--fail-----> failed
      |  `--go_on--------|--------------- (worker died: back to queued, at most twice)
      pause -> paused    `--cancelled---> cancelled      (queued and paused jobs are cancelled at once)

`job` holds the record, `listing` reads the queue, `queue` changes it. Every function takes the owner where a visitor
asks: another's job looks like none (`NotFound`). `owner=None` is the studio itself and may do everything.
"""

from app.jobs.job import ENDED, STATES, WAITING, Job, Progress, State
from app.jobs.queue import JobQueue

__all__ = ["ENDED", "STATES", "WAITING", "Job", "JobQueue", "Progress", "State"]

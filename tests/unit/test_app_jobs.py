"""The queue: states, order, owners, durability, and a model of it that hypothesis drives."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from app.errors import NotFound, QuotaReached, StudioError, WrongState
from app.jobs import JobQueue, Progress
from app.spec import JobSpec
from app.store import MIGRATIONS, StoreBroken, open_store, set_aside
from engine.errors import RequestError
from engine.profile import ModelProfile

SPEC = JobSpec("a dog barks", seed=7).settled(ModelProfile(), "demo")


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    store = open_store(tmp_path / "studio.sqlite3")
    yield JobQueue(store)
    store.close()


def order(queue: JobQueue) -> list[str]:
    return [job.spec.prompt for job in queue.find(states=("queued", "paused"))]


def named(queue: JobQueue, *names: str, owner: str = "local") -> list[str]:
    return [queue.submit(JobSpec(name, seed=1).settled(ModelProfile(), "demo"), owner).id for name in names]


def test_a_job_goes_from_queued_to_done(queue: JobQueue) -> None:
    job = queue.submit(SPEC, "local")
    assert (job.state, job.position, job.attempts) == ("queued", 1, 0)
    running = queue.claim()
    assert running is not None
    assert (running.id, running.state, running.stage, running.attempts) == (job.id, "running", "loading", 1)
    queue.report(job.id, Progress("denoise", 3, 10, 7.0))
    now = queue.get(job.id)
    assert (now.stage, now.step, now.steps, now.eta) == ("denoise", 3, 10, 7.0)
    queue.finish(job.id, "c" * 32, {"step": 0.5})
    done = queue.get(job.id)
    assert (done.state, done.result, done.measured, done.progress) == ("done", "c" * 32, {"step": 0.5}, None)
    assert done.finished is not None
    assert queue.claim() is None


def test_moving_changes_the_order_and_nothing_else(queue: JobQueue) -> None:
    a, b, c, d = named(queue, "a", "b", "c", "d")
    queue.move(c, "first", None)
    assert order(queue) == ["c", "a", "b", "d"]
    queue.move(a, "down", None)
    assert order(queue) == ["c", "b", "a", "d"]
    queue.move(d, "up", None)
    assert order(queue) == ["c", "b", "d", "a"]
    queue.move(c, "last", None)
    assert order(queue) == ["b", "d", "a", "c"]
    queue.move(b, "up", None)  # already first
    queue.move(c, "down", None)  # already last
    assert order(queue) == ["b", "d", "a", "c"]
    assert [queue.get(i).position for i in (b, d, a, c)] == [1, 2, 3, 4]
    with pytest.raises(RequestError, match="first, up, down or last"):
        queue.move(a, "sideways", None)  # type: ignore[arg-type]


def test_pause_holds_a_job_back_and_keeps_its_place(queue: JobQueue) -> None:
    a, b = named(queue, "a", "b")
    queue.pause(a, None)
    assert [j.position for j in queue.find()] == [0, 1]
    claimed = queue.claim()
    assert claimed is not None
    assert claimed.id == b
    assert queue.claim() is None
    queue.go_on(a, None)
    claimed = queue.claim()
    assert claimed is not None
    assert claimed.id == a
    with pytest.raises(WrongState, match="running"):
        queue.pause(a, None)


def test_a_held_queue_starts_nothing_even_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s.sqlite3")
    queue = JobQueue(store)
    named(queue, "a")
    queue.hold()
    assert queue.claim() is None
    store.close()
    store = open_store(tmp_path / "s.sqlite3")
    queue = JobQueue(store)
    assert queue.held
    queue.hold(False)
    assert queue.claim() is not None
    store.close()


def test_edit_and_duplicate_and_variations(queue: JobQueue) -> None:
    (a,) = named(queue, "a")
    queue.edit(a, JobSpec("b", seed=3).settled(ModelProfile(), "demo"), None)
    assert queue.get(a).spec.prompt == "b"
    copy = queue.duplicate(a, None, seed=9)
    assert (copy.spec.seed, copy.spec.prompt, copy.owner) == (9, "b", "local")
    many = queue.variations(SPEC, 4, "local")
    assert [job.spec.seed for job in many] == [7, 8, 9, 10]
    assert len({job.spec.group for job in many}) == 1
    assert many[0].spec.group
    queue.claim()
    with pytest.raises(WrongState, match="duplicate it"):
        queue.edit(a, SPEC, None)
    with pytest.raises(RequestError, match="nearest valid value is 64"):
        queue.variations(SPEC, 65, "local")


def test_cancel_waiting_and_running(queue: JobQueue) -> None:
    a, b = named(queue, "a", "b")
    assert queue.cancel(b, None).state == "cancelled"
    queue.claim()
    assert queue.cancel(a, None).cancelling
    queue.report(a, Progress("denoise", 1, 4))
    assert queue.get(a).stage == "stopping"
    queue.cancelled(a)
    assert (queue.get(a).state, queue.get(a).cancelling) == ("cancelled", False)
    assert queue.cancel(a, None).state == "cancelled"  # an ended job stays as it is


def test_a_dead_worker_makes_a_job_run_again_at_most_twice(queue: JobQueue) -> None:
    (a,) = named(queue, "a")
    for attempt in (1, 2):
        queue.claim()
        assert queue.worker_died(a, "signal 9").state == "queued"
        assert queue.get(a).attempts == attempt
    queue.claim()
    failed = queue.worker_died(a, "signal 9")
    assert failed.state == "failed"
    assert "3 times" in failed.reason
    assert "signal 9" in failed.reason
    again = queue.retry(a, None)
    assert (again.state, again.attempts, again.spec.seed) == ("queued", 0, 1)


def test_a_cancel_is_not_forgotten_when_the_worker_dies(queue: JobQueue) -> None:
    (a,) = named(queue, "a")
    queue.claim()
    queue.cancel(a, None)
    assert queue.worker_died(a, "signal 9").state == "cancelled"


def test_recover_after_the_studio_went_down(queue: JobQueue) -> None:
    a, b, c = named(queue, "a", "b", "c")
    for _ in (a, b, c):
        queue.claim()
    queue.cancel(c, None)
    assert queue.recover({b: b}) == 1
    assert [queue.get(i).state for i in (a, b, c)] == ["queued", "done", "cancelled"]
    assert queue.get(a).attempts == 0  # going down was not its fault
    assert queue.get(b).result == b


def test_another_owner_sees_nothing_and_can_do_nothing(queue: JobQueue) -> None:
    (a,) = named(queue, "a", owner="guest-1")
    for act in (
        lambda: queue.get(a, "guest-2"),
        lambda: queue.cancel(a, "guest-2"),
        lambda: queue.pause(a, "guest-2"),
        lambda: queue.move(a, "first", "guest-2"),
        lambda: queue.edit(a, SPEC, "guest-2"),
        lambda: queue.duplicate(a, "guest-2"),
        lambda: queue.forget(a, "guest-2"),
        lambda: queue.retry(a, "guest-2"),
        lambda: queue.get("../../etc/passwd"),
        lambda: queue.get("' OR 1=1 --"),
    ):
        with pytest.raises(NotFound, match="no such job"):
            act()
    assert queue.find("guest-2") == []
    assert queue.counts("guest-2")["queued"] == 0
    assert queue.cancel_waiting("guest-2") == 0
    assert queue.by_time("guest-2", None, 10) == []
    assert queue.get(a, "guest-1").state == "queued"


def test_a_quota_counts_unfinished_jobs_and_variations(queue: JobQueue) -> None:
    queue.submit(SPEC, "guest-1", quota=2)
    with pytest.raises(QuotaReached):
        queue.variations(SPEC, 2, "guest-1", quota=2)
    assert queue.counts("guest-1")["queued"] == 1  # all or none
    job = queue.submit(SPEC, "guest-1", quota=2)
    with pytest.raises(QuotaReached):
        queue.submit(SPEC, "guest-1", quota=2)
    queue.submit(SPEC, "guest-2", quota=2)
    queue.cancel(job.id, "guest-1")
    queue.submit(SPEC, "guest-1", quota=2)


def test_windows_of_a_long_list_join_without_gap(queue: JobQueue) -> None:
    queue.variations(SPEC, 40, "local")
    for _ in range(10):
        job = queue.claim()
        assert job is not None
        queue.finish(job.id, job.id, {})
    queue.claim()
    whole = [job.id for job in queue.find(limit=100)]
    windows = [job.id for start in range(0, 40, 7) for job in queue.find(limit=7, offset=start)]
    assert len(whole) == 40
    assert windows == whole
    assert [j.position for j in queue.find(limit=3, offset=4)] == [4, 5, 6]
    by_time = [job.id for job in queue.by_time(None, None, 100)]
    assert sorted(by_time) == sorted(whole)
    assert [j.id for j in queue.by_time(None, by_time[9], 5)] == by_time[10:15]
    assert [j.id for j in queue.by_time(None, None, 100, newest_first=False)] == by_time[::-1]


def test_what_was_acknowledged_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "studio.sqlite3"
    store = open_store(path)
    asked = [JobQueue(store).submit(SPEC, "local").id for _ in range(5)]
    with sqlite3.connect(path) as other:  # as another process sees it, without any orderly end of ours
        assert other.execute("SELECT count(*) FROM jobs").fetchone()[0] == 5
        assert other.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    other.close()
    assert store.row("PRAGMA synchronous")[0] == 2  # type: ignore[index]  # FULL
    store.close()
    store = open_store(path)
    assert [job.id for job in JobQueue(store).find()] == asked
    store.close()


def test_databases_that_are_newer_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "studio.sqlite3"
    open_store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StudioError, match="newer version"):
        open_store(path)
    path.write_bytes(b"this is no database at all " * 100)
    with pytest.raises(StoreBroken):
        open_store(path)
    aside = set_aside(path)
    assert aside is not None
    assert aside.exists()
    assert not path.exists()
    open_store(path).close()


class QueueMachine(RuleBasedStateMachine):
    """Random life of a queue; what must always hold is checked after every step."""

    jobs = Bundle("jobs")

    @initialize()
    def begin(self) -> None:
        self.store = open_store(Path(":memory:"))
        self.queue = JobQueue(self.store)
        self.running: str | None = None
        self.ended: dict[str, str] = {}

    @rule(target=jobs)
    def submit(self) -> str:
        return self.queue.submit(SPEC, "local").id

    @rule()
    def claim(self) -> None:
        if self.running is None:
            waiting = [j for j in self.queue.find(states=("queued",), limit=1000)]
            job = self.queue.claim()
            assert (job.id if job else None) == (waiting[0].id if waiting else None)
            self.running = job.id if job else None

    @rule(how=st.sampled_from(["finish", "fail", "die", "recover"]))
    def end(self, how: str) -> None:
        if self.running is None:
            return
        job = self.queue.get(self.running)
        if how == "finish":
            self.queue.finish(job.id, job.id, {})
        elif how == "fail":
            self.queue.fail(job.id, "for a reason")
        elif how == "die":
            self.queue.worker_died(job.id, "signal 9")
        else:
            self.queue.recover({})
        self.running = None

    @rule(job=jobs, where=st.sampled_from(["first", "up", "down", "last"]))
    def move(self, job: str, where: str) -> None:
        if self.queue.get(job).state in ("queued", "paused"):
            before = [j.id for j in self.queue.find(states=("queued", "paused"), limit=1000)]
            self.queue.move(job, where, None)  # type: ignore[arg-type]
            after = [j.id for j in self.queue.find(states=("queued", "paused"), limit=1000)]
            at = before.index(job)
            target = {"first": 0, "last": len(before) - 1, "up": max(0, at - 1), "down": min(at + 1, len(before) - 1)}
            before.insert(target[where], before.pop(at))
            assert after == before

    @rule(job=jobs)
    def pause_or_go_on(self, job: str) -> None:
        state = self.queue.get(job).state
        if state == "queued":
            self.queue.pause(job, None)
        elif state == "paused":
            self.queue.go_on(job, None)

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        was = self.queue.get(job)
        now = self.queue.cancel(job, None)
        if was.state in ("queued", "paused"):
            assert now.state == "cancelled"
        elif was.state == "running":
            assert now.cancelling
        else:
            assert now == was

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "queue"):
            return
        jobs = self.queue.find(limit=1000)
        running = [j.id for j in jobs if j.state == "running"]
        assert running == ([self.running] if self.running else [])
        assert [j.position for j in jobs if j.state == "queued"] == list(range(1, 1 + self.queue.counts()["queued"]))
        assert all(j.attempts <= 3 for j in jobs)
        assert all(j.reason for j in jobs if j.state in ("failed", "cancelled"))
        ended = {j.id: j.state for j in jobs if j.state in ("done", "failed", "cancelled")}
        assert ended.items() >= self.ended.items()  # what has ended stays as it ended
        self.ended = ended

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    store = open_store(tmp_path / "studio.sqlite3")
    queue = JobQueue(store)
    queue.submit(SPEC, "local")
    for more in (1, 3, 8):  # pages that are left
        pages = store.row("PRAGMA page_count")[0]  # type: ignore[index]
        store.rows(f"PRAGMA max_page_count={pages + more}")  # SQLite then fails as it does on a full disk
        before = queue.counts()["queued"]
        said, taken = "", 0
        while not said and taken < 1000:
            try:
                queue.variations(SPEC, 40, "local")
                taken += 40
            except StudioError as error:
                said = str(error)
        assert "full; free some space" in said
        assert queue.counts()["queued"] == before + taken
        assert len(queue.find(limit=5000)) == before + taken
        store.rows(f"PRAGMA max_page_count={2**30}")
        assert queue.submit(SPEC, "local").state == "queued"  # space is free again
    store.close()
    store = open_store(tmp_path / "studio.sqlite3")
    assert JobQueue(store).counts()["queued"] == before + taken + 1
    store.close()

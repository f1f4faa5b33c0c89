from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from fake_lookout import BlindLookout
from views_of_the_world import a_job, a_worker, a_world

from ddit_batch.db.scheduler_store import Sending, Standing
from ddit_batch.job import Incarnation, JobId, JobState, Phase, WorkerName
from ddit_batch.metrics import SchedulerMetrics
from ddit_batch.scheduler import live
from ddit_batch.scheduler.core import Limits
from ddit_batch.scheduler.live import LiveDriver, Pace
from ddit_batch.snapshot import JobView, Progress, Snapshot, Whereabouts

LEASE_S = 3.0
DEAD = a_worker(1, lease_expired=True)
ORPHAN = a_job(1)
UNCLAIMED = a_job(2, state=JobState.QUEUED, message=Whereabouts.SENT, group=(), holder=None)
ENCODER = a_worker(2, name=WorkerName("encode-0@unit"), phase=Phase.ENCODE)


class _World:
    """Store, broker and Celery in one: always the same world, and a list of what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def snapshot(self, *, window: int, may_lose_workers: bool, backlog: object) -> Snapshot:
        assert window
        assert backlog == ()
        world = a_world(DEAD, ENCODER, ORPHAN, UNCLAIMED)
        return world if may_lose_workers else a_world(ENCODER)

    def record_progress(
        self, reports: Mapping[JobId, Progress], standing: Mapping[JobId, Standing]
    ) -> frozenset[JobId]:
        return frozenset(standing) & frozenset(reports)

    def reports(self) -> dict[JobId, Progress]:
        return {}

    def forget_reports(self, job_ids: Iterable[JobId]) -> None:
        self.asked += [("forget", job) for job in job_ids]

    def waiting_task_ids(self, queues: Iterable[str]) -> frozenset[str]:
        return frozenset() & frozenset(queues)

    def lose_worker(self, incarnation: Incarnation) -> bool:
        self.asked.append(("lose", incarnation))
        return True

    def rescue(self, job: JobView) -> None:
        self.asked.append(("rescue", job.job_id))

    def resent(self, job: JobView) -> Sending:
        self.asked.append(("resent", job.job_id))
        return Sending(attempt=job.attempt, vae_attempt=1, plan=None)

    def encode(self, job_id: JobId, attempt: int) -> None:
        self.asked.append(("encode", job_id, attempt))

    def lost(self, job_id: JobId, phase: Phase, attempt: int, worker: WorkerName) -> None:
        self.asked.append(("lost", job_id, phase, attempt, worker))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock that the driver looks at."""
    clock = SimpleNamespace(now_s=1000.0, monotonic=lambda: clock.now_s)
    monkeypatch.setattr(live, "time", clock)
    return clock


def test_recoveries_are_counted_and_flower_is_told(clock: SimpleNamespace) -> None:
    """A worker is lost with its job, and a message has vanished."""
    world: Any = _World()
    metrics = SchedulerMetrics()
    driver = LiveDriver(
        store=world,
        control=world,
        dispatcher=world,
        lookout=BlindLookout(),
        limits=Limits(look_ahead=8, decode_backlog=16, max_worker_losses=5),
        pace=Pace(tick_s=0.25, reconcile_s=0.5, lease_s=LEASE_S),
        metrics=metrics,
    )

    for _ in range(6):  # a lease time, and then as long as a message may be on its way
        driver.round()
        clock.now_s += LEASE_S / 2 - 0.1

    value = metrics.registry.get_sample_value
    lost = value("ddit_workers_lost_total", {"phase": "dit"})
    assert lost == world.asked.count(("lose", DEAD.incarnation)) >= 1
    rescued = value("ddit_jobs_rescued_total", {"phase": "dit"})
    assert rescued == world.asked.count(("rescue", ORPHAN.job_id)) >= 1
    resent = value("ddit_messages_resent_total", {"phase": "encode"})
    assert resent == world.asked.count(("resent", UNCLAIMED.job_id)) >= 1
    assert ("lost", ORPHAN.job_id, Phase.DIT, 1, DEAD.name) in world.asked

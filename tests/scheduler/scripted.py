"""A policy of the tests: it says what it was told to say, of the jobs that it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fake_costs import COSTS, FakeCosts

from ddit_batch.job import JobId, WorkerName
from ddit_batch.policy.base import Decisions
from ddit_batch.snapshot import JobView, Snapshot, order_key


@dataclass(slots=True)
class Scripted:
    """Keeps every job where it is, or about to be, but for those in *targets*."""

    targets: dict[JobId, tuple[WorkerName, ...]] = field(default_factory=dict)
    name: str = "scripted"
    costs: FakeCosts = COSTS

    def plan(self, snapshot: Snapshot) -> Decisions:
        """What the test wants; () leaves a job out."""
        kept = {job.job_id: job.next_group for job in snapshot.jobs if job.group}
        wanted = kept | self.targets
        seen = {job.job_id for job in snapshot.jobs}
        return {job: group for job, group in wanted.items() if group and job in seen}

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """Priority, then arrival."""
        del snapshot
        return sorted(jobs, key=order_key)

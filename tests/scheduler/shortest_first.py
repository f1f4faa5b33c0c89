"""A policy of the tests: the jobs with the fewest steps left run, whoever ran before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ddit_batch.cost_model import CostModel
from ddit_batch.job import JobState
from ddit_batch.policy.base import Decisions, dit_workers
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts


@dataclass(frozen=True, slots=True)
class ShortestFirst:
    """One worker a job; a job that runs is left out for a shorter one that waits."""

    name: str = "shortest-first"
    costs: CostModel = field(default_factory=CostModel)

    def plan(self, snapshot: Snapshot) -> Decisions:
        """The shortest jobs, as many as there are workers; those that run stay where they are."""
        names = [worker.name for worker in dit_workers(snapshot)]
        placed = [job for job in snapshot.jobs if job.group]
        waiting = [
            job
            for job in snapshot.jobs
            if job.state is JobState.ENCODED and job.message is Whereabouts.NONE
        ]
        chosen = self.sequence(snapshot, [*placed, *waiting])[: len(names)]
        kept = {job.job_id: job.group for job in chosen if job.group}
        free = [name for name in names if (name,) not in kept.values()]
        started = [job for job in chosen if not job.group]
        return kept | {job.job_id: (name,) for job, name in zip(started, free, strict=False)}

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """By steps left, then by arrival."""
        del snapshot
        return sorted(jobs, key=lambda job: (job.steps_left, job.seq))

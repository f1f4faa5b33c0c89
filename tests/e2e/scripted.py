"""A policy that follows a script: who denoises what, stage after stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ddit_batch.cost_model import CostModel
from ddit_batch.job import JobId, JobState, WorkerName
from ddit_batch.policy.base import Decisions, dit_workers
from ddit_batch.snapshot import JobView, Snapshot, order_key

Stage = Mapping[str, tuple[int, ...]]
"""The numbers of the DiT workers of each job, by custom_id; a job that is left out waits."""


@dataclass(slots=True, kw_only=True)
class Scripted:
    """Goes on to the next stage when the present one has been in effect for *steps* steps.

    Unlike a policy of ours it remembers where it is: it is the test.
    """

    stages: Sequence[Stage]
    steps: int = 2
    at: int = 0
    """The stage that is, or is to come into, effect."""
    jobs: dict[str, JobId] = field(default_factory=dict)
    """Filled in by the test after it has submitted."""
    name: str = "scripted"
    costs: CostModel = field(default_factory=CostModel)

    @property
    def is_over(self) -> bool:
        """The last stage is in effect."""
        return self.at >= len(self.stages)

    def plan(self, snapshot: Snapshot) -> Decisions:
        """The workers of the present stage."""
        if not self.jobs:
            return {}
        names = [worker.name for worker in dit_workers(snapshot)]
        if not self.is_over and self._in_effect(snapshot, names):
            self.at += 1
        stage = self.stages[min(self.at, len(self.stages) - 1)]
        return {self.jobs[job]: _named(numbers, names) for job, numbers in stage.items()}

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """Order of arrival."""
        del snapshot
        return sorted(jobs, key=order_key)

    def _in_effect(self, snapshot: Snapshot, names: Sequence[WorkerName]) -> bool:
        views = {job.job_id: job for job in snapshot.jobs}
        stage = self.stages[self.at]
        for custom_id, job_id in self.jobs.items():
            view = views.get(job_id)
            if custom_id not in stage:
                if view is not None and view.state is JobState.DENOISING:
                    return False
            elif (
                view is None
                or view.state is not JobState.DENOISING
                or view.group != _named(stage[custom_id], names)
                or view.step < view.granted_step + self.steps
            ):
                return False
        return True


def _named(numbers: Sequence[int], names: Sequence[WorkerName]) -> tuple[WorkerName, ...]:
    """The names of the workers with these numbers, those that live."""
    named = {int(name.partition("@")[0].rpartition("-")[2]): name for name in names}
    return tuple(named[number] for number in numbers if number in named)

"""``static``: dop k for every job, first come first served, nothing ever resized.

The rule: a job keeps its group until its DiT phase ends; waiting jobs are taken in order (priority,
then arrival), each as soon as k workers of one node that serve its model are idle. A job that does
not get its k workers holds up those behind it that could use the same workers: that is what first
come first served means. Source: what engines without step-boundary resizing do; "SDoP" among the
baselines of the DDiT paper (arXiv 2506.13497).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ddit_batch.job import JobId, WorkerName
from ddit_batch.policy.base import Decisions, dit_workers, placed, unplaced
from ddit_batch.snapshot import JobView, Snapshot, WorkerView, order_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """The policy; *dop* is its k."""

    dop: int

    @property
    def name(self) -> str:
        """The word by which settings choose it."""
        return "static"

    def plan(self, snapshot: Snapshot) -> Decisions:
        """Keep every group, then fill idle workers in order."""
        able = dit_workers(snapshot)
        names = {worker.name for worker in able}
        decisions: dict[JobId, tuple[WorkerName, ...]] = {
            job.job_id: job.group for job in placed(snapshot) if names.issuperset(job.group)
        }
        # A group that must give its workers back keeps them until its next step boundary.
        taken = {name for job in placed(snapshot) for name in job.group}
        idle = tuple(worker for worker in able if worker.name not in taken)
        for job in unplaced(snapshot):
            if self._group(job, able) is None:
                continue  # nobody can ever take it, so it holds nobody up
            group = self._group(job, idle)
            if group is None:
                idle = tuple(worker for worker in idle if job.model not in worker.models)
            else:
                decisions[job.job_id] = group
                idle = tuple(worker for worker in idle if worker.name not in group)
        return decisions

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """Priority, then arrival."""
        del snapshot
        return sorted(jobs, key=order_key)

    def _group(self, job: JobView, among: Sequence[WorkerView]) -> tuple[WorkerName, ...] | None:
        """The first k workers of one node that serve the job's model, if there are k."""
        able = sorted((w for w in among if job.model in w.models), key=lambda w: (w.node, w.name))
        for _, node in groupby(able, key=lambda worker: worker.node):
            group = tuple(worker.name for worker in node)[: self.dop]
            if len(group) == self.dop:
                return group
        return None

"""A decision on record with one job in the middle: who has what, and what the policy wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ddit_batch.cost_model import Cost
from ddit_batch.decision_record import DecisionRecord, policy_of
from ddit_batch.durations import shown_duration
from ddit_batch.job import JobId, JobState, Phase, WorkerName
from ddit_batch.policy.base import Decisions, Policy, dit_workers, to_decode
from ddit_batch.snapshot import JobView, WorkerView, order_key

OWNERS_NAMED = 6
"""Jobs that are named as those that have the workers; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a decision saw and wanted, from the point of view of one job."""

    record: DecisionRecord
    job: JobView
    policy: Policy
    plan: Decisions
    """The policy's targets on the snapshot itself; on a cluster that has just lost a worker the
    core asks it a moment later, without that one."""

    @property
    def cost(self) -> Cost:
        """What the job costs, as the decision took it."""
        return self.cost_of(self.job)

    def cost_of(self, job: JobView) -> Cost:
        """The same of another job."""
        return self.policy.costs.cost(job.model, job.shape)

    @property
    def target(self) -> tuple[WorkerName, ...]:
        """The workers that the policy wanted it to have."""
        return self.plan.get(self.job.job_id, ())

    @property
    def is_the_policys(self) -> bool:
        """Whether the policy has a say in what becomes of it, and not a shared queue alone."""
        if self.job.state in {JobState.ENCODED, JobState.DENOISING}:
            return True
        return self.job in to_decode(self.record.snapshot)

    def able(self, phase: Phase) -> tuple[WorkerView, ...]:
        """The workers of a phase that serve its model and take work, in order of name."""
        found = [
            worker
            for worker in self.record.snapshot.workers
            if worker.phase is phase and not worker.draining and self.job.model in worker.models
        ]
        return tuple(sorted(found, key=lambda worker: worker.name))

    @property
    def crew(self) -> tuple[WorkerView, ...]:
        """The DiT workers that serve its model, in order of name."""
        return tuple(w for w in dit_workers(self.record.snapshot) if self.job.model in w.models)

    def owners(self) -> dict[WorkerName, JobView]:
        """Who has each worker, was told to take it or was sent to it: what is done now counts."""
        world = self.record.snapshot
        names = {worker.incarnation: worker.name for worker in world.workers}
        found: dict[WorkerName, JobView] = {}
        for job in sorted(world.jobs, key=lambda job: (not job.held, order_key(job))):
            holder = (names[job.holder],) if job.held and job.holder in names else ()
            for name in (*holder, *job.group, *job.next_group):
                found.setdefault(name, job)
        return found

    def idle(self, among: Iterable[WorkerView]) -> tuple[WorkerView, ...]:
        """Those of *among* that nobody had when the decision was made."""
        owners = self.owners()
        return tuple(worker for worker in among if worker.name not in owners)

    def left_s(self, job: JobView) -> float:
        """Seconds of denoising that a running job still needs at the dop that it has."""
        cost = self.cost_of(job)
        return job.steps_left * cost.at(cost.widest(max(job.dop, 1)))

    def who_has(self, among: Iterable[WorkerView]) -> list[str]:
        """Sentences on who has the busy ones of *among*: those soonest done first."""
        owners = self.owners()
        busy: dict[JobId, list[WorkerName]] = {}
        for worker in among:
            owner = owners.get(worker.name)
            if owner is not None and owner is not self.job:
                busy.setdefault(owner.job_id, []).append(worker.name)
        jobs = {job.job_id: job for job in owners.values()}
        order = sorted(busy, key=lambda job_id: (self.left_s(jobs[job_id]), job_id))
        said = [
            f"{jobs[job_id].job_id} has {', '.join(busy[job_id])}: {self._doing(jobs[job_id])}."
            for job_id in order[:OWNERS_NAMED]
        ]
        more = order[OWNERS_NAMED:]
        if more:
            workers = sum(len(busy[job_id]) for job_id in more)
            said.append(f"{counted(len(more), 'more job')} have {counted(workers, 'worker')}.")
        return said

    def _doing(self, job: JobView) -> str:
        match job.state:
            case JobState.DENOISING:
                left = shown_duration(self.left_s(job))
                return f"step {job.step} of {job.steps}, about {left} left at dop {job.dop}"
            case JobState.DECODING | JobState.ENCODING:
                return str(job.state)
            case _:
                return "sent to it, not yet begun"


def seen_in(record: DecisionRecord, job_id: JobId) -> Seen | None:
    """The decision as *job_id* sees it; None if it did not see that job.

    Raises:
        ConfigError: This release has no such policy.
    """
    job = record.job(job_id)
    if job is None:
        return None
    policy = policy_of(record)
    return Seen(record=record, job=job, policy=policy, plan=policy.plan(record.snapshot))


def counted(count: int, word: str) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``11th``."""
    teens = number % 100 in {11, 12, 13}
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"

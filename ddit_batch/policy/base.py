"""What a policy is: a pure function from a snapshot to the workers that each job should have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from ddit_batch.cost_model import CostModel
from ddit_batch.job import JobId, JobState, Phase, WorkerName
from ddit_batch.policy.roster import roster_of
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts, WorkerView, order_key

# Asked of every job and worker in every decision: a member that is looked up in its enum costs ten
# times as much (Python 3.11).
_VAE = Phase.VAE
_ENCODED, _DENOISED = JobState.ENCODED, JobState.DENOISED
_NO_MESSAGE = Whereabouts.NONE

Decisions = Mapping[JobId, tuple[WorkerName, ...]]
"""The target, not the change: the workers of each job that should be denoised now, the leader
first. A job that is left out waits; one that runs and is left out gives its workers back at its
next step boundary. The core computes the difference.

The target of a running job contains its present group or is contained in it, or has another leader:
then the job is given back, and starts again there. Where DiT workers decode, a job in ``denoised``
is placed as well, and one in ``decoding`` keeps what it has."""


class Policy(Protocol):
    """Decides who denoises what.

    Reads no clock, rolls no dice and keeps nothing between calls: the same snapshot gives the same
    decisions, in whatever order its tuples stand.
    """

    @property
    def name(self) -> str:
        """The word by which settings choose it."""
        ...

    @property
    def costs(self) -> CostModel:
        """What it takes jobs to cost: with its name, all that its decisions depend on."""
        ...

    def plan(self, snapshot: Snapshot) -> Decisions:
        """The workers of every job that should be worked on now."""
        ...

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """*jobs*, of which none has workers, in the order in which they should be given some."""
        ...


@runtime_checkable
class Explains(Protocol):
    """A policy that can say in its own words what it does with a job, for ``ddit explain``."""

    def explain(self, snapshot: Snapshot, job: JobView) -> tuple[str, ...]:
        """Sentences for a user on what this policy does with *job* in *snapshot*, and why.

        With numbers; without what every policy's jobs have in common (who has the workers, what a
        doubling would save), which is said already. () if there is nothing to add.
        """
        ...


def dit_workers(snapshot: Snapshot) -> tuple[WorkerView, ...]:
    """The workers that may be given DiT work, in order of name."""
    return roster_of(snapshot.workers).dit


def placed(snapshot: Snapshot) -> tuple[JobView, ...]:
    """The jobs that have a group already: denoising, or sent to their leader; in order."""
    return tuple(sorted((job for job in snapshot.jobs if job.group), key=order_key))


def unplaced(snapshot: Snapshot) -> tuple[JobView, ...]:
    """The jobs that wait for a group, in order."""
    waiting = [job for job in snapshot.jobs if job.state is _ENCODED and not job.group]
    return tuple(sorted(waiting, key=order_key))


def to_decode(snapshot: Snapshot) -> tuple[JobView, ...]:
    """The denoised jobs that a policy places, in order: those whose model has no VAE worker.

    A VAE worker takes its jobs from the shared queue, which is no policy's business.
    """
    waiting = [
        job
        for job in snapshot.jobs
        if job.state is _DENOISED and not job.group and job.message is _NO_MESSAGE
    ]
    if not waiting:
        return ()
    queue = [w.models for w in snapshot.workers if w.phase is _VAE and not w.draining]
    served = frozenset().union(*queue)
    return tuple(sorted((job for job in waiting if job.model not in served), key=order_key))

"""Plans as the scheduler makes them: statements within a transaction of its store.

The job's row is locked first, as everywhere, then its plans: so a move that ends the attempt either
ends the new plan with it or comes too late for it to be made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    Text,
    cast,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ddit_batch.db.leases import LIVE_WORKER_STATES
from ddit_batch.db.models import Job, Plan, PlanOutcome, Segment, Worker
from ddit_batch.db.moves import Belief, as_believed
from ddit_batch.db.plans import is_open_or_formed
from ddit_batch.errors import StateConflict
from ddit_batch.job import Incarnation, JobId, JobState, Phase, WorkerName, queue_of

TRY_AGAIN_S = 1.0
"""The pause before workers that could not form a group are asked again for the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPlan:
    """A pending plan, as its members are to be told of it."""

    epoch: int
    workers: tuple[WorkerName, ...]
    """The leader first; () asks for the job back."""
    incarnations: tuple[Incarnation, ...]
    """Their live incarnations, in the same order."""


def plan_group(
    connection: Connection,
    belief: Belief,
    group: Sequence[WorkerName],
    *,
    present: Sequence[WorkerName],
) -> OpenPlan:
    """Have the job go over to *group*; a pending plan for these very incarnations is used again.

    *present* are the workers that the job is believed to have; none, if it was only sent.

    Raises:
        StateConflict: The job has moved on; a formed plan of it has not taken effect yet; a worker
            is not live, or another job has it or was promised it; the same was tried just now.
    """
    _hold(connection, belief, present)
    incarnations = _live(connection, belief.job_id, group)
    pending = connection.execute(
        select(Plan.epoch, Plan.workers, Plan.incarnations)
        .where(Plan.job_id == belief.job_id, Plan.outcome.is_(None))
        .with_for_update()
    ).one_or_none()
    if (
        pending is not None
        and tuple(pending.workers) == tuple(group)
        and tuple(pending.incarnations) == incarnations
    ):
        return OpenPlan(epoch=pending.epoch, workers=tuple(group), incarnations=incarnations)
    _end_pending(connection, belief.job_id, PlanOutcome.REPLACED)
    _check_nothing_formed(connection, belief)
    _check_not_tried_just_now(connection, belief, incarnations)
    check_free(connection, belief.job_id, group)
    epoch = connection.execute(
        insert(Plan)
        .values(
            job_id=belief.job_id,
            attempt=belief.attempt,
            workers=list(group),
            incarnations=list(incarnations),
        )
        .returning(Plan.epoch)
    ).scalar_one()
    return OpenPlan(epoch=epoch, workers=tuple(group), incarnations=incarnations)


def withdraw_plan(connection: Connection, belief: Belief, *, present: Sequence[WorkerName]) -> int:
    """Have the job stay with *present*. Returns the epoch of the plan that they come from.

    Raises:
        StateConflict: The job has moved on, or a formed plan of it has not taken effect yet.
    """
    _hold(connection, belief, present)
    _end_pending(connection, belief.job_id, PlanOutcome.WITHDRAWN)
    _check_nothing_formed(connection, belief)
    in_effect = _epoch_in_effect(belief.job_id)
    return int(connection.execute(select(func.coalesce(in_effect, 0))).scalar_one())


def _hold(connection: Connection, belief: Belief, present: Sequence[WorkerName]) -> None:
    """Have the job stay as *belief* says until the transaction ends, with *present* at work."""
    conditions = [*as_believed(belief), Job.dispatched_at.is_not(None)]
    if connection.execute(select(Job.id).where(*conditions).with_for_update()).first() is None:
        raise StateConflict(
            f"job {belief.job_id} is no longer {belief.state} at attempt {belief.attempt}, so it "
            "gets no plan"
        )
    at_work = select(Segment.workers).where(*_open_segment(belief.job_id))
    workers = connection.execute(at_work).scalar_one_or_none() or ()
    if tuple(workers) != tuple(present):
        raise StateConflict(
            f"job {belief.job_id} has {', '.join(workers) or 'nobody'} by now, not "
            f"{', '.join(present) or 'nobody'}, so it gets no plan"
        )


def _live(
    connection: Connection, job_id: JobId, group: Sequence[WorkerName]
) -> tuple[Incarnation, ...]:
    """The live incarnations of *group*."""
    if not group:
        return ()
    found = connection.execute(
        select(Worker.name, Worker.incarnation).where(
            Worker.name.in_(group), Worker.state.in_(LIVE_WORKER_STATES)
        )
    )
    live = {WorkerName(name): Incarnation(incarnation) for name, incarnation in found}
    gone = [name for name in group if name not in live]
    if gone:
        raise StateConflict(f"worker {gone[0]} is gone, so job {job_id} gets no group with it")
    return tuple(live[name] for name in group)


def _end_pending(connection: Connection, job_id: JobId, outcome: PlanOutcome) -> None:
    """End the job's pending plan, if it has one. Waits for a leader that is about to form it."""
    connection.execute(
        update(Plan)
        .where(Plan.job_id == job_id, Plan.outcome.is_(None))
        .values(outcome=outcome, ended_at=func.clock_timestamp())
    )


def _epoch_in_effect(job_id: JobId) -> ScalarSelect[int]:
    """The plan epoch of the job's open segment; null if it has none."""
    return select(Segment.plan_epoch).where(*_open_segment(job_id)).scalar_subquery()


def _open_segment(job_id: JobId) -> tuple[ColumnElement[bool], ...]:
    return (Segment.job_id == job_id, Segment.ended_at.is_(None))


def _check_nothing_formed(connection: Connection, belief: Belief) -> None:
    formed = connection.execute(
        select(Plan.epoch).where(
            Plan.job_id == belief.job_id,
            Plan.attempt == belief.attempt,
            Plan.outcome == PlanOutcome.FORMED,
            Plan.epoch > func.coalesce(_epoch_in_effect(belief.job_id), 0),
        )
    ).first()
    if formed is not None:
        raise StateConflict(
            f"the group of plan {formed.epoch} has formed: job {belief.job_id} takes it at its "
            "next step boundary, and can be told otherwise after that"
        )


def _check_not_tried_just_now(
    connection: Connection, belief: Belief, incarnations: tuple[Incarnation, ...]
) -> None:
    """Who could not form a group a moment ago would fail again, as fast as they could be asked."""
    lately = func.clock_timestamp() - timedelta(seconds=TRY_AGAIN_S)
    failed = connection.execute(
        select(Plan.epoch).where(
            Plan.job_id == belief.job_id,
            Plan.attempt == belief.attempt,
            Plan.outcome == PlanOutcome.NOT_FORMED,
            Plan.incarnations == list(incarnations),
            Plan.ended_at > lately,
        )
    ).first()
    if failed is not None:
        raise StateConflict(
            f"plan {failed.epoch} of job {belief.job_id} was not formed a moment ago: the same "
            f"workers are asked again after {TRY_AGAIN_S:g} s"
        )


def check_free(connection: Connection, job_id: JobId, group: Sequence[WorkerName]) -> None:
    """Check that no other job has one of *group*, or was promised one.

    Only the scheduler gives a job workers that it had not: what it finds here stays so until it has
    given them.

    Raises:
        StateConflict: Another job has.
    """
    if not group:
        return
    used = select(func.max(Segment.plan_epoch)).where(Segment.job_id == Plan.job_id)
    names = cast(list(group), ARRAY(Text))
    queues = [queue_of(Phase.DIT, name) for name in group]
    at_work = select(Segment.job_id).where(
        Segment.ended_at.is_(None), Segment.job_id != job_id, Segment.workers.overlap(names)
    )
    of_job = (Job.id == Plan.job_id) & (Job.attempt == Plan.attempt)
    promised = (
        select(Plan.job_id)
        .join(Job, of_job)
        .where(
            Job.dispatched_at.is_not(None),
            Job.state.in_((JobState.ENCODED, JobState.DENOISING)),
            Job.id != job_id,
            is_open_or_formed(),
            Plan.epoch > func.coalesce(used.correlate(Plan).scalar_subquery(), 0),
            Plan.workers.overlap(names),
        )
    )
    sent = select(Job.id).where(
        Job.dispatched_at.is_not(None),
        Job.state == JobState.ENCODED,
        Job.id != job_id,
        Job.queue.in_(queues),
    )
    other = connection.execute(at_work.union_all(promised, sent).limit(1)).scalar_one_or_none()
    if other is not None:
        raise StateConflict(
            f"job {other} has one of {', '.join(group)} or was promised it, so job {job_id} gets "
            "no group with it"
        )

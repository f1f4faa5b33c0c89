"""The allocation history of a job: statements within a transaction of its holder.

The holder has changed the job's row already, so nobody else changes its segments meanwhile.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, func, insert, select, update

from ddit_batch.db.models import Job, Plan, PlanOutcome, Segment, Worker
from ddit_batch.job import Incarnation, JobId, WorkerName

GROUP_BROKEN = "group_broken"
"""Reason of a segment whose workers are what is left of a group that broke."""


def open_segment(
    connection: Connection, job_id: JobId, attempt: int, incarnation: Incarnation
) -> None:
    """Begin the first segment of a claimed attempt: its leader alone, from the last checkpoint."""
    name = connection.execute(
        select(Worker.name).where(Worker.incarnation == incarnation)
    ).scalar_one()
    step = connection.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(step=func.coalesce(Job.checkpoint_step, 0))
        .returning(Job.step)
    ).scalar_one()
    connection.execute(
        insert(Segment).values(
            job_id=job_id,
            attempt=attempt,
            plan_epoch=0,
            dop=1,
            workers=[name],
            from_step=step,
            reason="resume" if step else "start",
        )
    )


def change_segment(
    connection: Connection,
    job_id: JobId,
    attempt: int,
    *,
    epoch: int,
    workers: tuple[WorkerName, ...],
    step: int,
    reason: str,
    ago_s: float,
) -> None:
    """See ``ClaimStore.change_group``."""
    its = (Segment.job_id == job_id, Segment.ended_at.is_(None))
    found = select(Segment.plan_epoch, Segment.workers, Segment.from_step).where(*its)
    present = connection.execute(found).one()
    group = {"plan_epoch": epoch, "dop": len(workers), "workers": list(workers)}
    if (present.plan_epoch, present.workers) == (epoch, list(workers)):
        return  # this very change, after a lost answer
    if reason == GROUP_BROKEN:
        _end_plans(connection, job_id, attempt, after=epoch)
    if present.from_step >= step and reason != GROUP_BROKEN:
        connection.execute(update(Segment).where(*its).values(**group))
        return
    then = func.clock_timestamp() - timedelta(seconds=ago_s)
    ended_at = connection.execute(
        update(Segment)
        .where(*its)
        .values(
            ended_at=func.greatest(Segment.started_at, then),
            to_step=func.greatest(Segment.from_step, step),
        )
        .returning(Segment.ended_at)
    ).scalar_one()
    connection.execute(
        insert(Segment).values(
            job_id=job_id,
            attempt=attempt,
            from_step=step,
            started_at=ended_at,
            reason=reason,
            **group,
        )
    )


def _end_plans(connection: Connection, job_id: JobId, attempt: int, *, after: int) -> None:
    """End the plans that have not taken effect: they were made for the group that broke.

    Who of it is to go on would have to join anew, and was not told so.
    """
    connection.execute(
        update(Plan)
        .where(
            Plan.job_id == job_id,
            Plan.attempt == attempt,
            Plan.epoch > after,
            Plan.outcome.is_(None) | (Plan.outcome == PlanOutcome.FORMED),
        )
        .values(outcome=PlanOutcome.NOT_FORMED, ended_at=func.clock_timestamp())
    )

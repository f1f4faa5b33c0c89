"""The one way in which a job changes state: a compare-and-set, with its event and its attempt.

Rule 1: nothing else writes ``jobs.state``.
Rule 2: the target comes from the lifecycle table.
Rule 3: the caller names the state and attempt that it believes in; if the row has moved on, nothing
is written and the caller learns so by ``StateConflict``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    cast,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from ddit_batch.db.models import Attempt, Batch, Job, JobEvent, Plan, PlanOutcome, Segment
from ddit_batch.errors import StateConflict
from ddit_batch.job import FINAL_STATES, HELD_STATES, Incarnation, JobId, JobState, Phase
from ddit_batch.lifecycle import Trigger, next_state

SCHEDULER_CHANNEL = "ddit_scheduler"
"""Postgres NOTIFY channel that wakes the scheduler; the payload is a word for people."""

SUPERSEDED = "superseded"
"""Outcome of an attempt whose message nobody claimed before another was sent."""


_BEFORE_DIT = frozenset({JobState.QUEUED, JobState.ENCODED})
"""Where a job waits with steps to do."""
_AFTER_DIT = frozenset({JobState.DENOISED, JobState.DECODING})
"""Where the estimate that was made while it was denoised still holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What a writer believes of a job: the compare part of its compare-and-set."""

    job_id: JobId
    state: JobState
    attempt: int
    holder: Incarnation | None = None


def wake_scheduler(connection: Connection, why: str) -> None:
    """Wake the scheduler when this transaction commits."""
    connection.execute(
        text("SELECT pg_notify(:channel, :why)"), {"channel": SCHEDULER_CHANNEL, "why": why}
    )


def move(
    connection: Connection,
    belief: Belief,
    trigger: Trigger,
    *,
    by: Incarnation | None = None,
    detail: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> JobState:
    """Move the job as the lifecycle table says, with *changes* to other columns of its row.

    Leaving a held state ends the attempt and an open segment. The event is written in the same
    transaction, which is the caller's.

    Raises:
        IllegalTransition: The table does not know the move.
        StateConflict: The job is not as *belief* says; nothing was changed.
    """
    target = next_state(belief.state, trigger)
    values = {"state": target, "state_since": func.clock_timestamp(), **(changes or {})}
    if target not in HELD_STATES:
        values |= {"holder": None, "dispatched_at": None, "queue": None}
    values["finished_at"] = func.clock_timestamp() if target in FINAL_STATES else None
    if belief.state is JobState.DENOISING:
        values["starvation_s"] = 0.0
    if target not in _AFTER_DIT:
        values["eta_at"] = None
    if target in _BEFORE_DIT:
        values["work"] = _work_left(values)
    conditions = as_believed(belief)
    if trigger is Trigger.CLAIM:
        # A message whose attempt has ended, or that was sent before its batch was paused, may
        # still be under way: it must not be claimed.
        conditions += [Job.dispatched_at.is_not(None), ~Job.paused]
    moved = connection.execute(update(Job).where(*conditions).values(**values))
    if moved.rowcount != 1:
        raise StateConflict(
            f"job {belief.job_id} is no longer {belief.state} at attempt {belief.attempt}: "
            f"somebody else has moved it on, so '{trigger}' changed nothing"
        )
    connection.execute(
        insert(JobEvent).values(
            job_id=belief.job_id,
            trigger=trigger,
            from_state=belief.state,
            to_state=target,
            attempt=belief.attempt,
            incarnation=by,
            detail=_detail(belief.job_id, trigger, detail or {}),
        )
    )
    if trigger is not Trigger.CLAIM:
        end_attempt(connection, belief.job_id, outcome=trigger)
        _close_segment(connection, belief.job_id)
    wake_scheduler(connection, f"{belief.job_id} {trigger}")
    return target


def move_all(
    connection: Connection,
    state: JobState,
    trigger: Trigger,
    *,
    where: Sequence[ColumnElement[bool]],
    changes: Mapping[str, Any] | None = None,
) -> int:
    """Move every job in *state* that *where* describes and that has no live attempt.

    One statement however many they are. Returns how many moved.

    Raises:
        IllegalTransition: The table does not know the move.
    """
    target = next_state(state, trigger)
    assert target not in HELD_STATES, "only a claim leads to a held state, one job at a time"
    moved = (
        update(Job)
        .where(Job.state == state, Job.dispatched_at.is_(None), *where)
        .values(
            state=target,
            state_since=func.clock_timestamp(),
            finished_at=func.clock_timestamp() if target in FINAL_STATES else None,
            **({"work": _work_left({})} if target in _BEFORE_DIT else {}),
            **(changes or {}),
        )
        .returning(Job.id, Job.attempt, Job.finished_at, Job.cancel_requested_at)
        .cte("moved")
    )
    columns = select(
        moved.c.id,
        literal(str(trigger)),
        literal(str(state)),
        literal(str(target)),
        moved.c.attempt,
        _stopping(moved.c.finished_at - moved.c.cancel_requested_at)
        if trigger is Trigger.CANCEL
        else cast({}, JSONB),
    )
    events = insert(JobEvent).from_select(
        ["job_id", "trigger", "from_state", "to_state", "attempt", "detail"], columns
    )
    # Without the option an INSERT has no count.
    return int(connection.execute(events, execution_options={"preserve_rowcount": True}).rowcount)


def _detail(job_id: JobId, trigger: Trigger, said: Mapping[str, Any]) -> ColumnElement[Any]:
    """What an event says besides; of a cancel, how long it took from when it was asked for."""
    detail = cast(dict(said), JSONB)
    if trigger is not Trigger.CANCEL:
        return detail
    asked_at = func.coalesce(Job.cancel_requested_at, Batch.cancel_requested_at)
    took = (
        select(_stopping(Job.finished_at - asked_at))
        .join(Batch, Batch.id == Job.batch_id)
        .where(Job.id == job_id)
    )
    return detail.op("||")(took.scalar_subquery())


def _stopping(took: ColumnElement[Any]) -> ColumnElement[Any]:
    """An interval as ``{"stopping_s": seconds}``; ``{}`` of null: nobody asked."""
    seconds = func.round(func.extract("epoch", took), 3)
    return func.jsonb_strip_nulls(func.jsonb_build_object("stopping_s", seconds))


def end_attempt(connection: Connection, job_id: JobId, *, outcome: str) -> None:
    """End the job's live attempt, if it has one, and with it the plan that it has not followed."""
    plan = (
        update(Plan)
        .where(Plan.job_id == job_id, Plan.outcome.is_(None))
        .values(ended_at=func.clock_timestamp(), outcome=PlanOutcome.ATTEMPT_ENDED)
    )
    connection.execute(
        update(Attempt)
        .where(Attempt.job_id == job_id, Attempt.ended_at.is_(None))
        .values(ended_at=func.clock_timestamp(), outcome=outcome)
        .add_cte(plan.cte("plan"))
    )


def open_attempt(connection: Connection, job_id: JobId, phase: Phase, queue: str) -> int:
    """Record a new attempt, about to be sent to *queue*; returns its number."""
    number = next_number(connection, job_id, phase)
    connection.execute(
        insert(Attempt).values(job_id=job_id, phase=phase, number=number, queue=queue)
    )
    return number


def next_number(connection: Connection, job_id: JobId, phase: Phase) -> int:
    """The number that the next attempt at *phase* gets."""
    newest = select(func.coalesce(func.max(Attempt.number), 0)).where(
        Attempt.job_id == job_id, Attempt.phase == phase
    )
    return int(connection.execute(newest).scalar_one()) + 1


def as_believed(belief: Belief) -> list[Any]:
    """The conditions under which a write on behalf of *belief* may touch the job's row."""
    conditions: list[Any] = [
        Job.id == belief.job_id,
        Job.state == belief.state,
        Job.attempt == belief.attempt,
    ]
    if belief.holder is not None:
        conditions.append(Job.holder == belief.holder)
    return conditions


def _work_left(values: Mapping[str, Any]) -> ColumnElement[int]:
    """``job.work_of`` of the steps after the checkpoint that the row has, or gets by *values*."""
    checkpoint_step = values.get("checkpoint_step", Job.checkpoint_step)
    steps = Job.steps - func.coalesce(checkpoint_step, 0)
    return cast(Job.height, BigInteger) * Job.width * Job.num_frames * steps


def _close_segment(connection: Connection, job_id: JobId) -> None:
    """Close the job's open segment at the step that the job's row names."""
    step = select(func.greatest(Job.step, Segment.from_step)).where(Job.id == job_id)
    connection.execute(
        update(Segment)
        .where(Segment.job_id == job_id, Segment.ended_at.is_(None))
        .values(ended_at=func.clock_timestamp(), to_step=step.correlate(Segment).scalar_subquery())
    )

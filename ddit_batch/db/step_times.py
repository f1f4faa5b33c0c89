"""How long steps, encoding and decoding took, for the cost model. Reads only."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Engine, Subquery, and_, case, func, or_, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import aliased

from ddit_batch.db.models import Attempt, Job, Plan, PlanOutcome, Segment, Worker
from ddit_batch.db.segments import GROUP_BROKEN
from ddit_batch.job import BatchId, Phase, Shape
from ddit_batch.lifecycle import Trigger
from ddit_batch.measurement import PhaseTime
from ddit_batch.refinement import Observation

RECENT = 2000
"""Segments that are looked at, the newest ones: enough to have several of each shape in use, and
few enough that a changed machine is soon believed. Read in the order of the primary key."""

_WHOLE = (Trigger.FINISH, Trigger.GIVE_BACK)
"""Ends of an attempt that came when the last step did. The last segment of a lost or hung worker
ends when somebody notices, so its seconds say nothing of its steps; those before it ended at a step
boundary, unless their group broke."""

_SEGMENT_S = func.extract("epoch", Segment.ended_at - Segment.started_at)


def step_observations(
    engine: Engine, *, recent: int = RECENT, batch_id: BatchId | None = None
) -> tuple[Observation, ...]:
    """Seconds per step of the newest closed segments, or of one batch's, by model, shape and dop.

    A sample is a whole segment, so the first of an attempt includes what it costs to load
    embeddings, the last what it costs to write latents. Where a group changed in between, so that
    an attempt has several, these two count only if they have half of the job's steps at least: on
    fewer that cost weighs too much. Samples stand newest first.
    """
    newest = _closed_segments(recent, batch_id)
    key = (newest.c.model, newest.c.height, newest.c.width, newest.c.num_frames, newest.c.dop)
    samples = func.array_agg(aggregate_order_by(newest.c.step_s, newest.c.id.desc()))
    with engine.connect() as connection:
        return tuple(
            Observation(
                model=model,
                shape=Shape(height, width, num_frames),
                dop=dop,
                step_s=tuple(map(float, step_s)),
                count=len(step_s),
            )
            for model, height, width, num_frames, dop, step_s in connection.execute(
                select(*key, samples).group_by(*key).order_by(*key)
            )
        )


def _closed_segments(recent: int, batch_id: BatchId | None) -> Subquery:
    conditions: list[ColumnElement[bool]] = [
        Segment.to_step > Segment.from_step,
        Segment.ended_at > Segment.started_at,
        *_ended_with_a_step(),
    ]
    if batch_id is not None:
        conditions.append(Job.batch_id == batch_id)
    return (
        select(
            Segment.id,
            Job.model,
            Job.height,
            Job.width,
            Job.num_frames,
            Segment.dop,
            (_SEGMENT_S / (Segment.to_step - Segment.from_step)).label("step_s"),
        )
        .join(Job, Job.id == Segment.job_id)
        .join(
            Attempt,
            and_(
                Attempt.job_id == Segment.job_id,
                Attempt.phase == Phase.DIT,
                Attempt.number == Segment.attempt,
            ),
        )
        .where(*conditions)
        .order_by(Segment.id.desc())
        .limit(recent)
        .subquery()
    )


def _ended_with_a_step() -> tuple[ColumnElement[bool], ...]:
    """Of a segment with its job and attempt: its seconds are those of its steps, or nearly so."""
    other = aliased(Segment)
    others = select(other.reason).where(
        other.job_id == Segment.job_id, other.attempt == Segment.attempt
    )
    is_first = ~others.where(other.id < Segment.id).exists()
    # Why the segment after it began; null: there is none.
    after = others.where(other.id > Segment.id).order_by(other.id).limit(1).scalar_subquery()
    is_last = after.is_(None)
    is_whole = or_(Attempt.outcome.is_(None), Attempt.outcome.in_(_WHOLE))
    steps = Segment.to_step - Segment.from_step
    return (
        case((is_last, is_whole), else_=after != GROUP_BROKEN),
        or_(is_first == is_last, 2 * steps >= Job.steps),
    )


def start_times(engine: Engine, batch_id: BatchId) -> tuple[float, ...]:
    """Seconds from the sending of each DiT attempt of a batch to its claim."""
    rows = (
        select(func.extract("epoch", Attempt.claimed_at - Attempt.dispatched_at))
        .join(Job, Job.id == Attempt.job_id)
        .where(
            Job.batch_id == batch_id, Attempt.phase == Phase.DIT, Attempt.claimed_at.is_not(None)
        )
        .order_by(Attempt.claimed_at)
    )
    with engine.connect() as connection:
        return tuple(map(float, connection.scalars(rows)))


def form_times(engine: Engine, batch_id: BatchId) -> tuple[float, ...]:
    """Seconds from each decision on a group for a job of a batch until the group had formed."""
    rows = (
        select(func.extract("epoch", Plan.ended_at - Plan.made_at))
        .join(Job, Job.id == Plan.job_id)
        .where(
            Job.batch_id == batch_id,
            Plan.outcome == PlanOutcome.FORMED,
            func.cardinality(Plan.workers) > 1,
        )
        .order_by(Plan.epoch)
    )
    with engine.connect() as connection:
        return tuple(map(float, connection.scalars(rows)))


def phase_times(engine: Engine, batch_id: BatchId) -> tuple[PhaseTime, ...]:
    """The finished attempts at all phases of a batch, in the order of its lines."""
    rows = (
        select(
            Attempt.phase,
            Job.height,
            Job.width,
            Job.num_frames,
            func.extract("epoch", Attempt.ended_at - Attempt.claimed_at),
            Worker.device,
        )
        .join(Job, Job.id == Attempt.job_id)
        .join(Worker, Worker.incarnation == Attempt.incarnation)
        .where(Job.batch_id == batch_id, Attempt.outcome == Trigger.FINISH)
        .order_by(Job.line, Attempt.claimed_at)
    )
    with engine.connect() as connection:
        return tuple(
            PhaseTime(
                phase=Phase(phase),
                shape=Shape(height, width, num_frames),
                seconds=float(seconds),
                device=device,
            )
            for phase, height, width, num_frames, seconds, device in connection.execute(rows)
        )

"""What has been done for a job, for its manifest and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from ddit_batch.db.models import Attempt, JobEvent, Segment, Worker
from ddit_batch.job import JobId, JobState, Phase, WorkerName


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpan:
    """One claimed attempt at one phase."""

    phase: Phase
    attempt: int
    worker: WorkerName
    seconds: float
    outcome: str
    """The trigger that ended it, or ``running``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSpan:
    """Consecutive steps on one SP group."""

    workers: tuple[WorkerName, ...]
    """The leader first."""
    dop: int
    from_step: int
    to_step: int
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One state change."""

    at: datetime
    trigger: str
    from_state: JobState
    to_state: JobState
    attempt: int
    worker: WorkerName | None
    detail: Mapping[str, Any]


def events(engine: Engine, job_id: JobId) -> tuple[Event, ...]:
    """The job's state changes, oldest first."""
    rows = (
        select(JobEvent, Worker.name)
        .outerjoin(Worker, Worker.incarnation == JobEvent.incarnation)
        .where(JobEvent.job_id == job_id)
        .order_by(JobEvent.id)
    )
    with Session(engine) as session:
        return tuple(
            Event(
                at=event.at,
                trigger=event.trigger,
                from_state=JobState(event.from_state),
                to_state=JobState(event.to_state),
                attempt=event.attempt,
                worker=WorkerName(name) if name else None,
                detail=event.detail,
            )
            for event, name in session.execute(rows)
        )


def phase_spans(engine: Engine, job_id: JobId) -> tuple[PhaseSpan, ...]:
    """The job's claimed attempts, oldest first; one that still runs counts until now."""
    end = func.coalesce(Attempt.ended_at, func.clock_timestamp())
    rows = (
        select(
            Attempt.phase,
            Attempt.number,
            Worker.name,
            func.extract("epoch", end - Attempt.claimed_at),
            Attempt.outcome,
        )
        .join(Worker, Worker.incarnation == Attempt.incarnation)
        .where(Attempt.job_id == job_id)
        .order_by(Attempt.claimed_at)
    )
    with engine.connect() as connection:
        return tuple(
            PhaseSpan(
                phase=Phase(phase),
                attempt=number,
                worker=WorkerName(name),
                seconds=float(seconds),
                outcome=outcome or "running",
            )
            for phase, number, name, seconds, outcome in connection.execute(rows)
        )


def segment_spans(engine: Engine, job_id: JobId) -> tuple[SegmentSpan, ...]:
    """The job's closed segments, oldest first."""
    rows = (
        select(
            Segment.workers,
            Segment.dop,
            Segment.from_step,
            Segment.to_step,
            func.extract("epoch", Segment.ended_at - Segment.started_at),
            Segment.reason,
        )
        .where(Segment.job_id == job_id, Segment.ended_at.is_not(None))
        .order_by(Segment.id)
    )
    with engine.connect() as connection:
        return tuple(
            SegmentSpan(
                workers=tuple(WorkerName(name) for name in workers),
                dop=dop,
                from_step=from_step,
                to_step=to_step or 0,
                seconds=float(seconds),
                reason=reason,
            )
            for workers, dop, from_step, to_step, seconds, reason in connection.execute(rows)
        )

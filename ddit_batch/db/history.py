"""What has been done for a job, for its manifest and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ddit_batch.db.reading import Source, ask
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


def events(source: Source, job_id: JobId) -> tuple[Event, ...]:
    """The job's state changes, oldest first."""
    rows = ask(
        source,
        """
        SELECT at, trigger, from_state, to_state, attempt, workers.name AS worker, detail
        FROM job_events LEFT JOIN workers USING (incarnation)
        WHERE job_id = %(job_id)s ORDER BY job_events.id
        """,
        job_id=job_id,
    )
    return tuple(
        Event(
            at=row["at"],
            trigger=row["trigger"],
            from_state=JobState(row["from_state"]),
            to_state=JobState(row["to_state"]),
            attempt=row["attempt"],
            worker=WorkerName(row["worker"]) if row["worker"] else None,
            detail=row["detail"],
        )
        for row in rows
    )


def phase_spans(source: Source, job_id: JobId) -> tuple[PhaseSpan, ...]:
    """The job's claimed attempts, oldest first; one that still runs counts until now."""
    rows = ask(
        source,
        """
        SELECT attempts.phase, number AS attempt, workers.name AS worker,
            extract(
                epoch FROM coalesce(attempts.ended_at, clock_timestamp()) - claimed_at
            )::float8 AS seconds,
            coalesce(outcome, 'running') AS outcome
        FROM attempts JOIN workers USING (incarnation)
        WHERE job_id = %(job_id)s ORDER BY claimed_at
        """,
        job_id=job_id,
    )
    return tuple(PhaseSpan(**{**row, "phase": Phase(row["phase"])}) for row in rows)


def segment_spans(source: Source, job_id: JobId) -> tuple[SegmentSpan, ...]:
    """The job's closed segments, oldest first."""
    rows = ask(
        source,
        """
        SELECT workers, dop, from_step, to_step, reason,
            extract(epoch FROM ended_at - started_at)::float8 AS seconds
        FROM segments WHERE job_id = %(job_id)s AND ended_at IS NOT NULL ORDER BY id
        """,
        job_id=job_id,
    )
    return tuple(SegmentSpan(**{**row, "workers": tuple(row["workers"])}) for row in rows)

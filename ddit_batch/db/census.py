"""What monitoring asks of the database: counts for the metrics, and whether a worker is alive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select, text

from ddit_batch.db.leases import LIVE_WORKER_STATES
from ddit_batch.db.models import Job, JobEvent, Segment, Worker
from ddit_batch.job import FINAL_STATES, PHASE_OF, WAITING_STATE, JobState, Phase, WorkerName
from ddit_batch.lifecycle import Trigger

_FAILURES = frozenset({Trigger.ATTEMPT_FAILED, Trigger.FAIL, Trigger.HANDOFF_LOST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How things stand, and what has happened since the counts before."""

    jobs: Mapping[JobState, int]
    oldest_waiting_s: Mapping[Phase, float]
    """0 where none waits."""
    finished: Mapping[JobState, int]
    """Jobs that reached a final state."""
    failed_attempts: Mapping[tuple[Phase, str], int]
    """By phase and code of the cause."""
    segments: Mapping[str, int]
    """Segments begun, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marks:
    """How far two tables are read, by their rising ids."""

    events: int
    segments: int


class Census:
    """Counts, again and again; each event is counted once.

    Ids are given before their transactions commit, so the newest rows may still have gaps. An event
    is therefore counted one time later than it is first seen. What happened before the first time
    is not counted.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._counted: _Marks | None = None
        self._seen: _Marks | None = None

    def take(self) -> Counts:
        """Count. Reads every job once, and the events since."""
        with self._engine.connect() as connection:
            jobs, oldest_waiting_s = _jobs(connection)
            newest = _newest(connection)
            after, upto = self._counted or newest, self._seen or newest
            finished, failed_attempts = _events(connection, after.events, upto.events)
            segments = _segments(connection, after.segments, upto.segments)
        self._counted, self._seen = upto, newest
        return Counts(
            jobs=jobs,
            oldest_waiting_s=oldest_waiting_s,
            finished=finished,
            failed_attempts=failed_attempts,
            segments=segments,
        )


def _jobs(connection: Connection) -> tuple[dict[JobState, int], dict[Phase, float]]:
    age_s = func.extract("epoch", func.clock_timestamp() - func.min(Job.state_since))
    rows = connection.execute(select(Job.state, func.count(), age_s).group_by(Job.state)).all()
    jobs = {JobState(state): count for state, count, _ in rows}
    age = {JobState(state): float(seconds) for state, _, seconds in rows}
    return (
        {state: jobs.get(state, 0) for state in JobState},
        {phase: max(0.0, age.get(state, 0.0)) for phase, state in WAITING_STATE.items()},
    )


def _newest(connection: Connection) -> _Marks:
    events, segments = connection.execute(
        select(
            select(func.coalesce(func.max(JobEvent.id), 0)).scalar_subquery(),
            select(func.coalesce(func.max(Segment.id), 0)).scalar_subquery(),
        )
    ).one()
    return _Marks(events=events, segments=segments)


def _events(
    connection: Connection, after: int, upto: int
) -> tuple[Counter[JobState], Counter[tuple[Phase, str]]]:
    columns = (
        JobEvent.trigger,
        JobEvent.from_state,
        JobEvent.to_state,
        func.coalesce(JobEvent.detail["code"].as_string(), JobEvent.trigger),
    )
    rows = connection.execute(
        select(*columns, func.count())
        .where(JobEvent.id > after, JobEvent.id <= upto)
        .group_by(text("1, 2, 3, 4"))
    )
    finished: Counter[JobState] = Counter()
    failed: Counter[tuple[Phase, str]] = Counter()
    for trigger, from_state, to_state, code, count in rows:
        if to_state in FINAL_STATES:
            finished[JobState(to_state)] += count
        if trigger in _FAILURES:
            failed[PHASE_OF[JobState(from_state)], code] += count
    return finished, failed


def _segments(connection: Connection, after: int, upto: int) -> dict[str, int]:
    rows = connection.execute(
        select(Segment.reason, func.count().label("segments"))
        .where(Segment.id > after, Segment.id <= upto)
        .group_by(Segment.reason)
    )
    return {row.reason: row.segments for row in rows}


def is_alive(engine: Engine, worker: WorkerName) -> bool:
    """Whether the worker of that name is registered and renews its lease."""
    live = select(Worker.incarnation).where(
        Worker.name == worker,
        Worker.state.in_(LIVE_WORKER_STATES),
        Worker.lease_expires_at > func.clock_timestamp(),
    )
    with engine.connect() as connection:
        return connection.execute(live).first() is not None

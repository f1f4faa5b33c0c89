"""What the scheduler looks at now and then: all that is left to do, and what has ended of late.

Sums are made by Postgres, by kinds of jobs that cost the same; seconds are made of them elsewhere.
Waiting jobs are summed from an index that has all it takes (``jobs_shortest``), so their rows,
which have the requests in them, are not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, LiteralString

from sqlalchemy import Engine

from ddit_batch.backlog import Kind
from ddit_batch.db.reading import ask
from ddit_batch.job import Shape, work_of

LATEST = 100
"""Jobs that succeeded last, which count for the mean job although they are done."""
LATENCIES = 10_000
"""Latencies that are read at most, the newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """All that is unfinished at an instant."""

    now_s: float
    """On the clock of snapshots."""
    kinds: tuple[Kind, ...]
    latest: tuple[Kind, ...]
    """The jobs that succeeded last."""
    shares: dict[str, float]
    """Of the batches of ``kinds``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What succeeded in the time before an instant."""

    kinds: tuple[Kind, ...]
    """Of the jobs that had come within that time, too, told apart by when."""
    latencies_s: tuple[float, ...]
    """Of all, from submission to end."""


_UNFINISHED = """
SELECT left_.*, extract(epoch FROM batches.created_at)::float8 AS arrived_s, batches.share
FROM (
    SELECT batch_id, model, priority, height, width, num_frames, steps,
        state <> 'denoised' AS waits,
        CASE WHEN state = 'denoised' THEN 0 ELSE work END AS work,
        count(*) AS jobs, min(seq) AS seq
    FROM jobs
    WHERE state IN ('queued', 'encoded', 'denoised') AND dispatched_at IS NULL AND NOT paused
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
    UNION ALL
    SELECT batch_id, model, priority, height, width, num_frames, steps,
        false,
        CASE WHEN state IN ('denoised', 'decoding') THEN 0
            ELSE height::bigint * width * num_frames * (steps - step) END,
        1, seq
    FROM jobs WHERE dispatched_at IS NOT NULL AND NOT paused
) left_ JOIN batches ON batches.id = left_.batch_id
"""
_LATEST = """
SELECT model, height, width, num_frames, steps, count(*) AS jobs, 0 AS arrived_s
FROM (
    SELECT model, height, width, num_frames, steps FROM jobs
    WHERE state = 'succeeded' ORDER BY finished_at DESC LIMIT %(limit)s
) latest
GROUP BY 1, 2, 3, 4, 5
"""
_ENDED = """
SELECT model, height, width, num_frames, steps, count(*) AS jobs,
    extract(epoch FROM min(batches.created_at))::float8 AS arrived_s
FROM jobs JOIN batches ON batches.id = jobs.batch_id
WHERE state = 'succeeded'
    AND finished_at > to_timestamp(%(since_s)s) AND batches.created_at > to_timestamp(%(since_s)s)
GROUP BY 1, 2, 3, 4, 5, batches.created_at >= to_timestamp(%(newer_s)s)
"""
_LATENCIES = """
SELECT extract(epoch FROM finished_at - batches.created_at)::float8 AS latency_s
FROM jobs JOIN batches ON batches.id = jobs.batch_id
WHERE state = 'succeeded' AND finished_at > to_timestamp(%(since_s)s)
ORDER BY finished_at DESC
LIMIT %(limit)s
"""
_NOW: LiteralString = "SELECT extract(epoch FROM clock_timestamp())::float8 AS now_s"


def read_left(engine: Engine) -> Left:
    """All that is left to do, but for paused batches."""
    (now,) = ask(engine, _NOW)
    rows = ask(engine, _UNFINISHED)
    return Left(
        now_s=now["now_s"],
        kinds=tuple(_kind(row) for row in rows),
        latest=_done(ask(engine, _LATEST, limit=LATEST)),
        shares={row["batch_id"]: row["share"] for row in rows},
    )


def read_ended(engine: Engine, *, since_s: float, newer_s: float) -> Ended:
    """What has succeeded since a time on the clock of snapshots.

    Jobs that came before *newer_s* are kinds of their own.
    """
    latencies = ask(engine, _LATENCIES, since_s=since_s, limit=LATENCIES)
    return Ended(
        kinds=_done(ask(engine, _ENDED, since_s=since_s, newer_s=newer_s)),
        latencies_s=tuple(row["latency_s"] for row in latencies),
    )


def _kind(row: dict[str, Any]) -> Kind:
    shape = Shape(row["height"], row["width"], row["num_frames"])
    return Kind(
        batch_id=row["batch_id"],
        model=row["model"],
        shape=shape,
        steps=row["steps"],
        steps_left=row["work"] // work_of(shape, 1),
        jobs=row["jobs"],
        arrived_s=row["arrived_s"],
        priority=row["priority"],
        seq=row["seq"],
        waits=row["waits"],
    )


def _done(rows: Iterable[dict[str, Any]]) -> tuple[Kind, ...]:
    """Kinds of finished jobs, of whatever batch."""
    return tuple(
        Kind(
            batch_id="",
            model=row["model"],
            shape=Shape(row["height"], row["width"], row["num_frames"]),
            steps=row["steps"],
            steps_left=0,
            jobs=row["jobs"],
            arrived_s=row["arrived_s"],
            waits=False,
        )
        for row in rows
    )

"""Four DiT workers, jobs for them, and what SQL says of who had which of them when."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from signal import SIGKILL
from typing import Any

from cluster_tools import Batch, Cluster, Row
from e2e_processes import wait_until

from ddit_batch.job import JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One segment."""

    custom_id: str
    workers: tuple[int, ...]
    """Their numbers, the leader's first."""
    from_step: int
    to_step: int | None
    reason: str
    began_s: float
    ended_s: float | None


def spans(*batches: Batch) -> list[Span]:
    """The segments of all jobs of *batches*, oldest first."""
    rows = batches[0].cluster.rows(
        "SELECT j.custom_id, s.workers, from_step, to_step, reason, "
        "    extract(epoch FROM s.started_at)::float8, extract(epoch FROM s.ended_at)::float8 "
        "FROM segments s JOIN jobs j ON j.id = s.job_id WHERE batch_id = ANY(%s) ORDER BY s.id",
        [batch.batch_id for batch in batches],
    )
    return [
        Span(
            custom_id=custom_id,
            workers=tuple(map(number, workers)),
            from_step=from_step,
            to_step=to_step,
            reason=reason,
            began_s=began_s,
            ended_s=ended_s,
        )
        for custom_id, workers, from_step, to_step, reason, began_s, ended_s in rows
    ]


def groups(found: list[Span], custom_id: str) -> list[tuple[int, ...]]:
    """The groups of one job, in order."""
    return [span.workers for span in found if span.custom_id == custom_id]


def assert_no_worker_in_two_groups(found: list[Span]) -> None:
    """Of the segments of one worker each ends before the next begins."""
    of_worker: dict[int, list[Span]] = defaultdict(list)
    for span in found:
        for worker in span.workers:
            of_worker[worker].append(span)
    assert of_worker
    for mine in of_worker.values():
        mine.sort(key=lambda span: span.began_s)
        for earlier, later in pairwise(mine):
            assert earlier.ended_s is not None
            assert earlier.ended_s <= later.began_s, (earlier, later)


def assert_steps_are_whole(found: list[Span], custom_id: str, steps: int) -> None:
    """The job's segments follow each other without a gap or an overlap, from 0 to *steps*."""
    mine = [span for span in found if span.custom_id == custom_id]
    assert [span.from_step for span in mine] == [0, *(span.to_step for span in mine[:-1])]
    assert mine[-1].to_step == steps


def number(worker: str) -> int:
    """The 1 of ``dit-1@host``."""
    return int(worker.partition("@")[0].rpartition("-")[2])


def pid_of(cluster: Cluster, worker: int) -> int:
    """The process of DiT worker *worker*."""
    query = "SELECT pid FROM workers WHERE name LIKE %s AND state IN ('online', 'draining')"
    return int(cluster.value(query, f"dit-{worker}@%"))


def kill_worker(cluster: Cluster, worker: int) -> None:
    """End DiT worker *worker* for good, as the kernel's memory killer does."""
    os.kill(pid_of(cluster, worker), SIGKILL)


def ids(*batches: Batch) -> dict[str, JobId]:
    """The ids of the jobs of *batches*, by custom_id."""
    return {name: JobId(batch.job(name)["id"]) for batch in batches for name in batch.custom_ids}


def wait_group(batch: Batch, custom_id: str, workers: tuple[int, ...]) -> Row:
    """Wait until the job runs on *workers*; the open segment's ``(id, from_step, step)``."""
    query = (
        "SELECT s.id, s.from_step, j.step, s.workers "
        "FROM segments s JOIN jobs j ON j.id = s.job_id "
        "WHERE batch_id = %s AND custom_id = %s AND s.ended_at IS NULL"
    )

    def there() -> Row | None:
        rows = batch.cluster.rows(query, batch.batch_id, custom_id)
        return next((r[:3] for r in rows if tuple(map(number, r[3])) == workers), None)

    return wait_until(there, f"{custom_id} has {workers}")


def step_said(batch: Batch, custom_id: str) -> int:
    """The job's step as its leader last said it."""
    return batch._step(batch.job(custom_id)["id"])


def events(batch: Batch, custom_id: str) -> list[Any]:
    """The triggers of the job's state changes, in order."""
    return [
        row[0]
        for row in batch.cluster.rows(
            "SELECT trigger FROM job_events e JOIN jobs j ON j.id = e.job_id "
            "WHERE batch_id = %s AND custom_id = %s ORDER BY e.id",
            batch.batch_id,
            custom_id,
        )
    ]

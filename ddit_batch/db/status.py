"""What people and scripts ask of the database. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ddit_batch.db.reading import Source, ask, stream
from ddit_batch.errors import NotFound
from ddit_batch.job import FINAL_STATES, HELD_STATES, BatchId, JobId, JobState, Phase, WorkerName


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """A batch and how many of its jobs are in each state."""

    batch_id: BatchId
    name: str
    total: int
    created_at: datetime
    out_url: str | None
    jobs: Mapping[JobState, int]
    eta_s: float | None = None
    """Seconds until its last video is complete, as the scheduler that leads estimates; None while
    it cannot, or there is none."""
    deadline: datetime | None = None
    share: float = 1.0
    paused_at: datetime | None = None

    @property
    def done(self) -> int:
        """Jobs in a final state."""
        return sum(self.jobs.get(state, 0) for state in FINAL_STATES)

    @property
    def is_done(self) -> bool:
        """Nothing will happen any more without a user."""
        return self.done == self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """A job that a worker holds now."""

    job_id: JobId
    custom_id: str
    state: JobState
    step: int
    steps: int
    step_s: float | None
    """Seconds of a recent step."""
    dop: int
    worker: WorkerName
    held_s: float
    eta_s: float | None
    """Seconds until its video is complete, as the scheduler estimated at its last step; None while
    there is nothing to go by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedJob:
    """A job in a final state."""

    job_id: JobId
    custom_id: str
    state: JobState
    model: str
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    num_frames: int
    seed: int
    artifact_key: str | None
    manifest_key: str | None
    failure_code: str | None
    failure_message: str | None


def batches(source: Source, batch_id: BatchId | None = None) -> tuple[BatchSummary, ...]:
    """All batches, newest first, or the one that is asked for."""
    rows = ask(
        source,
        """
        SELECT batches.id, name, total, created_at, out_url, coalesce(states, '{}') AS states,
            share, deadline, paused_at,
            CASE WHEN paused_at IS NULL AND eta_at > clock_timestamp()
                    AND (SELECT ddit_scheduler_leads()) THEN
                extract(epoch FROM eta_at - clock_timestamp())::float8 END AS eta_s
        FROM batches LEFT JOIN (
            SELECT batch_id, jsonb_object_agg(state, jobs) AS states
            FROM (
                SELECT batch_id, state, count(*) AS jobs FROM jobs
                WHERE %(batch_id)s::text IS NULL OR batch_id = %(batch_id)s
                GROUP BY batch_id, state
            ) AS counted
            GROUP BY batch_id
        ) AS gathered ON gathered.batch_id = batches.id
        WHERE %(batch_id)s::text IS NULL OR batches.id = %(batch_id)s
        ORDER BY created_at DESC
        """,
        batch_id=batch_id,
    )
    return tuple(
        BatchSummary(
            batch_id=BatchId(row["id"]),
            name=row["name"],
            total=row["total"],
            created_at=row["created_at"],
            out_url=row["out_url"],
            jobs={JobState(state): jobs for state, jobs in row["states"].items()},
            eta_s=row["eta_s"],
            share=row["share"],
            deadline=row["deadline"],
            paused_at=row["paused_at"],
        )
        for row in rows
    )


def one_batch(source: Source, batch_id: BatchId) -> BatchSummary:
    """The batch of that id.

    Raises:
        NotFound: There is none.
    """
    found = batches(source, batch_id)
    if not found:
        raise NotFound(f"no batch {batch_id!r}: `ddit status` lists them")
    return found[0]


def running_jobs(source: Source, batch_id: BatchId) -> tuple[RunningJob, ...]:
    """The batch's jobs that workers hold now, those furthest on first."""
    rows = ask(
        source,
        """
        SELECT jobs.id AS job_id, custom_id, jobs.state, step, steps, step_s, dop,
            workers.name AS worker,
            extract(epoch FROM clock_timestamp() - state_since)::float8 AS held_s,
            greatest(extract(epoch FROM jobs.eta_at - clock_timestamp()), 0)::float8 AS eta_s
        FROM jobs JOIN workers ON workers.incarnation = jobs.holder
        WHERE batch_id = %(batch_id)s AND jobs.state = ANY(%(held)s)
        ORDER BY jobs.state, seq
        """,
        batch_id=batch_id,
        held=list(map(str, HELD_STATES)),
    )
    return tuple(RunningJob(**{**row, "state": JobState(row["state"])}) for row in rows)


def finished_jobs(source: Source, batch_id: BatchId) -> Iterator[FinishedJob]:
    """The batch's jobs in final states, in the order of their lines, a few at a time."""
    rows = stream(
        source,
        """
        SELECT id AS job_id, custom_id, state, model, width, height, num_frames,
            (request ->> 'seed')::bigint AS seed,
            artifact_key, manifest_key, failure_code, failure_message
        FROM jobs WHERE batch_id = %(batch_id)s AND state = ANY(%(final)s)
        ORDER BY line
        """,
        batch_id=batch_id,
        final=list(map(str, FINAL_STATES)),
    )
    for row in rows:
        yield FinishedJob(**{**row, "state": JobState(row["state"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """The failed jobs of a batch that have one cause in common."""

    code: str
    jobs: int
    example: str
    """The message of the first of them."""
    advice: str | None
    """What to do about it; None for a cause that this release does not know."""


def failures(source: Source, batch_id: BatchId) -> tuple[Failures, ...]:
    """Why jobs of the batch have failed, the most frequent cause first."""
    rows = ask(
        source,
        """
        SELECT failure_code AS code, count(*) AS jobs,
            (array_agg(failure_message ORDER BY line))[1] AS example, min(cause.advice) AS advice
        FROM jobs LEFT JOIN failure_causes cause ON cause.code = jobs.failure_code
        WHERE batch_id = %(batch_id)s AND state = 'failed'
        GROUP BY failure_code
        ORDER BY jobs DESC, failure_code
        """,
        batch_id=batch_id,
    )
    return tuple(Failures(**row) for row in rows)


def job_facts(source: Source, job_id: JobId) -> dict[str, object]:
    """The job's row of the view ``job_status``, by column.

    Raises:
        NotFound: There is no such job.
    """
    rows = ask(source, "SELECT * FROM job_status WHERE job_id = %(job_id)s", job_id=job_id)
    if not rows:
        raise NotFound(f"no job {job_id!r}: `ddit sql` on the view job_status lists them")
    return dict(rows[0])


def models_served(source: Source) -> frozenset[str]:
    """The models that at least one live worker serves."""
    rows = ask(
        source,
        """
        SELECT DISTINCT unnest(models) AS model FROM workers
        WHERE state IN ('online', 'draining') AND lease_expires_at > now()
        """,
    )
    return frozenset(row["model"] for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnloadedModel:
    """A model that a worker could not load when it last started."""

    model: str
    worker: WorkerName
    phase: Phase
    message: str
    served: bool
    """Whether another worker of the phase serves it."""


def unloaded_models(source: Source) -> tuple[UnloadedModel, ...]:
    """What workers could not load, in order of model and worker."""
    rows = ask(
        source,
        """
        SELECT model, worker, phase, message, EXISTS (
            SELECT FROM workers
            WHERE workers.phase = problem.phase AND problem.model = ANY(models)
                AND state = 'online' AND lease_expires_at > now()
        ) AS served
        FROM model_problems problem ORDER BY model, worker
        """,
    )
    return tuple(UnloadedModel(**{**row, "phase": Phase(row["phase"])}) for row in rows)


def workers_online(source: Source) -> dict[Phase, int]:
    """How many live workers each phase has; a phase without any is left out."""
    rows = ask(
        source,
        """
        SELECT phase, count(*) AS workers FROM workers
        WHERE state IN ('online', 'draining') AND lease_expires_at > now()
        GROUP BY phase
        """,
    )
    return {Phase(row["phase"]): row["workers"] for row in rows}


def dit_workers_by_node(source: Source, model: str) -> tuple[int, ...]:
    """How many live DiT workers serve *model*, of each node that has one."""
    rows = ask(
        source,
        """
        SELECT count(*) AS workers FROM workers
        WHERE phase = 'dit' AND state = 'online' AND lease_expires_at > now()
            AND %(model)s = ANY(models)
        GROUP BY node ORDER BY node
        """,
        model=model,
    )
    return tuple(row["workers"] for row in rows)


def scheduler_leads(source: Source) -> bool:
    """Whether a scheduler leads now."""
    (row,) = ask(source, "SELECT ddit_scheduler_leads() AS leads")
    return bool(row["leads"])


def names_ever_registered(source: Source) -> frozenset[str]:
    """The names, without their hosts, of workers that came up at least once since Postgres did."""
    rows = ask(source, "SELECT name FROM workers WHERE registered_at > pg_postmaster_start_time()")
    return frozenset(row["name"].partition("@")[0] for row in rows)


def steps_done(source: Source, batch_id: BatchId) -> tuple[int, int]:
    """Denoising steps done and steps in all, over the jobs of the batch that are not given up."""
    (row,) = ask(
        source,
        """
        SELECT coalesce(sum(step), 0) AS done, coalesce(sum(steps), 0) AS total FROM jobs
        WHERE batch_id = %(batch_id)s AND state NOT IN ('failed', 'cancelled')
        """,
        batch_id=batch_id,
    )
    return row["done"], row["total"]

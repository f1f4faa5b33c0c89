"""What people and scripts ask of the database. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Engine, cast, func, select, text

from ddit_batch.db.leases import LIVE_WORKER_STATES
from ddit_batch.db.models import Batch, Job, Worker
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

    @property
    def eta_s(self) -> float | None:
        """Seconds of denoising left at the present pace; None while there is nothing to go by."""
        if self.state is not JobState.DENOISING or self.step_s is None:
            return None
        return (self.steps - self.step) * self.step_s


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


def batches(engine: Engine, batch_id: BatchId | None = None) -> tuple[BatchSummary, ...]:
    """All batches, newest first, or the one that is asked for."""
    counts = (
        select(Job.batch_id, Job.state, func.count().label("jobs"))
        .group_by(Job.batch_id, Job.state)
        .order_by(Job.batch_id)
    )
    rows = select(Batch).order_by(Batch.created_at.desc())
    if batch_id is not None:
        counts = counts.where(Job.batch_id == batch_id)
        rows = rows.where(Batch.id == batch_id)
    with engine.connect() as connection:
        by_batch: dict[str, dict[JobState, int]] = {}
        for batch, state, jobs in connection.execute(counts):
            by_batch.setdefault(batch, {})[JobState(state)] = jobs
        return tuple(
            BatchSummary(
                batch_id=BatchId(row.id),
                name=row.name,
                total=row.total,
                created_at=row.created_at,
                out_url=row.out_url,
                jobs=by_batch.get(row.id, {}),
            )
            for row in connection.execute(rows)
        )


def one_batch(engine: Engine, batch_id: BatchId) -> BatchSummary:
    """The batch of that id.

    Raises:
        NotFound: There is none.
    """
    found = batches(engine, batch_id)
    if not found:
        raise NotFound(f"no batch {batch_id!r}: `ddit status` lists them")
    return found[0]


def running_jobs(engine: Engine, batch_id: BatchId) -> tuple[RunningJob, ...]:
    """The batch's jobs that workers hold now, those furthest on first."""
    rows = (
        select(
            Job.id,
            Job.custom_id,
            Job.state,
            Job.step,
            Job.steps,
            Job.step_s,
            Job.dop,
            Worker.name,
            func.extract("epoch", func.clock_timestamp() - Job.state_since),
        )
        .join(Worker, Worker.incarnation == Job.holder)
        .where(Job.batch_id == batch_id, Job.state.in_(HELD_STATES))
        .order_by(Job.state, Job.seq)
    )
    with engine.connect() as connection:
        return tuple(
            RunningJob(
                job_id=JobId(job_id),
                custom_id=custom_id,
                state=JobState(state),
                step=step,
                steps=steps,
                step_s=step_s,
                dop=dop,
                worker=WorkerName(worker),
                held_s=float(held_s),
            )
            for job_id, custom_id, state, step, steps, step_s, dop, worker, held_s in (
                connection.execute(rows)
            )
        )


def finished_jobs(engine: Engine, batch_id: BatchId) -> Iterator[FinishedJob]:
    """The batch's jobs in final states, in the order of their lines, a few at a time."""
    rows = (
        select(
            Job.id,
            Job.custom_id,
            Job.state,
            Job.model,
            Job.width,
            Job.height,
            Job.num_frames,
            cast(Job.request["seed"].as_string(), BigInteger).label("seed"),
            Job.artifact_key,
            Job.manifest_key,
            Job.failure_code,
            Job.failure_message,
        )
        .where(Job.batch_id == batch_id, Job.state.in_(FINAL_STATES))
        .order_by(Job.line)
    )
    with engine.connect().execution_options(yield_per=1000) as connection:
        for row in connection.execute(rows):
            yield FinishedJob(
                job_id=JobId(row.id),
                custom_id=row.custom_id,
                state=JobState(row.state),
                model=row.model,
                width=row.width,
                height=row.height,
                num_frames=row.num_frames,
                seed=row.seed,
                artifact_key=row.artifact_key,
                manifest_key=row.manifest_key,
                failure_code=row.failure_code,
                failure_message=row.failure_message,
            )


def job_facts(engine: Engine, job_id: JobId) -> dict[str, object]:
    """The job's row of the view ``job_status``, by column.

    Raises:
        NotFound: There is no such job.
    """
    with engine.connect() as connection:
        query = text("SELECT * FROM job_status WHERE job_id = :job_id")
        row = connection.execute(query, {"job_id": job_id}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no job {job_id!r}: `ddit sql` on the view job_status lists them")
    return dict(row)


def models_served(engine: Engine) -> frozenset[str]:
    """The models that at least one live worker serves."""
    rows = select(Worker.models).where(
        Worker.state.in_(LIVE_WORKER_STATES), Worker.lease_expires_at > func.now()
    )
    with engine.connect() as connection:
        return frozenset(model for models in connection.scalars(rows) for model in models)


def workers_online(engine: Engine) -> dict[Phase, int]:
    """How many live workers each phase has; a phase without any is left out."""
    rows = (
        select(Worker.phase, func.count())
        .where(Worker.state.in_(LIVE_WORKER_STATES), Worker.lease_expires_at > func.now())
        .group_by(Worker.phase)
    )
    with engine.connect() as connection:
        return {Phase(phase): count for phase, count in connection.execute(rows)}


def names_ever_registered(engine: Engine) -> frozenset[str]:
    """The names, without their hosts, of workers that came up at least once since Postgres did."""
    rows = select(Worker.name).where(Worker.registered_at > func.pg_postmaster_start_time())
    with engine.connect() as connection:
        return frozenset(name.partition("@")[0] for name in connection.scalars(rows))


def steps_done(engine: Engine, batch_id: BatchId) -> tuple[int, int]:
    """Denoising steps done and steps in all, over the jobs of the batch that are not given up."""
    rows = select(
        func.coalesce(func.sum(Job.step), 0), func.coalesce(func.sum(Job.steps), 0)
    ).where(Job.batch_id == batch_id, Job.state.not_in(("failed", "cancelled")))
    with engine.connect() as connection:
        done, total = connection.execute(rows).one()
        return int(done), int(total)

"""Batches, jobs and workers in a database, brought there by the calls of the package itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

from sqlalchemy import Connection, Engine, func, text, update

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.leases import LeaseStore, WorkerIdentity
from ddit_batch.db.models import Worker
from ddit_batch.db.scheduler_store import SchedulerStore
from ddit_batch.db.submission import job_id, submit
from ddit_batch.job import (
    HELD_STATES,
    PHASE_OF,
    Incarnation,
    JobId,
    JobState,
    Phase,
    WorkerName,
    queue_of,
)
from ddit_batch.request import Request
from ddit_batch.snapshot import JobView, Snapshot

LEADER = WorkerName("dit-0@host")
"""The worker to whose queue DiT work is sent when a test does not care."""

STRAIGHT_WAY = (
    JobState.QUEUED,
    JobState.ENCODING,
    JobState.ENCODED,
    JobState.DENOISING,
    JobState.DENOISED,
    JobState.DECODING,
    JobState.SUCCEEDED,
)

_TABLES = (
    "batches",
    "jobs",
    "job_events",
    "attempts",
    "segments",
    "plans",
    "workers",
    "leadership",
    "store_health",
)
_A_REQUEST = Request(
    custom_id="video-1",
    line=1,
    model="tiny-wan",
    prompt="a cat",
    negative_prompt="",
    height=64,
    width=96,
    num_frames=9,
    num_inference_steps=8,
    guidance_scale=5.0,
    seed=1,
    fps=8,
)


def a_request(line: int = 1, **changes: object) -> Request:
    """A small request, as line *line*, with some fields changed."""
    own = {"line": line, "custom_id": f"video-{line}", "seed": line}
    return replace(_A_REQUEST, **{**own, **changes})


def submitted(engine: Engine, count: int = 1, **changes: object) -> tuple[JobId, ...]:
    """The jobs of a new batch of *count* alike requests."""
    requests = [a_request(line, **changes) for line in range(1, count + 1)]
    batch = submit(engine, requests, content_hash=uuid4().hex, name="p.jsonl", out_url=None)
    return tuple(job_id(batch.batch_id, request.line) for request in requests)


def identity(
    phase: Phase = Phase.DIT,
    *,
    name: str | None = None,
    models: tuple[str, ...] = ("tiny-wan",),
    node: str = "host",
) -> WorkerIdentity:
    """What a worker says of itself; without a *name*, one that comes after all given ones."""
    return WorkerIdentity(
        name=WorkerName(name or f"{phase}-x{uuid4().hex[:8]}@host"),
        phase=phase,
        host="host",
        node=node,
        device="cpu",
        pid=1,
        models=models,
        version="0",
    )


def registered(
    engine: Engine,
    phase: Phase = Phase.DIT,
    *,
    name: str | None = None,
    lease_s: float = 600.0,
    models: tuple[str, ...] = ("tiny-wan",),
) -> Incarnation:
    """A live worker; with a negative *lease_s* its lease has run out already."""
    return LeaseStore(engine, lease_s=lease_s).register(identity(phase, name=name, models=models))


def leading(engine: Engine) -> SchedulerStore:
    """The store of whoever leads."""
    with engine.connect() as connection:
        term = connection.execute(text("SELECT term FROM leadership")).scalar_one()
    return SchedulerStore(engine, term=term)


def view(engine: Engine, job: JobId) -> JobView:
    """The job as a snapshot shows it. What nobody serves is not shown: then a worker is added."""
    snapshot = seen(engine)
    if not any(worker.phase is Phase.DIT for worker in snapshot.workers):
        registered(engine, Phase.DIT, name=LEADER)
        snapshot = seen(engine)
    return next(found for found in snapshot.jobs if found.job_id == job)


def seen(engine: Engine, *, window: int = 1000) -> Snapshot:
    """A snapshot, which any term may take."""
    return SchedulerStore(engine, term=0).snapshot(window=window, may_lose_workers=True)


def sent(engine: Engine, job: JobId) -> None:
    """Send the waiting job, unless its message is out already."""
    if row(engine, job)["dispatched_at"] is None:
        found = view(engine, job)
        phase = PHASE_OF[found.state]
        queue = queue_of(phase, LEADER if phase is Phase.DIT else None)
        leading(engine).open_attempt(found, queue)


def withdrawn(engine: Engine, job: JobId) -> None:
    """The waiting job's message sent, if it was not yet, and made void."""
    sent(engine, job)
    found = view(engine, job)
    leading(engine).withdraw(found)


def phase_of(engine: Engine, job: JobId) -> Phase:
    """The phase that the job waits for or is in."""
    return PHASE_OF[JobState(row(engine, job)["state"])]


def claimed(engine: Engine, job: JobId, by: Incarnation | None = None) -> Claim:
    """The waiting job's next phase, claimed by a worker of its own or the given one."""
    sent(engine, job)
    phase, attempt = phase_of(engine, job), row(engine, job)["attempt"]
    by = registered(engine, phase) if by is None else by
    return ClaimStore(engine).claim(job, phase, attempt, by)


def finished(engine: Engine, claim: Claim) -> None:
    """The claimed phase done, its output named for its attempt."""
    claims = ClaimStore(engine)
    match claim.phase:
        case Phase.ENCODE:
            claims.finish_encode(claim, embeddings_key=f"embeddings-{claim.attempt}")
        case Phase.DIT:
            claims.finish_dit(claim, latents_key=f"latents-{claim.attempt}", vae_queue="vae")
        case Phase.VAE:
            claims.finish_vae(claim, artifact_key="video", manifest_key="manifest")


def waiting_for(engine: Engine, phase: Phase) -> JobId:
    """A new job whose message for *phase* is out."""
    (job,) = submitted(engine)
    for _ in range(list(Phase).index(phase)):
        finished(engine, claimed(engine, job))
    sent(engine, job)
    return job


def holding(engine: Engine, phase: Phase, by: Incarnation | None = None) -> Claim:
    """A claim on *phase* of a new job."""
    return claimed(engine, waiting_for(engine, phase), by)


def job_in(engine: Engine, state: JobState) -> JobId:
    """A new job that came to *state* the legal way; if it waits there, its message is out.

    A failed one failed in its last phase, so it has every handoff; a cancelled one was denoising.
    """
    if state is JobState.SUCCEEDED:
        claim = holding(engine, Phase.VAE)
        finished(engine, claim)
    elif state is JobState.FAILED:
        claim = holding(engine, Phase.VAE)
        ClaimStore(engine).fail(claim, code="x", message="y", retryable=False, max_failures=1)
    elif state is JobState.CANCELLED:
        claim = holding(engine, Phase.DIT)
        ClaimStore(engine).cancelled(claim)
    elif state in HELD_STATES:
        claim = holding(engine, PHASE_OF[state])
    else:
        return waiting_for(engine, PHASE_OF[state])
    return claim.job_id


def lost(engine: Engine, incarnation: Incarnation) -> None:
    """Have the worker declared lost, its lease having run out."""
    with engine.begin() as connection:
        connection.execute(
            update(Worker)
            .where(Worker.incarnation == incarnation)
            .values(lease_expires_at=func.now() - timedelta(seconds=1))
        )
    assert leading(engine).lose_worker(incarnation)


def contents(connection: Connection) -> dict[str, tuple[str, ...]]:
    """Every row of every table."""
    return {
        table: tuple(
            connection.scalars(text(f"SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1"))
        )
        for table in _TABLES
    }


@contextmanager
def unchanged(engine: Engine) -> Iterator[None]:
    """Assert that the block leaves every row of every table as it is."""
    with engine.connect() as connection:
        before = contents(connection)
    yield
    with engine.connect() as connection:
        assert contents(connection) == before


def row(engine: Engine, job: JobId) -> dict[str, object]:
    """The job's row."""
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job})
        return dict(found.mappings().one())


def history(engine: Engine, job: JobId) -> list[tuple[str, str, str]]:
    """Every move of the job: trigger, from, to."""
    return _rows(
        engine,
        "SELECT trigger, from_state, to_state FROM job_events WHERE job_id = :id ORDER BY id",
        job,
    )


def attempts(engine: Engine, job: JobId) -> list[tuple[str, int, str | None]]:
    """Every attempt at the job: phase, number, outcome; in order of dispatch."""
    return _rows(
        engine,
        "SELECT phase, number, outcome FROM attempts WHERE job_id = :id ORDER BY dispatched_at",
        job,
    )


def segments(engine: Engine, job: JobId) -> list[tuple[int, int | None, str]]:
    """Every segment of the job: from step, to step, reason."""
    return _rows(
        engine,
        "SELECT from_step, to_step, reason FROM segments WHERE job_id = :id ORDER BY id",
        job,
    )


def _rows(engine: Engine, query: str, job: JobId) -> list[tuple]:
    with engine.connect() as connection:
        return [tuple(found) for found in connection.execute(text(query), {"id": job})]

from __future__ import annotations

import pytest
import rows
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from ddit_batch.job import HELD_STATES, WAITING_STATE, Incarnation, JobId, JobState, Phase

S = JobState

BREACHES_OF_A_JOB = {
    "a word that is no state": (S.QUEUED, "state = 'waiting'", "jobs_state"),
    "the state in other letters": (S.QUEUED, "state = 'Queued'", "jobs_state"),
    "encoded without embeddings": (S.ENCODED, "embeddings_key = NULL", "jobs_embeddings"),
    "denoising without embeddings": (S.DENOISING, "embeddings_key = NULL", "jobs_embeddings"),
    "denoised without latents": (S.DENOISED, "latents_key = NULL", "jobs_latents"),
    "decoding without latents": (S.DECODING, "latents_key = NULL", "jobs_latents"),
    "success without a video": (S.SUCCEEDED, "artifact_key = NULL", "jobs_artifact"),
    "failure without a cause": (S.FAILED, "failure_code = NULL", "jobs_cause"),
    "more steps done than there are": (S.DENOISING, "step = steps + 1", "jobs_step"),
    "a negative number of steps done": (S.DENOISING, "step = -1", "jobs_step"),
    "the step of no checkpoint": (S.ENCODED, "checkpoint_step = 3", "jobs_ckpt"),
    "a batch that is not there": (S.QUEUED, "batch_id = 'b0'", "jobs_batch_id_fkey"),
}

HALVES_OF_A_PAIR = {
    "an attempt ended without an outcome": ("attempts", "ended_at = now()", "attempts_outcome"),
    "an outcome of an attempt that goes on": ("attempts", "outcome = 'x'", "attempts_outcome"),
    "an attempt at a phase that is none": ("attempts", "phase = 'wake'", "attempts_phase"),
    "a segment ended at no step": ("segments", "ended_at = now()", "segments_end"),
    "a step where an open segment ended": ("segments", "to_step = 1", "segments_end"),
    "a segment that went backwards": (
        "segments",
        "from_step = 2, to_step = 1, ended_at = now()",
        "segments_steps",
    ),
    "a degree that is not the group's size": ("segments", "dop = 2", "segments_dop"),
}

SECONDS = {
    "live attempt": (
        "INSERT INTO attempts (job_id, phase, number, queue) VALUES (:job, 'dit', 2, 'dit.x')",
        "attempts_live",
    ),
    "attempt of the same number": (
        (
            "INSERT INTO attempts (job_id, phase, number, queue, ended_at, outcome) "
            "VALUES (:job, 'dit', 1, 'dit.x', now(), 'finish')"
        ),
        "attempts_pkey",
    ),
    "open segment": (
        (
            "INSERT INTO segments (job_id, attempt, plan_epoch, dop, workers, from_step, reason) "
            "VALUES (:job, 1, 1, 1, '{dit-0}', 4, 'grow')"
        ),
        "segments_open",
    ),
    "job of the same custom_id": (
        (
            "INSERT INTO jobs (id, batch_id, line, custom_id, model, priority, height, width, "
            "num_frames, steps, work, request) SELECT 'other', batch_id, 99, custom_id, model, "
            "priority, height, width, num_frames, steps, work, request FROM jobs WHERE id = :job"
        ),
        "jobs_custom_id",
    ),
    "job of the same line": (
        (
            "INSERT INTO jobs (id, batch_id, line, custom_id, model, priority, height, width, "
            "num_frames, steps, work, request) SELECT 'other', batch_id, line, 'other', model, "
            "priority, height, width, num_frames, steps, work, request FROM jobs WHERE id = :job"
        ),
        "jobs_line",
    ),
    "batch of the same content": (
        (
            "INSERT INTO batches (id, content_hash, repeat, name, total) "
            "SELECT 'other', content_hash, repeat, name, total FROM batches LIMIT 1"
        ),
        "batches_content_once",
    ),
    "live incarnation of a name": (
        (
            "INSERT INTO workers (name, phase, host, node, device, pid, models, version, state, "
            "lease_expires_at) SELECT name, phase, host, node, device, pid, models, version, "
            "'draining', lease_expires_at FROM workers LIMIT 1"
        ),
        "workers_live_name",
    ),
    "leader": (
        "INSERT INTO leadership (id, term, holder) VALUES (2, 1, 'other')",
        "leadership_one_row",
    ),
}


@pytest.fixture(scope="module")
def jobs(shared_engine: Engine) -> dict[JobState, JobId]:
    """A job in every state."""
    return {state: rows.job_in(shared_engine, state) for state in JobState}


@pytest.fixture(scope="module")
def worker(shared_engine: Engine) -> Incarnation:
    """A live worker."""
    return rows.registered(shared_engine)


def broken_by(engine: Engine, statement: str, **parameters: object) -> str:
    """The constraint that refuses *statement*."""
    with engine.connect() as connection, pytest.raises(IntegrityError) as caught:
        assert connection.execute(text(statement), parameters).rowcount
    return caught.value.orig.diag.constraint_name


@pytest.mark.parametrize(
    ("state", "change", "constraint"), BREACHES_OF_A_JOB.values(), ids=list(BREACHES_OF_A_JOB)
)
def test_job_cannot_be(
    shared_engine: Engine,
    jobs: dict[JobState, JobId],
    state: JobState,
    change: str,
    constraint: str,
) -> None:
    """What the lifecycle means is refused otherwise, whoever writes."""
    statement = f"UPDATE jobs SET {change} WHERE id = :job"

    assert broken_by(shared_engine, statement, job=jobs[state]) == constraint


@pytest.mark.parametrize("state", sorted(HELD_STATES))
def test_job_that_is_worked_on_has_a_holder_and_a_dispatch(
    shared_engine: Engine, jobs: dict[JobState, JobId], state: JobState
) -> None:
    """Somebody can be asked for it, and it came by a message."""
    without_holder = "UPDATE jobs SET holder = NULL WHERE id = :job"
    without_dispatch = "UPDATE jobs SET dispatched_at = NULL WHERE id = :job"

    assert broken_by(shared_engine, without_holder, job=jobs[state]) == "jobs_held_while_worked_on"
    assert broken_by(shared_engine, without_dispatch, job=jobs[state]) == "jobs_held_dispatched"


@pytest.mark.parametrize("state", sorted(set(JobState) - HELD_STATES))
def test_job_that_is_not_worked_on_has_no_holder(
    shared_engine: Engine, jobs: dict[JobState, JobId], worker: Incarnation, state: JobState
) -> None:
    """Nobody holds what waits or is over."""
    statement = "UPDATE jobs SET holder = :worker WHERE id = :job"

    broken = broken_by(shared_engine, statement, job=jobs[state], worker=worker)

    assert broken == "jobs_held_while_worked_on"


def test_holder_is_a_worker_that_registered(
    shared_engine: Engine, jobs: dict[JobState, JobId]
) -> None:
    """An incarnation comes from Postgres or not at all."""
    statement = "UPDATE jobs SET holder = 1000000 WHERE id = :job"

    assert broken_by(shared_engine, statement, job=jobs[S.DENOISING]) == "jobs_holder_fkey"


@pytest.mark.parametrize(
    ("table", "change", "constraint"), HALVES_OF_A_PAIR.values(), ids=list(HALVES_OF_A_PAIR)
)
def test_history_cannot_hold(
    shared_engine: Engine,
    jobs: dict[JobState, JobId],
    table: str,
    change: str,
    constraint: str,
) -> None:
    """An end has all that belongs to an end."""
    statement = f"UPDATE {table} SET {change} WHERE job_id = :job AND ended_at IS NULL"

    assert broken_by(shared_engine, statement, job=jobs[S.DENOISING]) == constraint


@pytest.mark.parametrize(("statement", "constraint"), SECONDS.values(), ids=list(SECONDS))
def test_there_is_no_second(
    shared_engine: Engine, jobs: dict[JobState, JobId], statement: str, constraint: str
) -> None:
    """Of some things there is one at a time, or one at all."""
    parameters = {"job": jobs[S.DENOISING]} if ":job" in statement else {}

    assert broken_by(shared_engine, statement, **parameters) == constraint


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("phase = 'all'", "workers_phase"),
        ("state = 'asleep', ended_at = now()", "workers_state"),
        ("state = 'lost'", "workers_end"),
        ("ended_at = now()", "workers_end"),
    ],
)
def test_worker_is_live_exactly_until_it_has_ended(
    shared_engine: Engine, worker: Incarnation, change: str, constraint: str
) -> None:
    """A worker's state and its end say the same."""
    statement = f"UPDATE workers SET {change} WHERE incarnation = :worker"

    assert broken_by(shared_engine, statement, worker=worker) == constraint


def test_name_of_an_ended_incarnation_is_free(engine: Engine) -> None:
    """Only live incarnations exclude each other."""
    first = rows.registered(engine, Phase.VAE, name="vae-0@host")
    rows.lost(engine, first)

    assert rows.registered(engine, Phase.VAE, name="vae-0@host") > first


def test_every_state_that_waits_or_is_held_was_tried() -> None:
    """The breaches above name each state that has an input of its own."""
    tried = {state for state, _, _ in BREACHES_OF_A_JOB.values()}

    assert {*WAITING_STATE.values(), S.DENOISING, S.DECODING, S.SUCCEEDED, S.FAILED} <= tried

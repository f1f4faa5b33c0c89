from __future__ import annotations

import itertools

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db import status
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.history import phase_spans, segment_spans
from ddit_batch.job import HELD_STATES, BatchId, JobId, JobState, Phase


def eventful_life(engine: Engine) -> JobId:
    """A job that met with everything but success at the first try, and succeeded."""
    claims, (job,) = ClaimStore(engine), rows.submitted(engine)
    encode = rows.claimed(engine, job)
    claims.fail(encode, code="oops", message="x", retryable=True, max_failures=9)
    rows.finished(engine, rows.claimed(engine, job))

    first = rows.claimed(engine, job, by=rows.registered(engine, name="dit-1@host"))
    claims.give_back(first, reason="released", checkpoint=("checkpoint-3", 3))
    second = rows.claimed(engine, job, by=rows.registered(engine, name="dit-2@host"))
    claims.save_checkpoint(second, key="checkpoint-6", step=6)
    rows.lost(engine, second.incarnation)
    rows.leading(engine).rescue(rows.view(engine, job))
    rows.withdrawn(engine, job)
    rows.finished(engine, rows.claimed(engine, job, by=rows.registered(engine, name="dit-3@host")))

    rows.withdrawn(engine, job)
    rows.finished(engine, rows.claimed(engine, job))
    return job


def test_events_are_a_gapless_walk_from_the_first_state_to_the_last(engine: Engine) -> None:
    """Each begins where the one before ended, and the row is where the last one ended."""
    job = eventful_life(engine)

    moves = rows.history(engine, job)
    states = [JobState.QUEUED, *(to for _, _, to in moves)]
    assert [of for _, of, _ in moves] == states[:-1]
    assert rows.row(engine, job)["state"] == states[-1] == JobState.SUCCEEDED
    assert [trigger for trigger, _, _ in moves] == [
        *("claim", "attempt_failed", "claim", "finish"),
        *("claim", "give_back", "claim", "worker_lost", "claim", "finish"),
        *("claim", "finish"),
    ]


def test_attempts_are_numbered_without_gaps_and_all_ended(engine: Engine) -> None:
    """Every message that was sent is accounted for, claimed or not."""
    attempts = rows.attempts(engine, eventful_life(engine))

    assert attempts == [
        ("encode", 1, "attempt_failed"),
        ("encode", 2, "finish"),
        ("dit", 1, "give_back"),
        ("dit", 2, "worker_lost"),
        ("dit", 3, "superseded"),
        ("dit", 4, "finish"),
        ("vae", 1, "superseded"),
        ("vae", 2, "finish"),
    ]


def test_segments_cover_every_step_and_each_begins_at_a_checkpoint(engine: Engine) -> None:
    """No step is missing; those that were done twice can be counted."""
    segments = rows.segments(engine, eventful_life(engine))

    assert segments == [(0, 3, "start"), (3, 3, "resume"), (6, 8, "resume")]


def test_every_event_names_the_incarnation_that_held_the_job(engine: Engine) -> None:
    """Also the rescue: who was lost is known."""
    job = eventful_life(engine)
    query = text(
        "SELECT w.name FROM job_events e JOIN workers w ON w.incarnation = e.incarnation "
        "WHERE e.job_id = :job AND 'denoising' IN (e.from_state, e.to_state) ORDER BY e.id"
    )

    with engine.connect() as connection:
        names = list(connection.scalars(query, {"job": job}))
    assert names == [f"dit-{n}@host" for n in (1, 1, 2, 2, 3, 3)]


def test_manifest_names_the_claimed_attempts_and_their_workers(engine: Engine) -> None:
    """Oldest first, with their time and outcome; messages that nobody claimed are left out."""
    spans = phase_spans(engine, eventful_life(engine))

    assert [(span.phase, span.attempt, span.outcome) for span in spans] == [
        ("encode", 1, "attempt_failed"),
        ("encode", 2, "finish"),
        ("dit", 1, "give_back"),
        ("dit", 2, "worker_lost"),
        ("dit", 4, "finish"),
        ("vae", 2, "finish"),
    ]
    assert [span.worker for span in spans if span.phase is Phase.DIT] == [
        "dit-1@host",
        "dit-2@host",
        "dit-3@host",
    ]
    assert all(0 <= span.seconds < 60 for span in spans)


def test_attempt_that_runs_counts_until_now(engine: Engine) -> None:
    """A manifest is written before its own attempt has ended."""
    claim = rows.holding(engine, Phase.VAE)

    *_, running = phase_spans(engine, claim.job_id)

    assert (running.phase, running.outcome) == (Phase.VAE, "running")
    assert running.seconds >= 0


def test_manifest_names_the_segments_and_their_groups(engine: Engine) -> None:
    """Who did which steps."""
    spans = segment_spans(engine, eventful_life(engine))

    assert [(span.workers, span.dop, span.from_step, span.to_step) for span in spans] == [
        (("dit-1@host",), 1, 0, 3),
        (("dit-2@host",), 1, 3, 3),
        (("dit-3@host",), 1, 6, 8),
    ]
    assert [span.reason for span in spans] == ["start", "resume", "resume"]


@pytest.fixture(scope="module")
def batches(shared_engine: Engine) -> dict[JobState, BatchId]:
    """A batch with one job in each state."""
    jobs = {state: rows.job_in(shared_engine, state) for state in JobState}
    return {state: BatchId(job.partition("-")[0]) for state, job in jobs.items()}


@pytest.mark.parametrize("state", list(JobState))
def test_batch_counts_its_jobs_by_state(
    shared_engine: Engine, batches: dict[JobState, BatchId], state: JobState
) -> None:
    """A batch is done when nothing will happen to it without a user."""
    (summary,) = status.batches(shared_engine, batches[state])

    assert summary.jobs == {state: 1}
    assert summary.is_done == (state in {"succeeded", "failed", "cancelled"})


def test_batches_are_listed_newest_first(
    shared_engine: Engine, batches: dict[JobState, BatchId]
) -> None:
    """The last submission is what one looks for."""
    listed = status.batches(shared_engine)

    assert {summary.batch_id for summary in listed} == set(batches.values())
    ages = [summary.created_at for summary in listed]
    assert all(newer >= older for newer, older in itertools.pairwise(ages))


@pytest.mark.parametrize("state", list(JobState))
def test_running_and_finished_jobs_are_listed_where_they_belong(
    shared_engine: Engine, batches: dict[JobState, BatchId], state: JobState
) -> None:
    """A job is held, or over, or waits and is in neither list."""
    running = status.running_jobs(shared_engine, batches[state])
    finished = status.finished_jobs(shared_engine, batches[state])

    assert [job.state for job in running] == ([state] if state in HELD_STATES else [])
    assert [job.state for job in finished] == (
        [state] if state in {"succeeded", "failed", "cancelled"} else []
    )

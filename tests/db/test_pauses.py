"""A batch is paused and goes on again, as the database and the next snapshot show it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.backlog import read_left
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.wishes import cancel, pause, resume, retry
from ddit_batch.errors import NotFound, StateConflict
from ddit_batch.job import HELD_STATES, WAITING_STATE, JobId, JobState, Phase


def batch_of(job: JobId) -> str:
    return job.partition("-")[0]


def shown(engine: Engine) -> set[JobId]:
    """The jobs of a snapshot that has a worker of each phase."""
    for phase in Phase:
        rows.registered(engine, phase)
    return {job.job_id for job in rows.seen(engine).jobs}


@pytest.mark.parametrize("phase", list(Phase))
def test_waiting_jobs_of_a_paused_batch_are_not_shown(engine: Engine, phase: Phase) -> None:
    """Wherever they wait; those of other batches are, and all are once it goes on."""
    mine, other = rows.waiting_for(engine, phase), rows.waiting_for(engine, phase)
    for job in (mine, other):
        rows.withdrawn(engine, job)

    assert pause(engine, [batch_of(mine)]) == 1

    assert shown(engine) == {other}
    assert {kind.batch_id for kind in read_left(engine).kinds} == {batch_of(other)}
    assert rows.seen(engine).waiting_to_decode == (1 if phase is Phase.VAE else 0)

    assert resume(engine, [batch_of(mine)]) == 1

    assert shown(engine) == {mine, other}
    assert rows.seen(engine).waiting_to_decode == (2 if phase is Phase.VAE else 0)


@pytest.mark.parametrize("phase", list(Phase))
def test_message_that_was_out_when_its_batch_was_paused_is_not_claimed(
    engine: Engine, phase: Phase
) -> None:
    """The scheduler makes it void; a worker may be faster. Nothing has changed by its trying."""
    job = rows.waiting_for(engine, phase)
    attempt, worker = rows.row(engine, job)["attempt"], rows.registered(engine, phase)
    pause(engine, [batch_of(job)])

    with rows.unchanged(engine), pytest.raises(StateConflict):
        ClaimStore(engine).claim(job, phase, attempt, worker)

    assert rows.view(engine, job).paused
    resume(engine, [batch_of(job)])
    assert ClaimStore(engine).claim(job, phase, attempt, worker).attempt == attempt


@pytest.mark.parametrize("state", sorted(HELD_STATES))
def test_held_job_is_marked_and_can_come_back(engine: Engine, state: JobState) -> None:
    """Its worker finds out at its next boundary, or finishes: both are allowed."""
    phases = {JobState.ENCODING: Phase.ENCODE, JobState.DENOISING: Phase.DIT}
    claim = rows.holding(engine, phases.get(state, Phase.VAE))

    assert pause(engine, [batch_of(claim.job_id)]) == 1

    assert rows.view(engine, claim.job_id).paused
    ClaimStore(engine).give_back(claim, reason="test")
    assert claim.job_id not in shown(engine)


@pytest.mark.parametrize("wish", [pause, resume])
def test_wish_said_twice_is_said_once(engine: Engine, wish: object) -> None:
    """The second finds nothing to do, and the first pause keeps its time."""
    jobs = rows.submitted(engine, 3)
    batch = batch_of(jobs[0])
    pause(engine, [batch])
    if wish is resume:
        resume(engine, [batch])

    with rows.unchanged(engine):
        assert wish(engine, [batch, batch]) == 0


@pytest.mark.parametrize("wish", [pause, resume])
def test_only_whole_batches_are_paused(engine: Engine, wish: object) -> None:
    """A job's id, or a mistyped one, is refused, and so are those beside it."""
    (job,) = rows.submitted(engine)

    for id_ in (job, "b0-typo"):
        with rows.unchanged(engine), pytest.raises(NotFound, match="no batch has the id"):
            wish(engine, [batch_of(job), id_])


@pytest.mark.parametrize("phase", list(Phase))
def test_paused_batch_is_cancelled_at_once(engine: Engine, phase: Phase) -> None:
    """Nobody has to resume it first."""
    job = rows.waiting_for(engine, phase)
    rows.withdrawn(engine, job)
    pause(engine, [batch_of(job)])

    assert cancel(engine, [batch_of(job)]) == 1

    assert rows.row(engine, job)["state"] == JobState.CANCELLED


def test_retry_does_not_end_the_pause(engine: Engine) -> None:
    """A job that failed before or during the pause waits with the others."""
    job = rows.job_in(engine, JobState.FAILED)
    pause(engine, [batch_of(job)])

    assert retry(engine, [job]) == 1

    assert rows.row(engine, job)["state"] == WAITING_STATE[Phase.VAE]
    assert job not in shown(engine)
    resume(engine, [batch_of(job)])
    assert job in shown(engine)


def test_pauses_and_resumes_at_once_leave_batch_and_jobs_of_one_mind(engine: Engine) -> None:
    """However they fall among each other and a cancel of some: no deadlock, no job left behind."""
    jobs = rows.submitted(engine, 200)
    batch = batch_of(jobs[0])
    with ThreadPoolExecutor(4) as pool:
        wishes = [pool.submit(wish, engine, [batch]) for _ in range(10) for wish in (pause, resume)]
        wishes.append(pool.submit(cancel, engine, jobs[:50]))
        for wished in wishes:
            wished.result()

    query = text(
        "SELECT DISTINCT paused = (paused_at IS NOT NULL) FROM jobs "
        "JOIN batches ON batches.id = batch_id"
    )
    with engine.connect() as connection:
        assert connection.scalars(query).all() == [True]

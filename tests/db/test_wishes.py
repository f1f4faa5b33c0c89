from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.moves import move_all
from ddit_batch.db.wishes import cancel, retry
from ddit_batch.errors import IllegalTransition, NotFound, StateConflict
from ddit_batch.job import FINAL_STATES, HELD_STATES, WAITING_STATE, JobId, JobState, Phase
from ddit_batch.lifecycle import Trigger


def batch_of(job: JobId) -> str:
    return job.partition("-")[0]


def states(engine: Engine) -> dict[str, int]:
    """How many jobs are in each state."""
    query = text("SELECT state, count(*) FROM jobs GROUP BY state")
    with engine.connect() as connection:
        return dict(connection.execute(query).all())


def failed(engine: Engine, phase: Phase) -> JobId:
    """A job that failed for good in *phase*, after one failure that did not count for good."""
    claims, job = ClaimStore(engine), rows.waiting_for(engine, phase)
    for retryable in (True, False):
        claim = rows.claimed(engine, job)
        claims.fail(claim, code="oops", message="x", retryable=retryable, max_failures=9)
    return job


@pytest.mark.parametrize("phase", list(Phase))
def test_job_that_waits_is_cancelled_at_once(engine: Engine, phase: Phase) -> None:
    """No scheduler and no worker is needed for that."""
    job = rows.waiting_for(engine, phase)
    rows.withdrawn(engine, job)

    assert cancel(engine, [job]) == 1

    row = rows.row(engine, job)
    assert row["state"] == JobState.CANCELLED
    assert row["finished_at"] is not None
    assert rows.history(engine, job)[-1] == ("cancel", WAITING_STATE[phase], JobState.CANCELLED)


@pytest.mark.parametrize("state", sorted(set(JobState) - FINAL_STATES))
def test_job_that_is_sent_or_held_is_marked(engine: Engine, state: JobState) -> None:
    """The scheduler withdraws its message, or its worker confirms that it stopped."""
    job = rows.job_in(engine, state)
    history = rows.history(engine, job)

    assert cancel(engine, [job]) == 1

    assert rows.row(engine, job)["state"] == state
    assert rows.view(engine, job).cancel_requested
    assert rows.history(engine, job) == history


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_job_that_is_over_stays_as_it_is(engine: Engine, state: JobState) -> None:
    """A wish that comes too late concerns nobody."""
    job = rows.job_in(engine, state)

    with rows.unchanged(engine):
        assert cancel(engine, [job]) == 0


def test_batch_is_cancelled_with_all_of_its_jobs_and_no_others(engine: Engine) -> None:
    """Those that were done are kept, and neighbours do not notice."""
    mine, others = rows.submitted(engine, 4), rows.submitted(engine, 2)
    for _ in Phase:
        rows.finished(engine, rows.claimed(engine, mine[0]))
    rows.claimed(engine, mine[1])

    assert cancel(engine, [batch_of(mine[0])]) == 3

    found = [str(rows.row(engine, job)["state"]) for job in (*mine, *others)]
    assert found == ["succeeded", "encoding", "cancelled", "cancelled", "queued", "queued"]


def test_second_wish_concerns_nobody(engine: Engine) -> None:
    """Cancelling twice is cancelling once."""
    jobs = rows.submitted(engine, 2)
    rows.claimed(engine, jobs[0])
    cancel(engine, [batch_of(jobs[0])])

    with rows.unchanged(engine):
        assert cancel(engine, [batch_of(jobs[0])]) == 0
        assert cancel(engine, jobs) == 0


@pytest.mark.parametrize("wish", [cancel, retry])
def test_unknown_id_is_refused_and_nothing_has_changed(engine: Engine, wish: object) -> None:
    """Not even for those that are known."""
    (job,) = rows.submitted(engine)
    rows.job_in(engine, JobState.FAILED)

    with rows.unchanged(engine), pytest.raises(NotFound, match="no batch and no job has the id"):
        wish(engine, [job, "b0-typo"])


def test_cancel_and_claims_at_once_leave_no_job_between(engine: Engine) -> None:
    """Each is cancelled, or held and marked; none is lost and none escapes."""
    jobs = rows.submitted(engine, 24)
    for job in jobs:
        rows.sent(engine, job)
    workers, claims = [rows.registered(engine, Phase.ENCODE) for _ in range(4)], ClaimStore(engine)

    def claim(numbered: tuple[int, JobId]) -> Claim | None:
        number, job = numbered
        try:
            return claims.claim(job, Phase.ENCODE, 1, workers[number % 4])
        except StateConflict:
            return None

    with ThreadPoolExecutor(5) as pool:
        cancelling = pool.submit(cancel, engine, [batch_of(jobs[0])])
        held = [found for found in pool.map(claim, enumerate(jobs)) if found]
        assert cancelling.result() == 24

    views = {job.job_id: job for job in rows.seen(engine).jobs}
    assert all(views[found.job_id].cancel_requested for found in held)
    assert states(engine).get(JobState.ENCODING, 0) == len(held)


def stopping(engine: Engine, job: JobId) -> tuple[float, float]:
    """How long the job took to stop, by its last event and by the view."""
    query = text(
        "SELECT (detail ->> 'stopping_s')::float8, stopped_after_s FROM job_events "
        "JOIN job_status USING (job_id) WHERE job_id = :id ORDER BY id DESC LIMIT 1"
    )
    with engine.connect() as connection:
        by_event, by_view = connection.execute(query, {"id": job}).one()
    return by_event, by_view


@pytest.mark.parametrize("by_batch", [False, True])
@pytest.mark.parametrize("phase", list(Phase))
def test_time_to_stop_of_a_held_job_is_on_record(
    engine: Engine,
    phase: Phase,
    by_batch: bool,  # noqa: FBT001
) -> None:
    """From the first time that it was asked for until its worker had stopped."""
    claim = rows.holding(engine, phase)
    asked = batch_of(claim.job_id) if by_batch else claim.job_id
    cancel(engine, [asked])
    time.sleep(0.2)
    cancel(engine, [asked])
    assert ClaimStore(engine).is_cancel_requested(claim)
    time.sleep(0.1)

    ClaimStore(engine).cancelled(claim)

    by_event, by_view = stopping(engine, claim.job_id)
    assert by_event == by_view
    assert 0.3 <= by_event < 2.0
    assert rows.row(engine, claim.job_id)["finished_at"] is not None


@pytest.mark.parametrize("phase", list(Phase))
def test_time_to_stop_of_a_waiting_job_is_on_record(engine: Engine, phase: Phase) -> None:
    """None worth mentioning, if its message is not out; else until the scheduler has ended it."""
    free, sent = rows.waiting_for(engine, phase), rows.waiting_for(engine, phase)
    rows.withdrawn(engine, free)
    cancel(engine, [free, sent])
    time.sleep(0.2)
    rows.leading(engine).cancel(rows.view(engine, sent))

    assert 0 <= stopping(engine, free)[0] == stopping(engine, free)[1] < 0.2
    assert 0.2 <= stopping(engine, sent)[0] == stopping(engine, sent)[1] < 2.0


def test_claim_that_is_lost_is_not_asked_to_stop(engine: Engine) -> None:
    """Whoever has the job now is."""
    claim = rows.holding(engine, Phase.VAE)
    assert not ClaimStore(engine).is_cancel_requested(claim)
    cancel(engine, [claim.job_id])
    ClaimStore(engine).give_back(claim, reason="test")

    assert not ClaimStore(engine).is_cancel_requested(claim)


def test_cancels_and_ends_at_once_leave_each_job_with_one_end(engine: Engine) -> None:
    """Whoever is first: the job succeeded, or it was cancelled; never both, never neither."""
    claims = [rows.holding(engine, Phase.VAE) for _ in range(12)]
    store = ClaimStore(engine)

    def end(claim: Claim) -> None:
        if store.is_cancel_requested(claim):
            store.cancelled(claim)
        else:
            rows.finished(engine, claim)

    with ThreadPoolExecutor(4) as pool:
        cancelling = [pool.submit(cancel, engine, [claim.job_id]) for claim in claims]
        ended = [pool.submit(end, claim) for claim in claims]
        for done in (*cancelling, *ended):
            done.result()

    for claim in claims:
        finals = [move for move in rows.history(engine, claim.job_id) if move[2] in FINAL_STATES]
        assert len(finals) == 1
        assert rows.row(engine, claim.job_id)["state"] == finals[0][2]
    assert sum(states(engine).values()) == 12


def test_ten_thousand_jobs_are_cancelled_in_seconds(shared_engine: Engine) -> None:
    """Also in a session whose plans were made when there were few jobs."""
    for _ in range(2):
        with shared_engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(text("VACUUM ANALYZE jobs"))
        for _ in range(20):
            cancel(shared_engine, rows.submitted(shared_engine))
    jobs = rows.submitted(shared_engine, 10_000)

    begun = time.monotonic()
    assert cancel(shared_engine, [batch_of(jobs[0])]) == 10_000

    assert time.monotonic() - begun < 10
    assert states(shared_engine) == {JobState.CANCELLED: 10_040}


@pytest.mark.parametrize("phase", list(Phase))
def test_failed_job_goes_back_to_the_last_phase_whose_input_exists(
    engine: Engine, phase: Phase
) -> None:
    """With all of its tries, and as if nothing had been wrong; then it can succeed."""
    job = failed(engine, phase)

    assert retry(engine, [job]) == 1

    row = rows.row(engine, job)
    assert row["state"] == WAITING_STATE[phase]
    assert (row["failures"], row["worker_losses"], row["finished_at"]) == (0, 0, None)
    assert (row["failure_code"], row["failure_message"]) == (None, None)
    assert rows.history(engine, job)[-1] == (f"retry_{phase}", "failed", WAITING_STATE[phase])
    while rows.row(engine, job)["state"] != JobState.SUCCEEDED:
        rows.finished(engine, rows.claimed(engine, job))
    assert len([n for of, n, _ in rows.attempts(engine, job) if of == phase]) == 3


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.FAILED}))
def test_only_failed_jobs_are_tried_again(engine: Engine, state: JobState) -> None:
    """What goes on goes on, what is done is done, and what was cancelled was not wanted."""
    job = rows.job_in(engine, state)

    with rows.unchanged(engine):
        assert retry(engine, [job, batch_of(job)]) == 0


def test_failed_jobs_of_a_batch_are_tried_again_wherever_they_failed(engine: Engine) -> None:
    """By the batch's id; each from where it can go on."""
    jobs = [failed(engine, phase) for phase in Phase]

    assert retry(engine, [batch_of(job) for job in jobs]) == 3

    assert states(engine) == dict.fromkeys(WAITING_STATE.values(), 1)


def test_job_that_is_wanted_again_is_not_ended_by_an_old_cancel(engine: Engine) -> None:
    """Its batch was cancelled, and it failed before it could stop."""
    claim = rows.holding(engine, Phase.DIT)
    cancel(engine, [batch_of(claim.job_id)])
    ClaimStore(engine).fail(claim, code="x", message="y", retryable=False, max_failures=1)

    assert retry(engine, [claim.job_id]) == 1

    assert not rows.view(engine, claim.job_id).cancel_requested


def test_moving_many_is_as_lawful_as_moving_one(engine: Engine) -> None:
    """No illegal move, and no claim without a worker."""
    with rows.unchanged(engine), engine.begin() as connection:
        with pytest.raises(IllegalTransition):
            move_all(connection, JobState.QUEUED, Trigger.FINISH, where=[])
        with pytest.raises(AssertionError):
            move_all(connection, JobState.QUEUED, Trigger.CLAIM, where=[])


def test_moving_many_leaves_those_alone_that_have_a_live_attempt(engine: Engine) -> None:
    """Their message is out: they are moved one by one."""
    for state in HELD_STATES:
        rows.job_in(engine, state)
    for phase in Phase:
        rows.waiting_for(engine, phase)

    with rows.unchanged(engine), engine.begin() as connection:
        for state in set(JobState) - FINAL_STATES:
            assert move_all(connection, state, Trigger.CANCEL, where=[]) == 0

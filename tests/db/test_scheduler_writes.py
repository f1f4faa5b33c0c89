from __future__ import annotations

from dataclasses import replace

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.leases import LeaseStore
from ddit_batch.db.scheduler_store import SchedulerStore
from ddit_batch.errors import StateConflict
from ddit_batch.job import HELD_STATES, PHASE_OF, JobId, JobState, Phase, queue_of
from ddit_batch.snapshot import Progress


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """Every test has jobs of its own."""
    return shared_engine


@pytest.fixture
def claims(engine: Engine) -> ClaimStore:
    """Jobs as their holders see them."""
    return ClaimStore(engine)


def unsent(engine: Engine, phase: Phase) -> JobId:
    """A job that waits for *phase* with no message out."""
    job = rows.waiting_for(engine, phase)
    rows.withdrawn(engine, job)
    return job


def progress(step: int, attempt: int = 1) -> Progress:
    return Progress(attempt=attempt, step=step, step_s=0.5)


@pytest.mark.parametrize("phase", list(Phase))
def test_attempts_at_a_phase_are_numbered_from_one(engine: Engine, phase: Phase) -> None:
    """The number is in the row before its message is sent."""
    job = unsent(engine, phase)
    view, store = rows.view(engine, job), rows.leading(engine)

    sending = store.open_attempt(view, queue_of(phase, rows.LEADER))

    assert sending.attempt == 2
    assert sending.vae_attempt == (3 if phase is Phase.VAE else 1)
    row = rows.row(engine, job)
    assert (row["attempt"], row["queue"]) == (2, queue_of(phase, rows.LEADER))
    assert row["dispatched_at"] is not None
    assert rows.attempts(engine, job)[-2:] == [(phase, 1, "superseded"), (phase, 2, None)]


def test_job_whose_message_is_out_gets_no_second_attempt(engine: Engine) -> None:
    """A decision that was made twice acts once."""
    job = unsent(engine, Phase.ENCODE)
    view, store = rows.view(engine, job), rows.leading(engine)
    store.open_attempt(view, "encode")

    for stale in (view, rows.view(engine, job)):
        with rows.unchanged(engine), pytest.raises(StateConflict):
            store.open_attempt(stale, "encode")


@pytest.mark.parametrize("phase", list(Phase))
def test_job_that_is_held_after_all_gets_no_attempt(engine: Engine, phase: Phase) -> None:
    """The core took its holder for gone, and sends it anew; the refusal is no broken constraint."""
    claim = rows.holding(engine, phase)
    waiting = rows.view(engine, rows.waiting_for(engine, phase))
    believed = replace(waiting, job_id=claim.job_id)
    store = rows.leading(engine)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        store.open_attempt(believed, "anywhere")


def test_job_whose_dit_is_done_after_all_gets_no_attempt_at_dit(engine: Engine) -> None:
    """It has a live attempt at VAE, which stays the only one."""
    claim = rows.holding(engine, Phase.DIT)
    waiting = rows.view(engine, rows.waiting_for(engine, Phase.DIT))
    believed = replace(waiting, job_id=claim.job_id)
    rows.finished(engine, claim)
    store = rows.leading(engine)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        store.open_attempt(believed, "anywhere")


def test_message_sent_again_is_the_same_attempt(engine: Engine) -> None:
    """Whichever of the two arrives, the other is refused."""
    job = rows.waiting_for(engine, Phase.DIT)
    before = rows.row(engine, job)

    sending = rows.leading(engine).resent(rows.view(engine, job))

    after = rows.row(engine, job)
    assert (sending.attempt, sending.vae_attempt) == (1, 1)
    assert after["dispatched_at"] > before["dispatched_at"]
    assert {**after, "dispatched_at": None} == {**before, "dispatched_at": None}
    assert rows.attempts(engine, job)[-1] == ("dit", 1, None)


@pytest.mark.parametrize("write", [SchedulerStore.resent, SchedulerStore.withdraw])
@pytest.mark.parametrize("phase", list(Phase))
def test_message_that_was_claimed_is_neither_sent_again_nor_withdrawn(
    engine: Engine, claims: ClaimStore, phase: Phase, write: object
) -> None:
    """Nor when its worker has given the job back already, with nothing out for it any more."""
    job = rows.waiting_for(engine, phase)
    view, store = rows.view(engine, job), rows.leading(engine)
    claim = rows.claimed(engine, job)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        write(store, view)

    claims.give_back(claim, reason="drain")
    with rows.unchanged(engine), pytest.raises(StateConflict):
        write(store, view)


@pytest.mark.parametrize("phase", list(Phase))
def test_withdrawn_job_waits_as_if_it_had_not_been_sent(engine: Engine, phase: Phase) -> None:
    """Its state stays, and no event tells of it: nothing was done."""
    job = rows.waiting_for(engine, phase)
    state, history = rows.row(engine, job)["state"], rows.history(engine, job)

    rows.withdrawn(engine, job)

    row = rows.row(engine, job)
    assert (row["state"], row["attempt"]) == (state, 1)
    assert (row["queue"], row["dispatched_at"]) == (None, None)
    assert rows.history(engine, job) == history
    assert rows.attempts(engine, job)[-1] == (phase, 1, "superseded")


@pytest.mark.parametrize("phase", list(Phase))
def test_waiting_job_is_cancelled_with_its_message(engine: Engine, phase: Phase) -> None:
    """A late claim finds it over."""
    job = rows.waiting_for(engine, phase)

    rows.leading(engine).cancel(rows.view(engine, job))

    assert rows.row(engine, job)["state"] == JobState.CANCELLED
    assert rows.attempts(engine, job)[-1] == (phase, 1, "cancel")


def test_job_that_was_claimed_meanwhile_is_not_cancelled_by_the_scheduler(engine: Engine) -> None:
    """Its worker will be told, and confirm."""
    job = rows.waiting_for(engine, Phase.DIT)
    view, store = rows.view(engine, job), rows.leading(engine)
    rows.claimed(engine, job)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        store.cancel(view)


@pytest.mark.parametrize("write", [SchedulerStore.rescue, SchedulerStore.give_up])
@pytest.mark.parametrize("state", sorted(HELD_STATES))
def test_job_whose_holder_is_live_is_not_taken_away(
    engine: Engine, state: JobState, write: object
) -> None:
    """Not even if the snapshot had not seen the holder; draining is live too."""
    worker = rows.registered(engine, PHASE_OF[state], lease_s=-1)
    claim = rows.holding(engine, PHASE_OF[state], by=worker)
    view, store = rows.view(engine, claim.job_id), rows.leading(engine)

    with rows.unchanged(engine), pytest.raises(StateConflict, match="stays with it"):
        write(store, view)

    LeaseStore(engine, lease_s=1).drain(worker)
    with rows.unchanged(engine), pytest.raises(StateConflict, match="stays with it"):
        write(store, view)


@pytest.mark.parametrize("state", sorted(HELD_STATES))
def test_job_that_kills_its_workers_fails_with_that_cause(engine: Engine, state: JobState) -> None:
    """The message says how many died, where, and what to try."""
    claim = rows.holding(engine, PHASE_OF[state])
    rows.lost(engine, claim.incarnation)

    rows.leading(engine).give_up(replace(rows.view(engine, claim.job_id), worker_losses=4))

    row = rows.row(engine, claim.job_id)
    assert (row["state"], row["failure_code"]) == (JobState.FAILED, "worker_lost")
    assert (row["worker_losses"], row["failures"], row["dop"]) == (5, 0, 0)
    assert row["failure_message"].startswith("5 workers died while they worked on this job")
    assert f"the last in {state}" in row["failure_message"]


def test_progress_of_the_live_attempt_is_stored(engine: Engine) -> None:
    """Steps and their pace, for many jobs in one statement."""
    first, second = rows.holding(engine, Phase.DIT), rows.holding(engine, Phase.DIT)
    reports = {first.job_id: progress(3), second.job_id: progress(5)}

    assert rows.leading(engine).record_progress(reports) == frozenset()

    found = [rows.row(engine, claim.job_id) for claim in (first, second)]
    assert [(row["step"], row["step_s"]) for row in found] == [(3, 0.5), (5, 0.5)]


def test_progress_goes_neither_backwards_nor_beyond_the_end(engine: Engine) -> None:
    """Reports may come late, twice, or wrong."""
    claim, store = rows.holding(engine, Phase.DIT), rows.leading(engine)

    steps = []
    for step in (4, 2, 4, 99):
        store.record_progress({claim.job_id: progress(step)})
        steps.append(rows.row(engine, claim.job_id)["step"])

    assert steps == [4, 4, 4, 8]


def test_progress_of_others_is_not_stored_and_they_are_named(
    engine: Engine, claims: ClaimStore
) -> None:
    """Older and newer attempts, jobs in another state, jobs that never were: to be forgotten."""
    claims.give_back(given_back := rows.holding(engine, Phase.DIT), reason="drain")
    resumed = rows.claimed(engine, given_back.job_id)
    decoding = rows.holding(engine, Phase.VAE)
    waiting = rows.waiting_for(engine, Phase.DIT)
    store = rows.leading(engine)
    reports = {
        resumed.job_id: progress(3, attempt=1),
        decoding.job_id: progress(3),
        waiting: progress(3),
        JobId("nobody-000001"): progress(3),
    }

    with rows.unchanged(engine):
        assert store.record_progress(reports) == frozenset(reports)

    newer = {resumed.job_id: progress(3, attempt=3)}
    with rows.unchanged(engine):
        assert store.record_progress(newer) == frozenset(newer)


def test_no_progress_is_no_statement(engine: Engine) -> None:
    """An idle scheduler writes nothing, so it needs no term for this."""
    assert SchedulerStore(engine, term=-1).record_progress({}) == frozenset()


def test_times_are_the_clock_of_the_database(engine: Engine) -> None:
    """No process writes its own idea of the time."""
    job = rows.waiting_for(engine, Phase.DIT)

    with engine.connect() as connection:
        query = text("SELECT clock_timestamp() - dispatched_at FROM jobs WHERE id = :id")
        age = connection.execute(query, {"id": job}).scalar_one()
    assert 0 <= age.total_seconds() < 60

from __future__ import annotations

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.job import WAITING_STATE, JobState, Phase, queue_of


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """Every test has jobs of its own."""
    return shared_engine


@pytest.fixture
def claims(engine: Engine) -> ClaimStore:
    """Jobs as their holders see them."""
    return ClaimStore(engine)


def fail(claims: ClaimStore, claim: Claim, *, retryable: bool = True) -> JobState:
    return claims.fail(claim, code="oops", message="it broke", retryable=retryable, max_failures=3)


def step_is(engine: Engine, claim: Claim, step: int) -> None:
    """The leader has reported *step*, and the scheduler has stored it."""
    with engine.begin() as connection:
        values = {"step": step, "id": claim.job_id}
        connection.execute(text("UPDATE jobs SET step = :step WHERE id = :id"), values)


def test_finished_encode_waits_for_dit_with_its_embeddings(engine: Engine) -> None:
    """Nothing is out for it until the policy has placed it."""
    claim = rows.holding(engine, Phase.ENCODE)

    rows.finished(engine, claim)

    row = rows.row(engine, claim.job_id)
    assert (row["state"], row["embeddings_key"]) == (JobState.ENCODED, "embeddings-1")
    assert (row["holder"], row["dispatched_at"], row["queue"]) == (None, None, None)
    assert rows.attempts(engine, claim.job_id) == [("encode", 1, "finish")]


def test_finished_dit_opens_the_vae_attempt_that_celery_is_about_to_send(engine: Engine) -> None:
    """So that the scheduler knows of the message and can miss it."""
    claim = rows.holding(engine, Phase.DIT)

    rows.finished(engine, claim)

    row = rows.row(engine, claim.job_id)
    assert (row["state"], row["latents_key"]) == (JobState.DENOISED, "latents-1")
    assert (row["attempt"], row["queue"], row["step"], row["dop"]) == (1, "vae", 8, 0)
    assert row["dispatched_at"] is not None
    assert rows.attempts(engine, claim.job_id)[1:] == [("dit", 1, "finish"), ("vae", 1, None)]
    assert rows.segments(engine, claim.job_id) == [(0, 8, "start")]


def test_vae_attempt_behind_dit_has_the_number_that_its_chain_was_sent_with(
    engine: Engine, claims: ClaimStore
) -> None:
    """Also in the second round, after the first latents were lost."""
    claim = rows.holding(engine, Phase.VAE)
    claims.handoff_lost(claim, message="latents gone", max_failures=3)
    waiting = rows.view(engine, claim.job_id)

    sending = rows.leading(engine).open_attempt(waiting, queue_of(Phase.DIT, "x"))
    second = claims.claim(claim.job_id, Phase.DIT, sending.attempt, rows.registered(engine))
    claims.finish_dit(second, latents_key="latents-2", vae_queue="vae")

    assert (sending.attempt, sending.vae_attempt) == (2, 2)
    assert rows.row(engine, claim.job_id)["attempt"] == sending.vae_attempt


def test_finished_vae_is_success(engine: Engine) -> None:
    """The artifact that counts is the one that Postgres names."""
    claim = rows.holding(engine, Phase.VAE)

    rows.finished(engine, claim)

    row = rows.row(engine, claim.job_id)
    assert row["state"] == JobState.SUCCEEDED
    assert (row["artifact_key"], row["manifest_key"]) == ("video", "manifest")
    assert row["finished_at"] is not None
    assert [outcome for *_, outcome in rows.attempts(engine, claim.job_id)] == ["finish"] * 3


@pytest.mark.parametrize("phase", list(Phase))
def test_finish_repeated_after_a_lost_answer_changes_nothing(engine: Engine, phase: Phase) -> None:
    """The first was done: no second event, and behind DiT no second VAE attempt."""
    claim = rows.holding(engine, phase)
    rows.finished(engine, claim)

    with rows.unchanged(engine):
        rows.finished(engine, claim)


def test_finish_of_dit_repeated_when_vae_has_begun_changes_nothing(engine: Engine) -> None:
    """However late the repetition comes."""
    claim = rows.holding(engine, Phase.DIT)
    rows.finished(engine, claim)
    rows.claimed(engine, claim.job_id)

    with rows.unchanged(engine):
        rows.finished(engine, claim)


@pytest.mark.parametrize("phase", list(Phase))
def test_job_given_back_waits_for_the_same_phase(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """A worker that stops in order costs the job nothing but time."""
    claim = rows.holding(engine, phase)

    claims.give_back(claim, reason="drain")

    row = rows.row(engine, claim.job_id)
    assert row["state"] == WAITING_STATE[phase]
    assert (row["failures"], row["worker_losses"], row["holder"], row["dop"]) == (0, 0, None, 0)
    assert rows.attempts(engine, claim.job_id)[-1] == (phase, 1, "give_back")


def test_job_given_back_goes_on_from_its_checkpoint(engine: Engine, claims: ClaimStore) -> None:
    """The next segment begins where the last one ended, on whichever worker."""
    first = rows.holding(engine, Phase.DIT)

    claims.give_back(first, reason="released", checkpoint=("checkpoint-5", 5))
    second = rows.claimed(engine, first.job_id)

    assert (second.attempt, second.checkpoint_key) == (2, "checkpoint-5")
    assert rows.row(engine, first.job_id)["step"] == 5
    assert rows.segments(engine, first.job_id) == [(0, 5, "start"), (5, None, "resume")]


def test_job_given_back_without_a_new_checkpoint_keeps_its_old_one(
    engine: Engine, claims: ClaimStore
) -> None:
    """Steps after the last checkpoint are done again, and the history says so."""
    first = rows.holding(engine, Phase.DIT)
    assert claims.save_checkpoint(first, key="checkpoint-3", step=3)
    step_is(engine, first, 6)

    claims.give_back(first, reason="released")
    second = rows.claimed(engine, first.job_id)

    assert second.checkpoint_key == "checkpoint-3"
    assert rows.segments(engine, first.job_id) == [(0, 6, "start"), (3, None, "resume")]


def test_newest_checkpoint_is_the_one_that_counts(engine: Engine, claims: ClaimStore) -> None:
    """It is named in the row, and a repetition does no harm."""
    claim = rows.holding(engine, Phase.DIT)

    for step in (2, 4, 4):
        assert claims.save_checkpoint(claim, key=f"checkpoint-{step}", step=step)

    row = rows.row(engine, claim.job_id)
    assert (row["checkpoint_key"], row["checkpoint_step"]) == ("checkpoint-4", 4)


def test_unreadable_checkpoint_is_forgotten_and_the_attempt_starts_over(
    engine: Engine, claims: ClaimStore
) -> None:
    """It costs the job its steps, not its life; a repetition does no harm."""
    first = rows.holding(engine, Phase.DIT)
    claims.give_back(first, reason="released", checkpoint=("checkpoint-5", 5))
    second = rows.claimed(engine, first.job_id)

    for _ in range(2):
        assert claims.forget_checkpoint(second, key="checkpoint-5") is None

    row = rows.row(engine, first.job_id)
    assert (row["state"], row["attempt"], row["step"]) == (JobState.DENOISING, 2, 0)
    assert (row["checkpoint_key"], row["checkpoint_step"]) == (None, None)
    assert rows.segments(engine, first.job_id) == [(0, 5, "start"), (0, None, "checkpoint_lost")]


def test_unreadable_checkpoint_sends_the_attempt_back_to_the_one_before(
    engine: Engine, claims: ClaimStore
) -> None:
    """The newest two are named; a repetition does not go back twice; the history says which."""
    first = rows.holding(engine, Phase.DIT)
    for step in (2, 4, 6, 6):
        assert claims.save_checkpoint(first, key=f"checkpoint-{step}", step=step)
    claims.give_back(first, reason="released", checkpoint=("checkpoint-6", 6))
    second = rows.claimed(engine, first.job_id)
    assert (second.older_checkpoint_key, second.checkpoint_key) == ("checkpoint-4", "checkpoint-6")

    for _ in range(2):
        assert claims.forget_checkpoint(second, key="checkpoint-6") == "checkpoint-4"

    row = rows.row(engine, first.job_id)
    assert (row["step"], row["checkpoint_key"], row["checkpoint_step"]) == (4, "checkpoint-4", 4)
    assert (row["older_checkpoint_key"], row["older_checkpoint_step"]) == (None, None)
    assert rows.segments(engine, first.job_id) == [(0, 6, "start"), (4, None, "older_checkpoint")]

    assert claims.forget_checkpoint(second, key="checkpoint-4") is None
    assert rows.segments(engine, first.job_id)[-1] == (0, None, "checkpoint_lost")


@pytest.mark.parametrize("phase", list(Phase))
def test_failing_attempts_are_repeated_until_the_limit(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """The job fails with the cause of the last, and all of them can be read."""
    job = rows.waiting_for(engine, phase)

    states = [fail(claims, rows.claimed(engine, job)) for _ in range(3)]

    assert states == [WAITING_STATE[phase], WAITING_STATE[phase], JobState.FAILED]
    row = rows.row(engine, job)
    assert (row["failures"], row["failure_code"], row["failure_message"]) == (3, "oops", "it broke")
    assert row["finished_at"] is not None
    outcomes = [(n, outcome) for of, n, outcome in rows.attempts(engine, job) if of == phase]
    assert outcomes == [(1, "attempt_failed"), (2, "attempt_failed"), (3, "fail")]


def test_failures_of_all_phases_count_together(engine: Engine, claims: ClaimStore) -> None:
    """A job that fails everywhere a little does not go on for ever."""
    job = rows.waiting_for(engine, Phase.ENCODE)
    fail(claims, rows.claimed(engine, job))
    rows.finished(engine, rows.claimed(engine, job))
    fail(claims, rows.claimed(engine, job))

    assert fail(claims, rows.claimed(engine, job)) == JobState.FAILED


def test_cause_that_no_attempt_can_mend_fails_the_job_at_once(
    engine: Engine, claims: ClaimStore
) -> None:
    """Tries are for what may pass."""
    claim = rows.holding(engine, Phase.DIT)

    assert fail(claims, claim, retryable=False) == JobState.FAILED
    assert rows.row(engine, claim.job_id)["failures"] == 1


@pytest.mark.parametrize(
    ("phase", "back_to"), [(Phase.DIT, JobState.QUEUED), (Phase.VAE, JobState.ENCODED)]
)
def test_lost_handoff_sends_the_job_back_to_the_phase_that_made_it(
    engine: Engine, claims: ClaimStore, phase: Phase, back_to: JobState
) -> None:
    """That phase runs again from its beginning."""
    job = rows.waiting_for(engine, phase)
    claim = rows.claimed(engine, job)
    if phase is Phase.DIT:
        assert claims.save_checkpoint(claim, key="checkpoint-3", step=3)

    claims.handoff_lost(claim, message="gone", max_failures=3)
    again = rows.claimed(engine, job)

    assert rows.history(engine, job)[-2] == ("handoff_lost", claim.belief.state, back_to)
    assert again.attempt == 2
    assert again.checkpoint_key is None
    row = rows.row(engine, job)
    assert (row["step"], row["checkpoint_key"], row["checkpoint_step"]) == (0, None, None)
    assert (row["failures"], row["failure_code"]) == (1, "handoff_lost")


@pytest.mark.parametrize("phase", [Phase.DIT, Phase.VAE])
def test_job_whose_handoffs_are_lost_again_and_again_fails(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """A store that keeps losing what it is given ends the job with that cause."""
    job = rows.waiting_for(engine, phase)

    states = []
    for _ in range(3):
        while rows.phase_of(engine, job) is not phase:
            rows.finished(engine, rows.claimed(engine, job))
        claim = rows.claimed(engine, job)
        states.append(claims.handoff_lost(claim, message="gone", max_failures=3))

    assert states[-1] == JobState.FAILED
    assert JobState.FAILED not in states[:-1]
    assert rows.row(engine, job)["failure_code"] == "handoff_lost"


@pytest.mark.parametrize("phase", list(Phase))
def test_confirmed_cancel_ends_the_job(engine: Engine, claims: ClaimStore, phase: Phase) -> None:
    """The worker has stopped, so the job is over."""
    claim = rows.holding(engine, phase)

    claims.cancelled(claim)

    row = rows.row(engine, claim.job_id)
    assert (row["state"], row["holder"], row["dop"]) == (JobState.CANCELLED, None, 0)
    assert row["finished_at"] is not None
    assert rows.attempts(engine, claim.job_id)[-1] == (phase, 1, "cancel")

"""A store that fails: who says so, what it costs a job, and when the scheduler may try it again."""

from __future__ import annotations

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.claims import ClaimStore
from ddit_batch.job import WAITING_STATE, JobState, Phase
from ddit_batch.snapshot import StoreState


@pytest.fixture
def claims(engine: Engine) -> ClaimStore:
    """Jobs as their holders see them."""
    return ClaimStore(engine)


def state(engine: Engine) -> StoreState:
    """What the next decision is told."""
    return rows.seen(engine).store


def pause_s(engine: Engine) -> float:
    """Seconds from the last report until somebody may try."""
    with engine.connect() as connection:
        return float(
            connection.execute(
                text("SELECT extract(epoch FROM probe_after - clock_timestamp()) FROM store_health")
            ).scalar_one()
        )


def pause_is_over(engine: Engine) -> None:
    """Let the time pass until somebody may try."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE store_health SET probe_after = clock_timestamp()"))


@pytest.mark.parametrize("phase", list(Phase))
def test_attempt_that_the_store_fails_goes_back_and_nothing_new_is_sent(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """It waits for the same phase, and none of its tries is gone."""
    claim = rows.holding(engine, phase)
    assert state(engine) is StoreState.WELL

    now = claims.storage_failed(claim, message="full", max_store_failures=2)

    assert now is WAITING_STATE[phase]
    row = rows.row(engine, claim.job_id)
    assert (row["failures"], row["store_failures"]) == (0, 1)
    assert (row["failure_code"], row["failure_message"]) == ("storage_failed", "full")
    assert state(engine) is StoreState.FAILING


def test_store_that_fails_all_counts_against_no_job(engine: Engine, claims: ClaimStore) -> None:
    """However long it lasts: only the first report, when it was thought to be well, counts."""
    job = rows.waiting_for(engine, Phase.DIT)

    for _ in range(5):
        claim = rows.claimed(engine, job)
        assert claims.storage_failed(claim, message="full", max_store_failures=2) != "failed"

    assert rows.row(engine, job)["store_failures"] == 1


def test_job_that_alone_is_failed_by_the_store_fails(engine: Engine, claims: ClaimStore) -> None:
    """If others can write in between, it is the job's own fault, and so named."""
    job = rows.waiting_for(engine, Phase.DIT)
    states = []
    for _ in range(3):
        claim = rows.claimed(engine, job)
        states.append(claims.storage_failed(claim, message="too large", max_store_failures=3))
        rows.finished(engine, rows.holding(engine, Phase.DIT))

    assert states == [JobState.ENCODED, JobState.ENCODED, JobState.FAILED]
    assert rows.row(engine, job)["failure_code"] == "storage_failed"


def test_pause_before_the_next_try_doubles_up_to_a_limit(
    engine: Engine, claims: ClaimStore
) -> None:
    """From one second to half a minute."""
    job, pauses = rows.waiting_for(engine, Phase.DIT), []
    for _ in range(7):
        claim = rows.claimed(engine, job)
        claims.storage_failed(claim, message="full", max_store_failures=9)
        pauses.append(round(pause_s(engine)))

    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_after_the_pause_one_may_try(engine: Engine, claims: ClaimStore) -> None:
    """And whoever then writes has the store thought well of again."""
    claim = rows.holding(engine, Phase.DIT)
    claims.storage_failed(claim, message="full", max_store_failures=9)

    pause_is_over(engine)
    assert state(engine) is StoreState.PROBE

    rows.finished(engine, rows.claimed(engine, claim.job_id))
    assert state(engine) is StoreState.WELL


def test_failed_checkpoint_is_reported_and_the_next_one_takes_it_back(
    engine: Engine, claims: ClaimStore
) -> None:
    """The job itself goes on."""
    claim = rows.holding(engine, Phase.DIT)

    claims.checkpoint_failed(claim, message="full")
    assert state(engine) is StoreState.FAILING
    assert rows.row(engine, claim.job_id)["state"] == JobState.DENOISING

    assert claims.save_checkpoint(claim, key="checkpoint-2", step=2)
    assert state(engine) is StoreState.WELL


def test_embeddings_that_could_be_written_say_nothing_of_latents(
    engine: Engine, claims: ClaimStore
) -> None:
    """The small ones fit on a disk that is nearly full; and what was found was not written."""
    encode, found = rows.holding(engine, Phase.ENCODE), rows.holding(engine, Phase.ENCODE)
    claims.storage_failed(rows.holding(engine, Phase.DIT), message="full", max_store_failures=9)
    rows.finished(engine, encode)
    assert state(engine) is StoreState.FAILING

    claims.save_checkpoint(rows.holding(engine, Phase.DIT), key="checkpoint-2", step=2)
    claims.storage_failed(rows.holding(engine, Phase.ENCODE), message="no", max_store_failures=9)
    claims.finish_encode(found, embeddings_key="e", found=True)
    assert state(engine) is StoreState.FAILING

    rows.finished(engine, rows.holding(engine, Phase.ENCODE))
    assert state(engine) is StoreState.WELL

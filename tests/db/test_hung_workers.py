"""A job is taken from a worker that hangs, and the worker from the work, until it has answered."""

from __future__ import annotations

from dataclasses import replace

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.errors import StateConflict
from ddit_batch.job import WAITING_STATE, JobState, Phase
from ddit_batch.snapshot import WorkerView


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """Every test has jobs of its own."""
    return shared_engine


def take_away(engine: Engine, claim: Claim, *, for_good: bool = False) -> None:
    """The scheduler's word, after a silence of 40 s."""
    job = replace(rows.view(engine, claim.job_id), silent_s=40.0)
    rows.leading(engine).take_away(job, for_good=for_good)


def worker(engine: Engine, claim: Claim) -> WorkerView:
    """The holder as a decision sees it."""
    return next(w for w in rows.seen(engine).workers if w.incarnation == claim.incarnation)


@pytest.mark.parametrize("phase", list(Phase))
def test_job_goes_back_one_phase_and_its_worker_gets_no_other(engine: Engine, phase: Phase) -> None:
    """It is counted apart from failures and deaths; the worker is live all the same."""
    claim = rows.holding(engine, phase)
    assert not ClaimStore(engine).was_taken(claim)

    take_away(engine, claim)

    row = rows.row(engine, claim.job_id)
    assert (row["state"], row["holder"]) == (WAITING_STATE[phase], None)
    assert (row["timeouts"], row["failures"], row["worker_losses"]) == (1, 0, 0)
    assert rows.attempts(engine, claim.job_id)[-1] == (phase, 1, "timed_out")
    assert worker(engine, claim).draining
    assert ClaimStore(engine).was_taken(claim)


def test_job_that_ends_by_it_says_who_hung_where(engine: Engine) -> None:
    """In words for its user, with a code."""
    claim = rows.holding(engine, Phase.VAE)

    take_away(engine, claim, for_good=True)

    row = rows.row(engine, claim.job_id)
    assert (row["state"], row["failure_code"]) == (JobState.FAILED, "timeout")
    assert "did not go on with it for 40 s in decoding, the 1. time" in row["failure_message"]
    assert worker(engine, claim).name in row["failure_message"]


@pytest.mark.parametrize("phase", list(Phase))
def test_worker_that_comes_back_changes_nothing_and_is_given_work_again(
    engine: Engine, phase: Phase
) -> None:
    """It learns by its first write that it is late, and then says that it has answered."""
    claim, claims = rows.holding(engine, phase), ClaimStore(engine)
    take_away(engine, claim)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        rows.finished(engine, claim)
    claims.answered(claim.incarnation)

    assert not worker(engine, claim).draining
    assert rows.claimed(engine, claim.job_id, by=claim.incarnation).attempt == 2


def test_result_that_comes_before_counts(engine: Engine) -> None:
    """The worker was only slow: nothing is taken away."""
    claim = rows.holding(engine, Phase.DIT)
    held = rows.view(engine, claim.job_id)
    rows.finished(engine, claim)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        rows.leading(engine).take_away(held, for_good=False)

    assert not ClaimStore(engine).was_taken(claim)
    assert not worker(engine, claim).draining


def test_worker_that_hangs_is_no_capacity(engine: Engine) -> None:
    """The views say since when."""
    claim = rows.holding(engine, Phase.DIT)
    take_away(engine, claim)
    name = worker(engine, claim).name

    with engine.connect() as connection:
        since = connection.execute(
            text("SELECT hung_since FROM worker_status WHERE name = :name"), {"name": name}
        ).scalar_one()

    assert since is not None

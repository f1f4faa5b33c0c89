from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import rows
from sqlalchemy import Engine

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore, _check_online
from ddit_batch.db.leases import LeaseStore
from ddit_batch.errors import StateConflict
from ddit_batch.job import WORKING_STATE, Incarnation, Phase


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """Every test has jobs of its own."""
    return shared_engine


@pytest.fixture
def claims(engine: Engine) -> ClaimStore:
    """Jobs as their holders see them."""
    return ClaimStore(engine)


@pytest.mark.parametrize("phase", list(Phase))
def test_claim_gives_the_holder_all_that_the_phase_needs(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """The request, and the handoffs of the phases before."""
    job, worker = rows.waiting_for(engine, phase), rows.registered(engine, phase)

    claim = claims.claim(job, phase, 1, worker)

    assert (claim.job_id, claim.phase, claim.attempt, claim.incarnation) == (job, phase, 1, worker)
    assert claim.request == rows.a_request()
    assert claim.embeddings_key == (None if phase is Phase.ENCODE else "embeddings-1")
    assert claim.latents_key == ("latents-1" if phase is Phase.VAE else None)
    assert (claim.checkpoint_key, claim.failures, claim.out_url) == (None, 0, None)
    row = rows.row(engine, job)
    assert (row["state"], row["holder"]) == (WORKING_STATE[phase], worker)
    assert row["dop"] == (1 if phase is Phase.DIT else 0)
    assert rows.attempts(engine, job)[-1] == (phase, 1, None)


def test_of_claims_at_once_one_wins(engine: Engine, claims: ClaimStore) -> None:
    """A message that was delivered many times makes one holder."""
    workers = [rows.registered(engine, Phase.ENCODE) for _ in range(6)]

    for _ in range(5):
        job = rows.waiting_for(engine, Phase.ENCODE)
        barrier = Barrier(len(workers))

        def attempt(worker: Incarnation, job: str = job, start: Barrier = barrier) -> Claim | None:
            start.wait()
            try:
                return claims.claim(job, Phase.ENCODE, 1, worker)
            except StateConflict:
                return None

        with ThreadPoolExecutor(len(workers)) as pool:
            (winner,) = filter(None, pool.map(attempt, workers))
        assert rows.row(engine, job)["holder"] == winner.incarnation
        assert rows.history(engine, job) == [("claim", "queued", "encoding")]


@pytest.mark.parametrize("phase", list(Phase))
def test_claim_repeated_by_its_holder_changes_nothing(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """The answer to the first may have been lost on its way."""
    claim = rows.holding(engine, phase)

    with rows.unchanged(engine):
        assert claims.claim(claim.job_id, phase, 1, claim.incarnation) == claim


@pytest.mark.parametrize("phase", list(Phase))
def test_second_delivery_to_another_worker_is_refused(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """A duplicate finds the job held."""
    claim, other = rows.holding(engine, phase), rows.registered(engine, phase)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        claims.claim(claim.job_id, phase, 1, other)


@pytest.mark.parametrize("phase", list(Phase))
def test_late_message_of_an_older_attempt_is_refused(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """Only the newest attempt counts, though the job waits for that very phase."""
    job, worker = rows.waiting_for(engine, phase), rows.registered(engine, phase)
    rows.withdrawn(engine, job)
    rows.sent(engine, job)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        claims.claim(job, phase, 1, worker)

    assert claims.claim(job, phase, 2, worker).attempt == 2


def test_message_of_an_attempt_that_was_never_opened_is_refused(
    engine: Engine, claims: ClaimStore
) -> None:
    """Postgres gives the numbers."""
    job, worker = rows.waiting_for(engine, Phase.DIT), rows.registered(engine)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        claims.claim(job, Phase.DIT, 2, worker)


@pytest.mark.parametrize("phase", list(Phase))
def test_message_whose_attempt_was_withdrawn_is_refused(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """State and number still fit, but the attempt has ended."""
    job, worker = rows.waiting_for(engine, phase), rows.registered(engine, phase)
    rows.withdrawn(engine, job)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        claims.claim(job, phase, 1, worker)


@pytest.mark.parametrize("phase", list(Phase))
def test_message_whose_attempt_was_given_back_is_refused(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """A second delivery cannot take up again what a worker has returned."""
    claim = rows.holding(engine, phase)
    claims.give_back(claim, reason="drain")

    with rows.unchanged(engine), pytest.raises(StateConflict):
        claims.claim(claim.job_id, phase, 1, claim.incarnation)


@pytest.mark.parametrize("phase", list(Phase))
def test_message_of_a_phase_that_is_done_is_refused(
    engine: Engine, claims: ClaimStore, phase: Phase
) -> None:
    """A message that comes when its work is done is none."""
    claim = rows.holding(engine, phase)
    rows.finished(engine, claim)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        claims.claim(claim.job_id, phase, 1, claim.incarnation)


def test_worker_that_is_not_online_cannot_claim(engine: Engine, claims: ClaimStore) -> None:
    """Lost, draining, stopped, replaced or never registered: it takes nothing new."""
    leases = LeaseStore(engine, lease_s=600)
    lost, draining, stopped = (rows.registered(engine) for _ in range(3))
    rows.lost(engine, lost)
    leases.drain(draining)
    leases.stopped(stopped)
    replaced = rows.registered(engine, name="twice@host")
    rows.registered(engine, name="twice@host")
    job = rows.waiting_for(engine, Phase.DIT)

    for worker in (lost, draining, stopped, replaced, Incarnation(10**6)):
        with rows.unchanged(engine), pytest.raises(StateConflict, match="claims nothing"):
            claims.claim(job, Phase.DIT, 1, worker)


def test_worker_is_not_declared_lost_in_the_middle_of_its_claim(engine: Engine) -> None:
    """Else a job could be held by a worker that was found gone before it was held."""
    worker, store = rows.registered(engine, lease_s=-1), rows.leading(engine)

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            _check_online(connection, worker)
            losing = pool.submit(store.lose_worker, worker)
            with pytest.raises(TimeoutError):
                losing.result(timeout=0.2)

        assert losing.result(timeout=10)


def test_first_claim_of_dit_begins_a_segment_at_step_zero(engine: Engine) -> None:
    """The allocation history begins with the first step."""
    claim = rows.holding(engine, Phase.DIT)

    assert rows.segments(engine, claim.job_id) == [(0, None, "start")]


def test_only_dit_has_segments(engine: Engine) -> None:
    """The other phases have no steps to allocate."""
    encode, vae = rows.holding(engine, Phase.ENCODE), rows.holding(engine, Phase.VAE)

    assert rows.segments(engine, encode.job_id) == []
    assert rows.segments(engine, vae.job_id) == [(0, 8, "start")]

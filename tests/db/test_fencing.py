"""A zombie: a worker that was declared lost and whose job was taken back, and that writes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import rows
from sqlalchemy import Engine

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.errors import StateConflict
from ddit_batch.job import JobState, Phase

Write = Callable[[ClaimStore, Claim], object]

WRITES: dict[str, Write] = {
    "give_back": lambda claims, claim: claims.give_back(claim, reason="late"),
    "give_back_at_a_checkpoint": lambda claims, claim: claims.give_back(
        claim, reason="late", checkpoint=("late", 7)
    ),
    "forget_checkpoint": lambda claims, claim: claims.forget_checkpoint(claim, key="late"),
    "cancelled": lambda claims, claim: claims.cancelled(claim),
    "fail_for_now": lambda claims, claim: claims.fail(
        claim, code="late", message="late", retryable=True, max_failures=9
    ),
    "fail_for_good": lambda claims, claim: claims.fail(
        claim, code="late", message="late", retryable=False, max_failures=9
    ),
}
WRITES["storage_failed"] = lambda claims, claim: claims.storage_failed(
    claim, message="late", max_store_failures=9
)
FINISHES: dict[Phase, Write] = {
    Phase.ENCODE: lambda claims, claim: claims.finish_encode(claim, embeddings_key="late"),
    Phase.DIT: lambda claims, claim: claims.finish_dit(claim, latents_key="late", vae_queue="vae"),
    Phase.VAE: lambda claims, claim: claims.finish_vae(
        claim, artifact_key="late", manifest_key="late"
    ),
}


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """Every test has jobs of its own."""
    return shared_engine


def handoff_lost(claims: ClaimStore, claim: Claim) -> None:
    """A late word of a handoff that is missing."""
    claims.handoff_lost(claim, message="late", max_failures=3)


def every_write(phase: Phase) -> dict[str, Write]:
    """All that a holder of *phase* may write and that moves the job."""
    more = {} if phase is Phase.ENCODE else {"handoff_lost": handoff_lost}
    return {"finish": FINISHES[phase], **WRITES, **more}


CASES = [(phase, word) for phase in Phase for word in every_write(phase)]


def rescued(engine: Engine, claim: Claim) -> None:
    """Have the holder found lost, and its job taken back."""
    rows.lost(engine, claim.incarnation)
    rows.leading(engine).rescue(rows.view(engine, claim.job_id))


@pytest.mark.parametrize(("phase", "word"), CASES)
def test_zombie_changes_nothing_once_its_job_was_taken_back(
    engine: Engine, phase: Phase, word: str
) -> None:
    """Whatever it writes is refused, and it learns so: waiting, held by the next, or done."""
    zombie, claims, write = (
        rows.holding(engine, phase),
        ClaimStore(engine),
        every_write(phase)[word],
    )
    rescued(engine, zombie)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        write(claims, zombie)

    successor = rows.claimed(engine, zombie.job_id)
    with rows.unchanged(engine), pytest.raises(StateConflict):
        write(claims, zombie)

    rows.finished(engine, successor)
    with rows.unchanged(engine), pytest.raises(StateConflict):
        write(claims, zombie)


def test_checkpoint_of_a_zombie_is_refused(engine: Engine) -> None:
    """It learns so by False, for the writer of checkpoints has a thread of its own."""
    zombie, claims = rows.holding(engine, Phase.DIT), ClaimStore(engine)
    rescued(engine, zombie)
    successor = rows.claimed(engine, zombie.job_id)
    assert claims.save_checkpoint(successor, key="right", step=2)

    with rows.unchanged(engine):
        assert not claims.save_checkpoint(zombie, key="late", step=7)


def test_process_that_lost_its_incarnation_has_lost_its_jobs(engine: Engine) -> None:
    """The same process under its new number is another holder."""
    claims, old = ClaimStore(engine), rows.registered(engine, name="dit-7@host")
    zombie = rows.holding(engine, Phase.DIT, by=old)
    new = rows.registered(engine, name="dit-7@host")
    rows.leading(engine).rescue(rows.view(engine, zombie.job_id))
    successor = rows.claimed(engine, zombie.job_id, by=new)

    with rows.unchanged(engine), pytest.raises(StateConflict):
        rows.finished(engine, zombie)

    rows.finished(engine, successor)
    assert rows.row(engine, zombie.job_id)["latents_key"] == "latents-2"
    assert claims.claim(zombie.job_id, Phase.VAE, 1, rows.registered(engine, Phase.VAE))


@pytest.mark.parametrize("phase", list(Phase))
def test_result_that_comes_before_the_rescue_counts(engine: Engine, phase: Phase) -> None:
    """A lost worker's finished work is not thrown away: the rescue is refused instead."""
    claim = rows.holding(engine, phase)
    rows.lost(engine, claim.incarnation)
    held = rows.view(engine, claim.job_id)

    rows.finished(engine, claim)

    store = rows.leading(engine)
    with rows.unchanged(engine), pytest.raises(StateConflict):
        store.rescue(held)
    with rows.unchanged(engine), pytest.raises(StateConflict):
        store.give_up(held)


def test_rescued_job_keeps_its_checkpoint_and_counts_the_loss(engine: Engine) -> None:
    """The next leader goes on from the last checkpoint, and the history has a hole in it."""
    claim, claims = rows.holding(engine, Phase.DIT), ClaimStore(engine)
    assert claims.save_checkpoint(claim, key="checkpoint-4", step=4)

    rescued(engine, claim)
    row = rows.row(engine, claim.job_id)
    successor = rows.claimed(engine, claim.job_id)

    assert (row["state"], row["worker_losses"], row["failures"]) == (JobState.ENCODED, 1, 0)
    assert successor.checkpoint_key == "checkpoint-4"
    assert rows.segments(engine, claim.job_id) == [(0, 0, "start"), (4, None, "resume")]
    assert [*rows.attempts(engine, claim.job_id)][1:] == [
        ("dit", 1, "worker_lost"),
        ("dit", 2, None),
    ]

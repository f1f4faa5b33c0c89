import itertools
from typing import TypeAlias

import pytest

from ddit_batch.errors import IllegalTransition
from ddit_batch.job import (
    FINAL_STATES,
    HELD_STATES,
    LIVE_STATES,
    WAITING_STATE,
    WORKING_STATE,
    JobState,
    Phase,
)
from ddit_batch.lifecycle import TRANSITIONS, Trigger, next_state

S: TypeAlias = JobState
T: TypeAlias = Trigger

LEGAL = {
    S.QUEUED: {T.CLAIM: S.ENCODING, T.FAIL: S.FAILED, T.CANCEL: S.CANCELLED},
    S.ENCODING: {
        T.FINISH: S.ENCODED,
        T.GIVE_BACK: S.QUEUED,
        T.WORKER_LOST: S.QUEUED,
        T.TIMED_OUT: S.QUEUED,
        T.ATTEMPT_FAILED: S.QUEUED,
        T.FAIL: S.FAILED,
        T.CANCEL: S.CANCELLED,
    },
    S.ENCODED: {T.CLAIM: S.DENOISING, T.FAIL: S.FAILED, T.CANCEL: S.CANCELLED},
    S.DENOISING: {
        T.FINISH: S.DENOISED,
        T.GIVE_BACK: S.ENCODED,
        T.WORKER_LOST: S.ENCODED,
        T.TIMED_OUT: S.ENCODED,
        T.ATTEMPT_FAILED: S.ENCODED,
        T.HANDOFF_LOST: S.QUEUED,
        T.FAIL: S.FAILED,
        T.CANCEL: S.CANCELLED,
    },
    S.DENOISED: {T.CLAIM: S.DECODING, T.FAIL: S.FAILED, T.CANCEL: S.CANCELLED},
    S.DECODING: {
        T.FINISH: S.SUCCEEDED,
        T.GIVE_BACK: S.DENOISED,
        T.WORKER_LOST: S.DENOISED,
        T.TIMED_OUT: S.DENOISED,
        T.ATTEMPT_FAILED: S.DENOISED,
        T.HANDOFF_LOST: S.ENCODED,
        T.FAIL: S.FAILED,
        T.CANCEL: S.CANCELLED,
    },
    S.SUCCEEDED: {},
    S.FAILED: {T.RETRY_ENCODE: S.QUEUED, T.RETRY_DIT: S.ENCODED, T.RETRY_VAE: S.DENOISED},
    S.CANCELLED: {},
}
"""The design's moves, written out once more by hand: a change of the table is a change here."""


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(S, T)), ids=str)
def test_every_trigger_in_every_state_moves_as_designed_or_is_illegal(state: S, trigger: T) -> None:
    """A trigger leads where the design says, and nowhere if the design says nothing."""
    target = LEGAL[state].get(trigger)

    if target is None:
        with pytest.raises(IllegalTransition):
            next_state(state, trigger)
    else:
        assert next_state(state, trigger) is target


def test_an_illegal_move_says_state_trigger_and_what_is_legal() -> None:
    """The message of an illegal move is enough to find the bug."""
    with pytest.raises(IllegalTransition) as of_waiting:
        next_state(S.QUEUED, T.FINISH)
    with pytest.raises(IllegalTransition) as of_final:
        next_state(S.CANCELLED, T.CANCEL)

    assert str(of_waiting.value) == (
        "a job cannot finish from state queued (legal there: cancel, claim, fail)"
    )
    assert str(of_final.value) == (
        "a job cannot cancel from state cancelled (legal there: none: it is final)"
    )


@pytest.mark.parametrize("state", sorted(LIVE_STATES))
def test_every_live_state_can_fail_and_be_cancelled(state: S) -> None:
    """No live job is out of reach of its user or of its own faults."""
    assert next_state(state, T.FAIL) is S.FAILED
    assert next_state(state, T.CANCEL) is S.CANCELLED


def test_final_states_have_no_exit_but_the_retries_of_failed() -> None:
    """What is over stays over, unless a user retries what failed."""
    exits = {(state, trigger) for state, trigger in TRANSITIONS if state in FINAL_STATES}

    assert exits == {(S.FAILED, trigger) for trigger in (T.RETRY_ENCODE, T.RETRY_DIT, T.RETRY_VAE)}


def test_every_held_state_returns_to_the_state_that_waits_for_its_phase() -> None:
    """A worker that dies, stops or fails costs a job its phase and no more."""
    for phase in Phase:
        for trigger in (T.WORKER_LOST, T.TIMED_OUT, T.GIVE_BACK, T.ATTEMPT_FAILED):
            assert next_state(WORKING_STATE[phase], trigger) is WAITING_STATE[phase]


def test_only_held_states_can_lose_a_worker() -> None:
    """Nobody's death can move a job that nobody holds."""
    assert {state for state, trigger in TRANSITIONS if trigger is T.WORKER_LOST} == HELD_STATES


def test_the_straight_way_leads_through_all_phases_to_success() -> None:
    """Claim and finish, phase by phase, end in success."""
    state = S.QUEUED

    for phase in Phase:
        assert state is WAITING_STATE[phase]
        state = next_state(state, T.CLAIM)
        assert state is WORKING_STATE[phase]
        state = next_state(state, T.FINISH)

    assert state is S.SUCCEEDED


@pytest.mark.parametrize("state", list(S))
def test_success_is_in_reach_of_every_state_that_can_move(state: S) -> None:
    """There is no dead end: from every state a final state is reachable."""
    reached = {state}
    while new := {to for (of, _), to in TRANSITIONS.items() if of in reached} - reached:
        reached |= new

    assert reached & FINAL_STATES
    assert S.SUCCEEDED in reached or state is S.CANCELLED


def test_every_state_but_the_first_can_be_entered() -> None:
    """No state is only on paper."""
    assert set(TRANSITIONS.values()) | {S.QUEUED} == set(S)

"""A worker that lives and does not go on loses its job, and gets no other until it has answered."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_costs import COSTS, FakeCosts
from worlds import LIMITS, a_held_job, a_job, a_worker, a_world, applied

from ddit_batch.cost_model import Live
from ddit_batch.job import HELD_STATES, PHASE_OF, JobId, JobState, Phase
from ddit_batch.policy.static import Static
from ddit_batch.scheduler.commands import Command, Send, TakeAway, TimeOut
from ddit_batch.scheduler.core import decide
from ddit_batch.scheduler.hanging import HangLimits, Silences, longest_silence_s
from ddit_batch.snapshot import JobView, Progress, Snapshot

S = JobState
TIMED = FakeCosts(other=replace(COSTS.other, live=(Live.OBSERVED,) * len(COSTS.other.dops)))
"""Costs that live steps have confirmed."""
POLICY = Static(costs=TIMED, dop=1)
HANG = HangLimits(steps=10, floor_s=30, group_s=5, phase_s=600)
BOUNDS = replace(LIMITS, hang=HANG, max_timeouts=2)
STEP_S = COSTS.other.at(1)


def commands_in(world: Snapshot) -> tuple[Command, ...]:
    return decide(world, POLICY, BOUNDS)


@pytest.mark.parametrize("state", sorted(HELD_STATES))
def test_job_of_a_worker_that_hangs_is_taken_away_and_goes_elsewhere(state: JobState) -> None:
    """In the same decision; the worker itself is not given it back."""
    hung, other = (a_worker(number, PHASE_OF[state]) for number in range(2))
    job = a_held_job(1, state, hung, silent_s=601.0)

    away, *rest = commands_in(a_world(hung, other, job))

    assert away == TakeAway(job)
    sends = [command for command in rest if isinstance(command, Send)]
    assert all(hung.name not in send.group for send in sends)
    if state is S.DENOISING:
        assert [send.group for send in sends] == [(other.name,)]


def test_worker_that_hangs_gets_no_other_job_in_that_decision() -> None:
    """It is busy with what it hangs in."""
    hung = a_worker(0)
    world = a_world(hung, a_held_job(1, S.DENOISING, hung, silent_s=601.0), a_job(2, S.ENCODED))

    assert not any(isinstance(command, Send) for command in commands_in(world))


def test_job_that_has_made_too_many_workers_hang_ends() -> None:
    """A count of its own: nobody has died of it."""
    hung = a_worker(0)
    job = a_held_job(1, S.DENOISING, hung, silent_s=601.0, timeouts=1)

    assert commands_in(a_world(hung, job)) == (TimeOut(job),)
    assert applied(a_world(hung, job), commands_in(a_world(hung, job))).jobs == ()


def test_worker_that_takes_its_time_is_left_alone() -> None:
    """Up to the limit."""
    worker = a_worker(0)
    job = a_held_job(1, S.DENOISING, worker, silent_s=30.0)

    assert commands_in(a_world(worker, job)) == ()


def test_silence_that_is_too_long_follows_the_step() -> None:
    """Ten steps, at least half a minute, and more in a group, whose members wait for each other."""
    worker, mate = a_worker(0), a_worker(1)
    alone, pair = (a_held_job(1, S.DENOISING, *crew) for crew in ((worker,), (worker, mate)))
    slow = FakeCosts(other=replace(TIMED.other, step_s=tuple(20 * s for s in COSTS.other.step_s)))

    assert longest_silence_s(alone, TIMED, HANG) == 30
    assert longest_silence_s(pair, TIMED, HANG) == 35
    assert longest_silence_s(alone, slow, HANG) == pytest.approx(200 * STEP_S)


@pytest.mark.parametrize("state", [S.ENCODING, S.DECODING])
def test_phases_without_steps_have_a_limit_of_their_own(state: JobState) -> None:
    """They show no sign of going on in between."""
    job = a_held_job(1, state, a_worker(0, PHASE_OF[state]))

    assert longest_silence_s(job, TIMED, HANG) == 600


def test_step_that_was_never_timed_here_has_that_limit_too() -> None:
    """A profile is no reason to take a job away: its device may have been a faster one."""
    job = a_held_job(1, S.DENOISING, a_worker(0))

    assert longest_silence_s(job, COSTS, HANG) == 600


def test_job_whose_own_steps_were_slow_may_be_silent_for_longer() -> None:
    """What its leader has said of the last one counts, if it is more than others took."""
    job = a_held_job(1, S.DENOISING, a_worker(0), said_step_s=20.0)

    assert longest_silence_s(job, COSTS, HANG) == 200
    assert longest_silence_s(job, TIMED, HANG) == 200
    assert longest_silence_s(replace(job, said_step_s=0.1), COSTS, HANG) == 30


def told(step: int) -> dict[JobId, Progress]:
    """What leaders have said."""
    return {JobId("b0-000001"): Progress(attempt=1, step=step, step_s=0.5)}


def silence_s(snapshot: Snapshot) -> float:
    (job,) = snapshot.jobs
    return job.silent_s


def test_silence_ends_with_a_step_or_another_attempt() -> None:
    """What a leader says again and again is no step."""
    world = a_world(a_held_job(1, S.DENOISING, a_worker(0)))
    silences = Silences()

    def after(now_s: float, step: int, world: Snapshot = world) -> float:
        return silence_s(silences.noticed(world, told(step), now_s=now_s, is_blind=False))

    assert [after(now_s, step=3) for now_s in (100.0, 105.0, 110.0)] == [0.0, 5.0, 10.0]
    assert after(111.0, step=4) == 0.0
    assert after(115.0, step=4) == 4.0
    (job,) = world.jobs
    again = replace(world, jobs=(replace(job, attempt=2),))
    assert after(116.0, step=4, world=again) == 0.0


def test_who_heard_nothing_calls_nobody_silent() -> None:
    """The broker was away, or the scheduler itself stood still."""
    world, silences = a_world(a_held_job(1, S.DENOISING, a_worker(0))), Silences()

    for now_s, is_blind in ((0.0, False), (50.0, True), (60.0, False)):
        seen = silences.noticed(world, told(3), now_s=now_s, is_blind=is_blind)

    assert silence_s(seen) == 10.0


@pytest.mark.parametrize("job", [a_job(1, S.QUEUED), a_job(1, S.ENCODED)])
def test_job_that_waits_is_not_silent(job: JobView) -> None:
    """Nobody could say anything of it."""
    silences = Silences()
    for now_s in (0.0, 1000.0):
        seen = silences.noticed(a_world(job), {}, now_s=now_s, is_blind=False)

    assert silence_s(seen) == 0.0


def test_phase_of_a_hung_worker_is_not_filled() -> None:
    """Nor is its shared queue, if it is the only one there."""
    hung = a_worker(0, Phase.ENCODE)
    busy = a_held_job(1, S.ENCODING, hung, silent_s=601.0)
    world = a_world(hung, a_worker(1), busy, a_job(2, S.QUEUED))

    assert commands_in(world) == (TakeAway(busy),)

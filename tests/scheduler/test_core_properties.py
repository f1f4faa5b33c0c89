from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from fake_costs import COSTS
from hypothesis import given, settings
from hypothesis import strategies as st
from random_worlds import limits, worlds
from worlds import applied

from ddit_batch.job import JobState, Phase
from ddit_batch.policy.static import Static
from ddit_batch.scheduler.commands import (
    Cancel,
    GiveUp,
    LoseWorker,
    Rescue,
    Resend,
    Send,
    Tell,
    Withdraw,
)
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts, WorkerView

often = settings(max_examples=100, deadline=None)
S = JobState
policies = st.builds(Static, costs=st.just(COSTS), dop=st.integers(1, 2))


def sends(world: Snapshot, policy: Static, bounds: Limits) -> list[Send]:
    return [c for c in decide(world, policy, bounds) if isinstance(c, Send)]


def left(world: Snapshot) -> list[WorkerView]:
    """The workers that are not lost by the decision."""
    return [w for w in world.workers if not (w.lease_expired and world.may_lose_workers)]


def able(world: Snapshot, phase: Phase, model: str) -> list[WorkerView]:
    """The workers that may be given the phase of a job of *model*."""
    return [
        worker
        for worker in left(world)
        if worker.phase is phase and model in worker.models and not worker.draining
    ]


def ahead(world: Snapshot, model: str) -> int:
    """Jobs of *model* that are encoded, or on their way to it, and have no workers yet."""
    return sum(
        job.model == model
        and (
            job.state is S.ENCODING
            or (job.state is S.ENCODED and not job.group)
            or (job.state is S.QUEUED and job.message is not Whereabouts.NONE)
        )
        for job in world.jobs
    )


def kept(world: Snapshot, policy: Static, bounds: Limits) -> list[JobView]:
    """The jobs whose group stands after the decision, without those that it sends."""
    commands = decide(world, policy, bounds)
    new = {command.job.job_id for command in commands if isinstance(command, Send)}
    return [j for j in applied(world, commands).jobs if j.group and j.job_id not in new]


@often
@given(worlds(), policies, limits)
def test_no_worker_is_given_two_jobs(world: Snapshot, policy: Static, bounds: Limits) -> None:
    """Nor one beside the job that it has."""
    given_ = [name for send in sends(world, policy, bounds) for name in send.group]
    busy = {name for job in kept(world, policy, bounds) for name in job.group}

    assert len(given_) == len(set(given_))
    assert not busy & set(given_)


@often
@given(worlds(), policies, limits)
def test_no_job_is_sent_twice(world: Snapshot, policy: Static, bounds: Limits) -> None:
    """Nor ended and sent, nor told two things."""
    last_words = [
        command.job.job_id
        for command in decide(world, policy, bounds)
        if isinstance(command, (Send, Resend, Cancel, GiveUp, Tell))
    ]

    assert len(last_words) == len(set(last_words))


@often
@given(worlds(), policies, limits)
def test_work_goes_only_to_those_who_can_do_it(
    world: Snapshot, policy: Static, bounds: Limits
) -> None:
    """Live, not draining, of the phase, with the model; a DiT group on one node, its size k."""
    for send in sends(world, policy, bounds):
        match send.job.state:
            case S.QUEUED:
                assert send.queue == "encode"
                assert able(world, Phase.ENCODE, send.job.model)
            case S.DENOISED:
                assert send.queue == "vae"
                assert able(world, Phase.VAE, send.job.model)
            case S.ENCODED:
                crew = {w.name: w for w in able(world, Phase.DIT, send.job.model)}
                assert set(send.group) <= set(crew)
                assert len({crew[name].node for name in send.group}) == 1
                assert len(set(send.group)) == len(send.group) == policy.dop
                assert send.queue == f"dit.{send.group[0]}"
            case state:
                pytest.fail(f"sent in state {state}")


@often
@given(worlds(), policies, limits)
def test_jobs_are_encoded_ahead_within_the_bound(
    world: Snapshot, policy: Static, bounds: Limits
) -> None:
    """Of each model the next ones in the policy's order, encoded already or not.

    A job of a paused batch that nobody holds waits for its user, and is ahead of nobody.
    """
    after = applied(world, decide(world, policy, bounds))

    for send in sends(world, policy, bounds):
        if send.job.state is S.QUEUED:
            bound = bounds.look_ahead * len(able(world, Phase.DIT, send.job.model))
            waiting = [
                job
                for job in after.jobs
                if job.model == send.job.model
                and (job.held or not job.paused)
                and (
                    job.state in {S.QUEUED, S.ENCODING}
                    or (job.state is S.ENCODED and not job.group)
                )
            ]
            ahead_of_it = policy.sequence(after, waiting)[:bound]
            assert send.job.job_id in {job.job_id for job in ahead_of_it}


@often
@given(worlds(), policies, limits)
def test_room_ahead_is_used(world: Snapshot, policy: Static, bounds: Limits) -> None:
    """A job that stays queued has no room, or nobody to encode it, or is paused."""
    after = applied(world, decide(world, policy, bounds))

    for job in after.jobs:
        if job.state is S.QUEUED and job.message is Whereabouts.NONE and not job.paused:
            bound = bounds.look_ahead * len(able(world, Phase.DIT, job.model))
            assert not able(world, Phase.ENCODE, job.model) or ahead(after, job.model) >= bound


@often
@given(worlds(), policies, limits)
def test_no_dit_starts_under_back_pressure(world: Snapshot, policy: Static, bounds: Limits) -> None:
    """Counted as it will be after the decision: without what then waits because it is paused."""
    after = applied(world, decide(world, policy, bounds))

    paused = sum(job.state is S.DENOISED and job.paused for job in after.jobs)
    if after.waiting_to_decode - paused >= bounds.decode_backlog:
        assert not any(send.group for send in sends(world, policy, bounds))


@often
@given(worlds(), limits)
def test_no_worker_idles_beside_a_job_that_it_could_take(world: Snapshot, bounds: Limits) -> None:
    """With groups of one, nothing but back-pressure keeps a job from an idle worker."""
    policy = Static(costs=COSTS, dop=1)
    after = applied(world, decide(world, policy, bounds))
    busy = {name for job in after.jobs for name in job.group}

    if after.waiting_to_decode < bounds.decode_backlog:
        for job in after.jobs:
            if job.state is S.ENCODED and not job.group and not job.paused:
                assert busy.issuperset(w.name for w in able(world, Phase.DIT, job.model))


@often
@given(worlds(), policies, limits)
def test_cancelled_jobs_are_never_sent(world: Snapshot, policy: Static, bounds: Limits) -> None:
    """They end, or their holder is told; if it is gone, they are taken back and end."""
    commands = decide(world, policy, bounds)

    for job in world.jobs:
        if job.cancel_requested:
            words = [type(c) for c in commands if getattr(c, "job", None) and c.job.seq == job.seq]
            assert words in ([Cancel], [Tell], [Rescue, Cancel], [GiveUp])
    after = applied(world, commands)
    assert all(job.held for job in after.jobs if job.cancel_requested)


@often
@given(worlds(), policies, limits)
def test_nobody_is_left_in_dead_hands(world: Snapshot, policy: Static, bounds: Limits) -> None:
    """After the decision every held job has a live holder, and every message a live addressee."""
    after = applied(world, decide(world, policy, bounds))

    incarnations = {worker.incarnation for worker in after.workers}
    names = {worker.name for worker in after.workers if not worker.draining}
    assert all(job.holder in incarnations for job in after.jobs if job.held)
    assert all(names.issuperset(job.group) for job in after.jobs if not job.held)
    assert not any(job.message is Whereabouts.MISSING for job in after.jobs)


@often
@given(worlds(), policies, limits)
def test_workers_are_lost_exactly_if_their_lease_ran_out_and_that_means_something(
    world: Snapshot, policy: Static, bounds: Limits
) -> None:
    """Never in a time of grace."""
    lost = [c.incarnation for c in decide(world, policy, bounds) if isinstance(c, LoseWorker)]

    expired = {worker.incarnation for worker in world.workers if worker.lease_expired}
    assert set(lost) == (expired if world.may_lose_workers else set())


@often
@given(worlds(), policies, limits)
def test_jobs_of_live_holders_are_not_taken_away(
    world: Snapshot, policy: Static, bounds: Limits
) -> None:
    """Only a holder that is gone, or is being lost, loses its job."""
    taken = [c.job for c in decide(world, policy, bounds) if isinstance(c, (Rescue, GiveUp))]

    live = {
        w.incarnation for w in world.workers if not (w.lease_expired and world.may_lose_workers)
    }
    assert all(job.held and job.holder not in live for job in taken)


@often
@given(worlds(), policies, limits, st.integers(0, 2**32))
def test_order_of_the_input_does_not_matter(
    world: Snapshot, policy: Static, bounds: Limits, seed: int
) -> None:
    """The same commands in the same order, however the rows came."""
    jobs, workers = list(world.jobs), list(world.workers)
    Random(seed).shuffle(jobs)
    Random(seed).shuffle(workers)
    shuffled = replace(world, jobs=tuple(jobs), workers=tuple(workers))

    assert decide(shuffled, policy, bounds) == decide(world, policy, bounds)


@often
@given(worlds(), policies, limits)
def test_same_snapshot_gives_the_same_commands(
    world: Snapshot, policy: Static, bounds: Limits
) -> None:
    """A restarted scheduler decides as before; only differences of the clock may matter."""
    later = replace(world, now_s=world.now_s + 1e6)

    assert decide(later, Static(costs=COSTS, dop=policy.dop), bounds) == decide(
        world, policy, bounds
    )


@often
@given(worlds(), policies, limits)
def test_one_decision_settles_everything(world: Snapshot, policy: Static, bounds: Limits) -> None:
    """Decided again, once carried out: nothing but what running jobs are told at every decision."""
    after = applied(world, decide(world, policy, bounds))

    assert {type(command) for command in decide(after, policy, bounds)} <= {Tell}


@often
@given(worlds(), policies, limits, st.integers(0, 20))
def test_decision_that_was_cut_short_is_completed_by_the_next(
    world: Snapshot, policy: Static, bounds: Limits, done: int
) -> None:
    """A scheduler that died between two commands has done no harm: the two add up to the whole."""
    commands = decide(world, policy, bounds)
    half = applied(world, commands[:done])

    rest = decide(half, policy, bounds)
    whole = applied(half, rest)

    assert {type(command) for command in decide(whole, policy, bounds)} <= {Tell}
    assert {job.job_id for job in whole.jobs} == {
        job.job_id for job in applied(world, commands).jobs
    }


@often
@given(worlds(), policies, limits)
def test_withdrawn_messages_are_those_that_nobody_may_take(
    world: Snapshot, policy: Static, bounds: Limits
) -> None:
    """Of a paused batch, or to who is gone; what its addressee may take is left where it is."""
    commands = decide(world, policy, bounds)
    withdrawn = {c.job.job_id for c in commands if isinstance(c, Withdraw)}

    takers = {worker.name for worker in left(world) if not worker.draining}
    assert withdrawn == {
        job.job_id
        for job in world.jobs
        if job.message is not Whereabouts.NONE
        and not job.cancel_requested
        and (job.paused or not takers.issuperset(job.group))
    }

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fake_costs import COSTS
from worlds import (
    LIMITS,
    a_held_job,
    a_job,
    a_sent_job,
    a_worker,
    a_world,
    shared_workers,
)

from ddit_batch.job import HELD_STATES, PHASE_OF, WAITING_STATE, JobState, Phase
from ddit_batch.policy import make_policy
from ddit_batch.policy.base import Policy
from ddit_batch.policy.static import Static
from ddit_batch.scheduler.commands import (
    Cancel,
    Command,
    GiveUp,
    LoseWorker,
    Rescue,
    Resend,
    Send,
    Tell,
    Withdraw,
)
from ddit_batch.scheduler.core import decide
from ddit_batch.snapshot import Instruction, JobView, Snapshot, WorkerView, order_key

S = JobState
POLICY = Static(costs=COSTS, dop=1)
POLICIES = tuple(make_policy(spec, COSTS) for spec in ("static", "ddit", "dp", "elastic"))


def commands_in(world: Snapshot) -> tuple[Command, ...]:
    return decide(world, POLICY, LIMITS)


def sends_in(world: Snapshot) -> list[tuple[str, str]]:
    """What is sent where, in order."""
    return [
        (str(command.job.job_id)[-1], command.queue)
        for command in commands_in(world)
        if isinstance(command, Send)
    ]


# workers whose lease ran out


def test_worker_whose_lease_ran_out_is_lost_and_its_job_taken_back_and_sent_on() -> None:
    """All of it in one decision: the idle worker need not wait for the next."""
    dead, idle = a_worker(0, lease_expired=True), a_worker(1)
    job = a_held_job(1, S.DENOISING, dead)

    lose, rescue, send = commands_in(a_world(dead, idle, job))

    assert lose == LoseWorker(dead.incarnation)
    assert rescue == Rescue(job)
    assert isinstance(send, Send)
    assert (send.job.job_id, send.job.state, send.queue) == (
        job.job_id,
        S.ENCODED,
        "dit.dit-1@host",
    )
    assert send.group == (idle.name,)


def test_nobody_is_lost_while_leases_say_nothing() -> None:
    """After an outage of the database nobody could renew: silence is no proof."""
    dead = a_worker(0, lease_expired=True)
    job = a_held_job(1, S.DENOISING, dead)

    assert commands_in(a_world(dead, job, may_lose=False)) == ()


def test_expired_worker_gets_no_work_once_it_may_be_lost() -> None:
    """It is lost in the same decision."""
    dead = a_worker(0, lease_expired=True)

    assert commands_in(a_world(dead, a_job(1, S.ENCODED))) == (LoseWorker(dead.incarnation),)


# jobs whose holder is gone


@pytest.mark.parametrize("state", sorted(HELD_STATES))
def test_job_of_a_holder_that_is_gone_is_taken_back(state: JobState) -> None:
    """Also without an expired lease: the holder may have been replaced or lost before."""
    gone = a_worker(0)
    job = a_held_job(1, state, gone)

    rescue = commands_in(a_world(job))[0]

    assert rescue == Rescue(job)


def test_job_of_the_former_life_of_a_worker_is_taken_back() -> None:
    """The name is the same, the incarnation is not."""
    before, now = a_worker(0), a_worker(0, incarnation=77)
    job = a_held_job(1, S.DENOISING, before)

    assert commands_in(a_world(now, job))[0] == Rescue(job)


def test_job_whose_holder_is_live_is_left_alone() -> None:
    """Also if it drains: it finishes, or gives back."""
    for draining in (False, True):
        worker = a_worker(0, Phase.ENCODE, draining=draining)

        assert commands_in(a_world(worker, a_held_job(1, S.ENCODING, worker))) == ()


def test_job_that_outlived_too_many_workers_is_given_up() -> None:
    """At the limit it fails; before it, it is tried again. The others go on."""
    gone = a_worker(0)
    hopeless = a_held_job(1, S.DENOISING, gone, worker_losses=2)
    unlucky = a_held_job(2, S.DENOISING, gone, worker_losses=1)

    assert commands_in(a_world(hopeless, unlucky)) == (GiveUp(hopeless), Rescue(unlucky))


def test_rescued_encode_is_sent_again_at_once() -> None:
    """One phase back, from where it goes on by itself."""
    encode, _ = shared_workers()
    job = a_held_job(1, S.ENCODING, a_worker(5, Phase.ENCODE))

    assert sends_in(a_world(encode, a_worker(0), job)) == [("1", "encode")]


# cancelled jobs


@pytest.mark.parametrize("state", sorted(WAITING_STATE.values()))
def test_cancelled_job_that_nobody_holds_ends(state: JobState) -> None:
    """Whether its message is out or not; it is sent nowhere any more."""
    worker = a_worker(0)
    waits = a_job(1, state, cancel_requested=True)
    sent = a_sent_job(2, state, worker.name, cancel_requested=True)

    assert commands_in(a_world(worker, waits, sent, *shared_workers())) == (
        Cancel(waits),
        Cancel(sent),
    )


@pytest.mark.parametrize("state", sorted(HELD_STATES))
def test_cancelled_job_that_is_held_is_told_to_stop(state: JobState) -> None:
    """At every decision, because a letter may get lost; its holder confirms."""
    worker = a_worker(0, PHASE_OF[state])
    job = a_held_job(1, state, worker, cancel_requested=True)

    assert commands_in(a_world(worker, job)) == (Tell(job, Instruction.CANCEL, job.group),)


def test_cancelled_job_of_a_dead_worker_ends_without_another_try() -> None:
    """It is taken back first, because that is what the history is to say."""
    gone, idle = a_worker(0), a_worker(1)
    job = a_held_job(1, S.DENOISING, gone, cancel_requested=True)

    rescue, cancel = commands_in(a_world(idle, job))

    assert rescue == Rescue(job)
    assert isinstance(cancel, Cancel)
    assert cancel.job.state is S.ENCODED


# messages


def test_message_to_a_worker_that_is_gone_goes_to_another() -> None:
    """The job does not wait for somebody to come back under that name."""
    idle, job = a_worker(1), a_sent_job(1, S.ENCODED, "dit-0@host")

    withdraw, send = commands_in(a_world(idle, job))

    assert withdraw == Withdraw(job)
    assert isinstance(send, Send)
    assert (send.job.job_id, send.group) == (job.job_id, (idle.name,))


def test_message_to_a_draining_worker_is_withdrawn() -> None:
    """It would refuse it."""
    worker = a_worker(0, draining=True)
    job = a_sent_job(1, S.ENCODED, worker.name)

    assert commands_in(a_world(worker, job)) == (Withdraw(job),)


@pytest.mark.parametrize("state", sorted(WAITING_STATE.values()))
def test_lost_message_is_sent_again(state: JobState) -> None:
    """The same attempt: if the first one turns up, one of the two is refused."""
    worker = a_worker(0)
    group = (worker.name,) if state is S.ENCODED else ()
    job = a_sent_job(1, state, *group, missing=True)

    assert commands_in(a_world(worker, job)) == (Resend(job),)


def test_lost_message_to_a_worker_that_is_gone_is_withdrawn_not_sent_again() -> None:
    """Nobody would read it."""
    job = a_sent_job(1, S.ENCODED, "dit-0@host", missing=True)

    assert commands_in(a_world(job)) == (Withdraw(job),)


def test_message_in_a_shared_queue_waits_for_whoever_comes() -> None:
    """No worker of the phase is live, but one will be."""
    job = a_sent_job(1, S.QUEUED)

    assert commands_in(a_world(job)) == ()


# placing


def test_encoded_job_goes_to_an_idle_worker() -> None:
    """The queue is the leader's own."""
    worker, job = a_worker(0), a_job(1, S.ENCODED)

    assert commands_in(a_world(worker, job)) == (Send(job, "dit.dit-0@host", (worker.name,)),)


def test_no_dit_starts_while_too_many_jobs_wait_for_vae() -> None:
    """Latents that nobody decodes fill the storage; what runs goes on."""
    worker, busy = a_worker(0), a_worker(1)
    running = a_held_job(1, S.DENOISING, busy)
    things = (worker, busy, running, a_job(2, S.ENCODED))

    assert sends_in(a_world(*things, waiting_to_decode=2)) == [("2", "dit.dit-0@host")]
    assert commands_in(a_world(*things, waiting_to_decode=3)) == ()


def test_back_pressure_counts_what_this_decision_changes() -> None:
    """Cancelled ones do not count any more; those that come back do."""
    worker, gone = a_worker(0), a_worker(50, Phase.VAE)
    decoding = a_held_job(1, S.DECODING, gone)
    cancelled = a_sent_job(2, S.DENOISED, cancel_requested=True)
    job = a_job(3, S.ENCODED)

    assert sends_in(a_world(worker, decoding, job, waiting_to_decode=2)) == []
    assert sends_in(a_world(worker, cancelled, job, waiting_to_decode=3)) == [
        ("3", "dit.dit-0@host")
    ]


class Plan:
    """A policy that wants what it is told to want."""

    name = "plan"

    def __init__(self, **groups: tuple[WorkerView, ...]) -> None:
        self._groups = groups

    def plan(self, snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
        """The groups that were given, for jobs by number."""
        return {
            job.job_id: tuple(worker.name for worker in self._groups[f"job{job.seq}"])
            for job in snapshot.jobs
            if f"job{job.seq}" in self._groups
        }

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """As they came."""
        del snapshot
        return sorted(jobs, key=order_key)


def test_running_job_that_the_policy_leaves_out_is_told_to_give_its_workers_back() -> None:
    """At its next step boundary."""
    worker = a_worker(0)
    job = a_held_job(1, S.DENOISING, worker)

    assert decide(a_world(worker, job), Plan(), LIMITS) == (Tell(job, Instruction.RELEASE),)


def test_running_job_that_should_have_another_group_is_told_so() -> None:
    """The leader is told the target, not the change; and nothing if nothing changes."""
    first, second = a_worker(0), a_worker(1)
    job = a_held_job(1, S.DENOISING, first)
    world, group = a_world(first, second, job), (first.name, second.name)

    grow = decide(world, Plan(job1=(first, second)), LIMITS)

    assert grow == (Tell(job, Instruction.CONTINUE, group),)
    assert decide(world, Plan(job1=(first,)), LIMITS) == ()


def test_running_job_is_told_nothing_twice_but_what_it_was_told_can_be_taken_back() -> None:
    """Also if it is to be given back, and then to go on as it is after all."""
    first, second = a_worker(0), a_worker(1)
    group = (first.name, second.name)
    wider = a_held_job(1, S.DENOISING, first, pending=group)
    back = a_held_job(1, S.DENOISING, first, pending=())

    for job, same in ((wider, Plan(job1=(first, second))), (back, Plan())):
        world = a_world(first, second, job)
        assert decide(world, same, LIMITS) == ()
        assert decide(world, Plan(job1=(first,)), LIMITS) == (
            Tell(job, Instruction.CONTINUE, (first.name,)),
        )
    assert decide(a_world(first, second, wider), Plan(), LIMITS) == (
        Tell(wider, Instruction.RELEASE),
    )


def test_cancelled_job_is_told_that_and_nothing_else() -> None:
    """Whatever the policy wants of it."""
    first, second = a_worker(0), a_worker(1)
    job = a_held_job(1, S.DENOISING, first, cancel_requested=True)
    world = a_world(first, second, job)

    for policy in (Plan(), Plan(job1=(first, second))):
        assert decide(world, policy, LIMITS) == (Tell(job, Instruction.CANCEL, (first.name,)),)


# paused batches


@pytest.mark.parametrize("state", [S.QUEUED, S.ENCODED, S.DENOISED])
def test_message_of_a_paused_batch_is_made_void_and_nothing_is_sent_instead(
    state: JobState,
) -> None:
    """Missing or not; the worker it was for is another's in the same decision."""
    worker = a_worker(0)
    group = (worker.name,) if state is S.ENCODED else ()
    job = a_sent_job(1, state, *group, missing=True, paused=True)
    other = a_job(2, S.ENCODED)

    withdraw, send = commands_in(a_world(worker, *shared_workers(), job, other))

    assert withdraw == Withdraw(job)
    assert isinstance(send, Send)
    assert (send.job, send.group) == (other, (worker.name,))


def test_running_job_of_a_paused_batch_is_told_to_come_back_and_nothing_else() -> None:
    """Again and again, whatever was pending; its workers are nobody's before it has come."""
    leader, follower = a_worker(0), a_worker(1)
    for pending in (None, (), (leader.name, follower.name)):
        job = a_held_job(1, S.DENOISING, leader, paused=True, pending=pending)
        waiting = [a_job(2, S.ENCODED), a_job(3, S.ENCODED)]
        world = a_world(leader, follower, *shared_workers(), job, *waiting)

        told, *others = commands_in(world)

        assert told == Tell(job, Instruction.RELEASE)
        assert all(isinstance(command, Send) for command in others)
        assert leader.name not in {name for send in others for name in send.group}


@pytest.mark.parametrize("state", [S.ENCODING, S.DECODING])
def test_phases_without_steps_of_a_paused_batch_end_by_themselves(state: JobState) -> None:
    """Nobody could take the job back from them in the middle."""
    encoder, decoder = shared_workers()
    holder = encoder if state is S.ENCODING else decoder
    job = a_held_job(1, state, holder, paused=True)

    assert commands_in(a_world(encoder, decoder, a_worker(0), job)) == ()


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_no_policy_keeps_a_paused_job(policy: Policy) -> None:
    """They do not know of pauses; the core does."""
    workers = [a_worker(number) for number in range(4)]
    jobs = [a_held_job(1, S.DENOISING, workers[0], paused=True), a_job(2, S.ENCODED)]

    commands = decide(a_world(*workers, *shared_workers(), *jobs), policy, LIMITS)

    told, *sends = commands
    assert told == Tell(jobs[0], Instruction.RELEASE)
    assert [type(send) for send in sends] == [Send]
    assert sends[0].job == jobs[1]


def test_cancel_of_a_paused_job_goes_before_its_pause() -> None:
    """Whoever holds it is told to stop, not to give back; what nobody holds ends."""
    worker = a_worker(0)
    held = a_held_job(1, S.DENOISING, worker, paused=True, cancel_requested=True)
    free = a_job(2, S.ENCODED, paused=True, cancel_requested=True)

    commands = commands_in(a_world(worker, *shared_workers(), held, free))

    assert commands == (Cancel(free), Tell(held, Instruction.CANCEL, held.group))

"""While the artifact store fails nothing new begins, and what runs goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_costs import COSTS
from hypothesis import given
from random_worlds import limits, worlds
from worlds import LIMITS, a_held_job, a_job, a_sent_job, a_worker, a_world, shared_workers

from ddit_batch.job import JobState
from ddit_batch.policy.base import Policy
from ddit_batch.policy.elastic import Elastic
from ddit_batch.policy.static import Static
from ddit_batch.scheduler.commands import Rescue, Send
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.snapshot import Snapshot, StoreState

S = JobState
POLICY = Static(costs=COSTS, dop=1)
WAITING = (S.QUEUED, S.ENCODED, S.DENOISED)


def sent_in(world: Snapshot, store: StoreState) -> list[JobState]:
    """The states of the jobs that are sent if the store is so."""
    commands = decide(replace(world, store=store), POLICY, LIMITS)
    return [command.job.state for command in commands if isinstance(command, Send)]


def test_nothing_is_sent_while_the_store_fails() -> None:
    """Of any phase: also a VAE would only lose its work."""
    jobs = [a_job(number, state) for number, state in enumerate(WAITING, 1)]
    world = a_world(a_worker(0), *shared_workers(), *jobs)

    assert sorted(sent_in(world, StoreState.WELL)) == sorted(WAITING)
    assert sent_in(world, StoreState.FAILING) == []


def test_one_job_finds_out_whether_the_store_works_again() -> None:
    """One in all, whatever its phase."""
    jobs = [a_job(number, WAITING[number % 3]) for number in range(1, 7)]
    world = a_world(a_worker(0), a_worker(1), *shared_workers(), *jobs)

    assert len(sent_in(world, StoreState.WELL)) > 1
    assert len(sent_in(world, StoreState.PROBE)) == 1


@pytest.mark.parametrize("state", [S.ENCODING, S.DENOISING, S.DECODING])
def test_whoever_is_under_way_finds_out_first(state: JobState) -> None:
    """It writes sooner or later; a second probe would be a second loss."""
    worker = a_worker(0)
    busy = a_held_job(1, state, worker)
    world = a_world(worker, a_worker(1), *shared_workers(), busy, a_job(2, S.ENCODED))

    assert sent_in(world, StoreState.WELL) == [S.ENCODED]
    assert sent_in(world, StoreState.PROBE) == []


def test_probe_that_was_sent_is_the_only_one_until_it_is_back() -> None:
    """Its message may wait in a queue for a while."""
    sent = a_sent_job(1, S.QUEUED)
    world = a_world(a_worker(0), *shared_workers(), sent, a_job(2, S.QUEUED), a_job(3, S.ENCODED))

    assert sent_in(world, StoreState.PROBE) == []


def test_faults_are_mended_all_the_same() -> None:
    """A job whose worker is gone is taken back; it then waits with the others."""
    gone, idle = a_worker(0), a_worker(1)
    job = a_held_job(1, S.DENOISING, gone)

    world = replace(a_world(idle, job), store=StoreState.FAILING)

    assert decide(world, POLICY, LIMITS) == (Rescue(job),)


@pytest.mark.parametrize("policy", [POLICY, Elastic(costs=COSTS)], ids=["static", "elastic"])
@given(world=worlds(), bounds=limits)
def test_at_most_one_is_sent_whatever_the_world_is(
    world: Snapshot, bounds: Limits, policy: Policy
) -> None:
    """None while the store fails, one when it may work again."""
    for store, most in ((StoreState.FAILING, 0), (StoreState.PROBE, 1)):
        commands = decide(replace(world, store=store), policy, bounds)
        assert sum(isinstance(command, Send) for command in commands) <= most

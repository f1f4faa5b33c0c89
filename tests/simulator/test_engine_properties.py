from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_workloads import World, worlds

from ddit_batch.job import Phase
from ddit_batch.simulator import Result, Segment, simulate
from ddit_batch.simulator.bound import bound
from ddit_batch.simulator.report import summarise

often = settings(max_examples=100)
any_world = st.booleans().flatmap(lambda faults: worlds(with_faults=faults))


def run(world: World) -> Result:
    return simulate(
        world.workload,
        world.costs,
        world.policy,
        world.cluster,
        world.config,
        faults=world.faults,
    )


def steps_of(result: Result) -> dict[str, list[Segment]]:
    """The DiT segments of each job, in order."""
    found: dict[str, list[Segment]] = defaultdict(list)
    for segment in result.segments:
        if segment.phase is Phase.DIT:
            found[segment.job_id].append(segment)
    return found


@often
@given(any_world)
def test_no_worker_is_in_two_groups(world: World) -> None:
    """Its segments follow one another."""
    spans = defaultdict(list)
    for segment in run(world).segments:
        for name in segment.workers:
            spans[name].append((segment.begun_s, segment.ended_s))

    for own in spans.values():
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(own)))


@often
@given(any_world)
def test_groups_stay_inside_a_node_and_are_legal(world: World) -> None:
    """Whatever the policy, the topology and the losses."""
    node = {worker.name: worker.node for worker in world.cluster.workers(frozenset())}
    shapes = {arrival.job_id: arrival.shape for arrival in world.workload.arrivals}

    for segment in run(world).segments:
        assert len({node[name] for name in segment.workers}) == 1
        if segment.phase is Phase.DIT:
            assert segment.dop in world.costs.cost("", shapes[segment.job_id]).dops


@often
@given(any_world)
def test_lost_workers_work_on_nothing(world: World) -> None:
    """From their loss until they are back."""
    names = [worker.name for worker in world.cluster.workers(frozenset())]

    for segment in run(world).segments:
        for fault in world.faults:
            if names[fault.worker] in segment.workers:
                assert segment.ended_s <= fault.lost_s or segment.begun_s >= fault.back_s


@often
@given(any_world)
def test_every_step_is_paid_for_once(world: World) -> None:
    """A segment takes its overhead and its steps; a fault may add part of a step, no more."""
    shapes = {arrival.job_id: arrival.shape for arrival in world.workload.arrivals}
    result = run(world)

    for segments in steps_of(result).values():
        for segment in segments:
            step_s = world.costs.cost("", shapes[segment.job_id]).at(segment.dop)
            done_s = (segment.to_step - segment.from_step) * step_s + segment.overhead_s
            lost_s = segment.ended_s - segment.begun_s - done_s
            assert lost_s == pytest.approx(0.0, abs=1e-6) or (world.faults and 0 < lost_s < step_s)
    assert sum(s.gpu_s for s in result.segments) == pytest.approx(
        sum(job.gpu_s for job in result.jobs)
    )


@often
@given(worlds())
def test_steps_are_done_in_order_and_none_twice(world: World) -> None:
    """Without faults: each segment goes on where the last one ended."""
    result = run(world)

    for job in result.jobs:
        done = [(s.from_step, s.to_step) for s in steps_of(result)[job.arrival.job_id]]
        assert done[0][0] == 0
        assert done[-1][1] == job.arrival.steps
        assert all(before[1] == after[0] for before, after in pairwise(done))


@often
@given(worlds(with_faults=True))
def test_lost_steps_are_those_since_the_last_checkpoint(world: World) -> None:
    """And none at all where the leader lives on."""
    every = world.config.checkpoint_every_steps

    for segments in steps_of(run(world)).values():
        for before, after in pairwise(segments):
            assert before.to_step - every < after.from_step <= before.to_step


@often
@given(any_world)
def test_every_job_ends_with_its_decode(world: World) -> None:
    """After its last step, and whatever is lost: none is forgotten, none is done twice."""
    result = run(world)
    decodes = [s for s in result.segments if s.phase is Phase.VAE]

    assert [job.arrival for job in result.jobs] == list(world.workload.arrivals)
    assert bool(decodes) == (not world.cluster.vae_workers)
    for job in result.jobs:
        own_s = [s.ended_s for s in decodes if s.job_id == job.arrival.job_id]
        steps = steps_of(result)[job.arrival.job_id]
        decode_s = world.costs.cost("", job.arrival.shape).decode_s
        assert not own_s or job.finished_s == max(own_s)
        assert steps[-1].to_step == job.arrival.steps
        assert steps[-1].ended_s + decode_s <= job.finished_s + 1e-9
        assert job.started_s >= job.arrival.arrived_s


@often
@given(any_world)
def test_same_input_gives_the_same_result(world: World) -> None:
    """To the last bit."""
    assert run(world) == run(world)


@often
@given(any_world)
def test_no_policy_beats_the_bound(world: World) -> None:
    """Neither in mean latency nor in makespan, also without the first jobs, whatever is lost."""
    result = run(world)
    for first in (0, len(world.workload.arrivals) // 2):
        least = bound(world.workload, world.costs, world.cluster, first=first)
        found = summarise(result, world.costs, world.cluster, first=first)

        assert least.mean_latency_s <= found.mean_latency_s * (1 + 1e-9)
        assert least.makespan_s <= found.makespan_s * (1 + 1e-9)


@often
@given(any_world)
def test_numbers_of_a_summary_hang_together(world: World) -> None:
    """Percentiles are in order, shares are shares, and nothing is not a number."""
    found = summarise(run(world), world.costs, world.cluster)

    assert found.p50_latency_s <= found.p95_latency_s <= found.p99_latency_s
    assert found.p99_latency_s <= found.max_latency_s <= found.makespan_s
    assert 0 < found.utilisation <= 1 + 1e-9
    assert 0 < found.jain <= 1 + 1e-9
    assert all(value == value for value in asdict(found).values())  # noqa: PLR0124 -- NaN is not

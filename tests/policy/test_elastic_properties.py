from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from random_clusters import MODELS, SHAPES, S, Scene, scenes
from worlds import applied

from ddit_batch.cost_model import Cost
from ddit_batch.job import JobId, Phase, WorkerName
from ddit_batch.policy.elastic_dops import Shares
from ddit_batch.policy.elastic_rank import Ranked, rank
from ddit_batch.scheduler.commands import Tell
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.snapshot import Instruction, JobView, Snapshot, Whereabouts, WorkerView

often = settings(max_examples=300)
UNBOUND = Limits(look_ahead=100, decode_backlog=100, max_worker_losses=100)
Plan = Mapping[JobId, tuple[WorkerName, ...]]


def able(world: Snapshot) -> dict[WorkerName, WorkerView]:
    """The DiT workers that may be given work."""
    return {w.name: w for w in world.workers if w.phase is Phase.DIT and not w.draining}


def is_movable(job: JobView) -> bool:
    """Denoised, or waiting to be, and wanted."""
    if job.cancel_requested or job.state not in {S.DENOISING, S.ENCODED}:
        return False
    return job.state is S.DENOISING or (not job.group and job.message is Whereabouts.NONE)


def movable(world: Snapshot) -> list[JobView]:
    """What a decision is about."""
    return [job for job in world.jobs if is_movable(job)]


def free(world: Snapshot, target: Plan) -> dict[WorkerName, WorkerView]:
    """The workers that neither decode, in this plan or already, nor are anybody's for good."""
    fixed = [job for job in world.jobs if not is_movable(job)]
    busy = {name for job in fixed for name in (*job.group, *job.next_group)}
    busy |= {name for job in fixed for name in target.get(job.job_id, ())}
    return {name: worker for name, worker in able(world).items() if name not in busy}


def idle(world: Snapshot, target: Plan) -> list[WorkerView]:
    """The free workers that the plan gives to nobody."""
    given_away = {name for group in target.values() for name in group}
    return [worker for name, worker in free(world, target).items() if name not in given_away]


def cost_of(scene: Scene, job: JobView) -> Cost:
    return scene.policy.costs.cost(job.model, job.shape)


def left_s(scene: Scene, job: JobView, dop: int) -> float:
    """Seconds to the job's end with so many workers, as the policy predicts them."""
    return Ranked(job, cost_of(scene, job), scene.world.now_s).left_s(dop)


def key(entry: Ranked) -> tuple[float, ...]:
    """Its place in the order, as it is told: the smallest comes first."""
    job = entry.job
    if entry.is_overdue:
        return (0, job.arrived_s, job.seq)
    return (1, -job.priority, entry.turn, entry.size, job.seq)


def weights(scene: Scene, world: Snapshot) -> dict[JobId, tuple[float, ...]]:
    """What each job's place and width are decided by, to the last bit."""
    ranked = rank(world.jobs, world, scene.policy.costs, scene.policy.tuning)
    return {entry.job.job_id: (*key(entry), entry.width_weight) for entry in ranked}


def is_overdue(scene: Scene, job: JobView) -> bool:
    """The stated rule: here for ``patience`` times the whole job's seconds at dop 1."""
    cost = cost_of(scene, job)
    whole_s = job.steps * cost.at(1) + cost.decode_s
    return scene.world.now_s - job.arrived_s > scene.policy.tuning.patience * whole_s


def loses_some(scene: Scene, job: JobView) -> bool:
    """Whether a running job must first give up some of its group before others can come."""
    here = free(scene.world, scene.policy.plan(scene.world))
    return not here.keys() >= set(job.group) or not set(job.next_group) >= set(job.group)


@often
@given(scenes)
def test_no_worker_is_given_twice(scene: Scene) -> None:
    """Nor one that is gone, drains, or belongs to a job that is left alone."""
    target = scene.policy.plan(scene.world)
    names = [name for group in target.values() for name in group]
    jobs = {job.job_id: job for job in scene.world.jobs}

    assert len(names) == len(set(names))
    assert able(scene.world).keys() >= set(names)
    for job_id, group in target.items():
        if is_movable(jobs[job_id]):
            assert free(scene.world, target).keys() >= set(group)


@often
@given(scenes)
def test_groups_stay_inside_a_node_at_a_legal_dop(scene: Scene) -> None:
    """On workers that serve the job's model; none is empty."""
    workers, target = able(scene.world), scene.policy.plan(scene.world)

    for job in movable(scene.world):
        group = target.get(job.job_id)
        if group is not None:
            assert len(group) in cost_of(scene, job).dops
            assert len({workers[name].node for name in group}) == 1
            assert all(job.model in workers[name].models for name in group)


@often
@given(scenes)
def test_running_group_grows_or_shrinks_but_does_neither_by_halves(scene: Scene) -> None:
    """Under its leader, a target contains the present group or is contained in it."""
    target = scene.policy.plan(scene.world)

    for job in scene.world.jobs:
        group = target.get(job.job_id, ())
        if job.state is S.DENOISING and group[:1] == job.group[:1]:
            assert set(group) <= set(job.group) or set(group) >= set(job.group)


@often
@given(scenes)
def test_jobs_that_cannot_be_changed_are_left_alone(scene: Scene) -> None:
    """Cancelled, sent and decoding ones have what they had, and nobody else gets it."""
    target = scene.policy.plan(scene.world)

    for job in scene.world.jobs:
        if not is_movable(job) and job.state is not S.DENOISED:
            assert set(target.get(job.job_id, ())) <= set(job.next_group)
        if not is_movable(job) and job.group:
            others = {n for other, group in target.items() if other != job.job_id for n in group}
            assert not others & {*job.group, *job.next_group}


@often
@given(scenes)
def test_decode_preempts_nobody(scene: Scene) -> None:
    """A denoised job is placed on an idle worker, or on one that a wider group can spare."""
    target = scene.policy.plan(scene.world)
    leaders = {job.group[0] for job in movable(scene.world) if job.group}

    for job in scene.world.jobs:
        if job.state is S.DENOISED and not job.group:
            assert not leaders & set(target.get(job.job_id, ()))


@often
@given(scenes)
def test_nobody_waits_beside_an_idle_worker(scene: Scene) -> None:
    """A job without workers finds none in the plan that serves its model."""
    target = scene.policy.plan(scene.world)
    unused = idle(scene.world, target)

    for job in movable(scene.world):
        if job.job_id not in target:
            assert not any(job.model in worker.models for worker in unused)


@often
@given(scenes)
def test_no_worker_idles_where_it_would_help(scene: Scene) -> None:
    """No job would end sooner, by as much as makes a resize worth it, with idle ones of its node.

    A resize is worth ``min_gain_steps`` of the present steps; a job that starts needs none. A group
    that has to lose a worker first is widened once it has.
    """
    workers, target = able(scene.world), scene.policy.plan(scene.world)
    unused = idle(scene.world, target)

    for job in movable(scene.world):
        group = target.get(job.job_id, ())
        if not group or loses_some(scene, job):
            continue
        here = (workers[group[0]].node, workers[group[0]].models)
        most = len(group) + sum((worker.node, worker.models) == here for worker in unused)
        stays = bool(job.next_group) and group[0] == job.group[0]
        cost = cost_of(scene, job)
        hardly_s = 0.0
        if stays:
            there = free(scene.world, target)
            present = list(takewhile(there.__contains__, job.next_group))
            present_s = cost.at(cost.widest(len(present)))
            hardly_s = scene.policy.tuning.min_gain_steps * present_s
        for dop in cost.dops:
            if len(group) < dop <= most:
                saved_s = left_s(scene, job, len(group)) - left_s(scene, job, dop)
                assert saved_s <= hardly_s + 1e-9


@often
@given(scenes)
def test_no_node_idles_where_a_job_of_another_would_gain(scene: Scene) -> None:
    """By more than handing it over costs: ``hand_over_s`` and ``min_gain_steps`` of its steps."""
    workers, target = able(scene.world), scene.policy.plan(scene.world)
    tuning = scene.policy.tuning

    for job in movable(scene.world):
        group = target.get(job.job_id, ())
        if not group or loses_some(scene, job):
            continue
        cost = cost_of(scene, job)
        now_s = left_s(scene, job, len(group))
        hardly_s = tuning.min_gain_steps * cost.at(len(group)) + tuning.hand_over_s
        for node in {worker.node for worker in able(scene.world).values()}:
            there = [w for w in idle(scene.world, target) if w.node == node]
            serving = sum(job.model in worker.models for worker in there)
            for dop in cost.dops:
                if workers[group[0]].node != node and len(group) < dop <= serving:
                    assert now_s - left_s(scene, job, dop) <= hardly_s + 1e-9


@often
@given(scenes)
def test_overdue_job_waits_for_none_but_earlier_overdue_ones(scene: Scene) -> None:
    """Left out, it finds as many of them as there are workers that it could have."""
    target = scene.policy.plan(scene.world)
    overdue = [job for job in movable(scene.world) if is_overdue(scene, job)]

    for job in overdue:
        if job.job_id not in target:
            serving = [w for w in free(scene.world, target).values() if job.model in w.models]
            earlier = [other for other in overdue if other.arrived_s <= job.arrived_s]
            assert len(earlier) - 1 >= len(serving)


@often
@given(scenes, st.integers(0, 2**32))
def test_plan_does_not_depend_on_the_order_of_its_input(scene: Scene, seed: int) -> None:
    """Nor does asking again change anything; nor do weights, which are sums over jobs."""
    world, policy = scene.world, scene.policy
    jobs, workers, batches = list(world.jobs), list(world.workers), list(world.batches)
    for things in (jobs, workers, batches):
        Random(seed).shuffle(things)
    other = replace(world, jobs=tuple(jobs), workers=tuple(workers), batches=tuple(batches))

    assert dict(policy.plan(other)) == dict(policy.plan(world)) == dict(policy.plan(world))
    assert policy.sequence(other, jobs) == policy.sequence(world, world.jobs)
    assert weights(scene, other) == weights(scene, world)


@often
@given(scene=scenes, alike=st.booleans())
def test_order_is_total_and_by_its_key(*, scene: Scene, alike: bool) -> None:
    """Whichever parts of the key differ among the jobs, and if none but the arrival does."""
    jobs = list(reversed(scene.world.jobs))
    if alike:
        same = {"batch_id": "b", "priority": 0, "model": MODELS[0], "shape": SHAPES[0]}
        same |= {"steps": 60, "step": 0}
        jobs = [replace(job, **same) for job in jobs]
    ranked = rank(jobs, scene.world, scene.policy.costs, scene.policy.tuning)
    keys = [key(entry) for entry in ranked]

    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@often
@given(scenes, st.floats(0.0, 50.0), st.integers(1, 8))
def test_dop_of_each_job_is_the_one_of_least_cost(scene: Scene, price: float, most: int) -> None:
    """By the rule as it is told: its present dop is a little better, joining workers wait."""
    place, ranked = scene.policy.prepared(scene.world)
    tuning = scene.policy.tuning
    rooms, load = place.idle_workers(), scene.world.recent.load
    shares = Shares(rooms, tuning, load, scene.policy.least_cost)

    for entry in ranked:
        cost, current = entry.cost, entry.current
        totals = {}
        for dop in cost.dops:
            total = entry.left_s(dop) * (entry.width_weight + price * dop)
            if dop == current <= cost.fastest_dop:
                total /= tuning.keep
            elif 0 < current < dop:
                present_s = cost.at(cost.widest(current))
                total += price * 0.5 * tuning.idle_step * present_s * (dop - current)
            if dop <= most:
                totals[dop] = total

        found = shares._best_dop(entry, most, price)
        assert totals[found] <= min(totals.values()) * (1.0 + 1e-9)


@often
@given(scenes)
def test_core_can_carry_every_plan_out(scene: Scene) -> None:
    """Afterwards, nobody who works or was told to has a worker that another has."""
    world, policy = scene.world, scene.policy
    for _ in range(3):
        world = applied(world, decide(world, policy, UNBOUND))

        taken = Counter(
            name
            for job in world.jobs
            for name in {*job.group, *(job.pending or ())}
            if name in able(world)
        )
        assert all(count == 1 for count in taken.values())


@often
@given(scenes)
def test_nobody_is_told_what_he_was_told_already(scene: Scene) -> None:
    """What a running job has, or will have from its next step boundary, is not said again."""
    for command in decide(scene.world, scene.policy, UNBOUND):
        if isinstance(command, Tell) and command.instruction is not Instruction.CANCEL:
            released = command.instruction is Instruction.RELEASE
            said = () if released else command.group
            assert said != command.job.next_group

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from clusters import clusters
from fake_costs import COSTS
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import applied

from ddit_batch.job import JobState, Phase, WorkerName
from ddit_batch.policy import make_policy
from ddit_batch.policy.base import Policy
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.snapshot import JobView, Snapshot, WorkerView, order_key

S = JobState
FIXED = (
    "static:dop=1",
    "static:dop=2",
    "static:dop=4",
    "partitioned",
    "partitioned:sizes=2/2/4,dops=1/2/4",
    "partitioned:sizes=3/1",
    "dp:groups=fixed",
)
GREEDY = (
    "ddit:order=hungry-first",
    "ddit:order=waiting-first",
    "ddit:decode=group",
    "ddit:promotion=off",
    "dp",
)
PROMOTING = GREEDY[:3]


def some(specs: tuple[str, ...]) -> st.SearchStrategy[Policy]:
    """One of the policies that *specs* name."""
    return st.sampled_from([make_policy(spec, COSTS) for spec in specs])


often = settings(max_examples=50)
policies = some(FIXED + GREEDY)
UNBOUND = Limits(look_ahead=100, decode_backlog=100, max_worker_losses=100)


def able(world: Snapshot) -> dict[WorkerName, WorkerView]:
    """The DiT workers that may be given work."""
    return {w.name: w for w in world.workers if w.phase is Phase.DIT and not w.draining}


def idle(world: Snapshot, policy: Policy) -> list[WorkerView]:
    """The workers that nobody has or shall have."""
    busy = {name for job in world.jobs for name in (*job.group, *(job.pending or ()))}
    busy |= {name for group in policy.plan(world).values() for name in group}
    return [worker for name, worker in able(world).items() if name not in busy]


def most(job: JobView, workers: list[WorkerView]) -> int:
    """The size of the largest group that *workers* could form for a job."""
    serving = [worker.node for worker in workers if job.model in worker.models]
    return max(Counter(serving).values(), default=0)


def left_waiting(world: Snapshot, policy: Policy) -> list[JobView]:
    """The jobs that could start and do not, in order."""
    waiting = [job for job in world.jobs if job.state is S.ENCODED and not job.group]
    target = policy.plan(world)
    return sorted((job for job in waiting if job.job_id not in target), key=order_key)


def started(world: Snapshot, policy: Policy) -> list[tuple[JobView, tuple[WorkerName, ...]]]:
    """The jobs that get their first workers, with those."""
    waiting = {job.job_id: job for job in world.jobs if job.state is S.ENCODED and not job.group}
    target = policy.plan(world)
    return [(job, target[job_id]) for job_id, job in waiting.items() if job_id in target]


@often
@given(clusters(), policies)
def test_no_worker_is_in_two_groups(world: Snapshot, policy: Policy) -> None:
    """Nor twice in one; nor in one while a job that gives its workers back still has it."""
    target = policy.plan(world)
    names = [name for group in target.values() for name in group]
    given_back = {n for job in world.jobs if job.job_id not in target for n in job.group}

    assert len(names) == len(set(names))
    assert not given_back.intersection(names)


@often
@given(clusters(), policies)
def test_groups_are_of_live_workers_of_one_node(world: Snapshot, policy: Policy) -> None:
    """Neither gone nor draining; no group is empty."""
    workers = able(world)

    for group in policy.plan(world).values():
        assert group
        assert len({workers[name].node for name in group}) == 1


@often
@given(clusters(), policies)
def test_jobs_start_at_a_legal_dop_on_workers_that_serve_them(
    world: Snapshot, policy: Policy
) -> None:
    """Legal for model and shape."""
    workers = able(world)

    for job, group in started(world, policy):
        assert len(group) in COSTS.cost(job.model, job.shape).dops
        assert all(job.model in workers[name].models for name in group)


@often
@given(clusters(), policies)
def test_running_job_grows_or_shrinks_but_does_neither_by_halves(
    world: Snapshot, policy: Policy
) -> None:
    """Its target contains its group or is contained in it, at a legal dop, under its leader."""
    target = policy.plan(world)

    for job in world.jobs:
        if job.state is S.DENOISING and job.job_id in target:
            group = target[job.job_id]
            assert group[0] == job.group[0]
            assert set(group) <= set(job.group) or set(group) >= set(job.group)
            assert len(group) in COSTS.cost(job.model, job.shape).dops


@often
@given(clusters(), policies)
def test_running_job_is_not_shrunk(world: Snapshot, policy: Policy) -> None:
    """As long as its workers live, it keeps those that it has and those that it was promised."""
    workers, target = able(world), policy.plan(world)

    for job in world.jobs:
        if job.state is S.DENOISING and workers.keys() >= {*job.group, *job.next_group}:
            assert target.get(job.job_id, ())[: len(job.next_group)] == job.next_group


@often
@given(clusters(), policies)
def test_nobody_is_given_more_than_the_optimal_dop(world: Snapshot, policy: Policy) -> None:
    """Unless static was told to; what a job has already, it keeps."""
    target = policy.plan(world)

    for job in world.jobs:
        if job.state in {S.ENCODED, S.DENOISING} and not policy.name.startswith("static"):
            best = COSTS.cost(job.model, job.shape).optimal_dop
            assert len(target.get(job.job_id, ())) <= max(best, len(job.next_group))


@often
@given(clusters(), policies)
def test_what_has_begun_to_decode_keeps_its_workers(world: Snapshot, policy: Policy) -> None:
    """As do jobs that were sent to their leader."""
    workers, target = able(world), policy.plan(world)

    for job in world.jobs:
        kept = job.state is S.DECODING or (job.state is S.ENCODED and job.group)
        if kept and workers.keys() >= set(job.group):
            assert target[job.job_id] == job.group


@often
@given(clusters(), policies)
def test_denoised_jobs_are_placed_where_they_were(world: Snapshot, policy: Policy) -> None:
    """On their leader, or the whole group, as far as nobody else has them by now."""
    workers, target = able(world), policy.plan(world)
    queues = [w.models for w in world.workers if w.phase is Phase.VAE]
    alone = policy.name.startswith("ddit") and "decode=group" not in policy.name
    had = {name for job in world.jobs for name in (*job.group, *(job.pending or ()))}

    for job in world.jobs:
        group = target.get(job.job_id, ())
        if job.state is not S.DENOISED or not group:
            continue
        assert not any(job.model in models for models in queues)
        assert all(workers[n].decodes and job.model in workers[n].models for n in group)
        assert len(group) == 1 or not alone
        assert set(group) <= set(job.last_group) or len(group) == 1
        others = {n for j in world.jobs if j is not job for n in target.get(j.job_id, ())}
        leader = job.last_group[0] if job.last_group else None
        if leader in workers and leader not in had | others and workers[leader].decodes:
            assert group[0] == leader or job.model not in workers[leader].models


@often
@given(clusters(), policies)
def test_decoding_comes_before_everything_that_waits(world: Snapshot, policy: Policy) -> None:
    """A denoised job is left out only if no worker that starts or grows another could take it."""
    workers, target = able(world), policy.plan(world)
    queues = [w.models for w in world.workers if w.phase is Phase.VAE]
    fresh = {n for _, group in started(world, policy) for n in group}
    fresh |= {worker.name for worker in idle(world, policy)}

    for job in world.jobs:
        served = any(job.model in models for models in queues)
        if job.state is S.DENOISED and job.job_id not in target and not served:
            assert not any(workers[n].decodes and job.model in workers[n].models for n in fresh)


@often
@given(clusters(), some(GREEDY))
def test_no_worker_idles_beside_a_job_that_waits(world: Snapshot, policy: Policy) -> None:
    """Where jobs start on what there is."""
    for job in left_waiting(world, policy):
        assert most(job, idle(world, policy)) == 0


@often
@given(clusters(), some(PROMOTING))
def test_no_worker_idles_beside_a_hungry_job(world: Snapshot, policy: Policy) -> None:
    """One that runs below its optimal dop, whose node has enough for the next legal one."""
    workers, target = able(world), policy.plan(world)

    for job in world.jobs:
        group = target.get(job.job_id, ())
        whole = workers.keys() >= set(job.group) and job.pending is None
        if job.state is S.DENOISING and whole and not job.cancel_requested:
            cost = COSTS.cost(job.model, job.shape)
            near = [w for w in idle(world, policy) if w.node == workers[group[0]].node]
            best = cost.widest(min(cost.optimal_dop, len(group) + most(job, near)))
            assert len(group) >= best


@often
@given(clusters(), st.sampled_from([1, 2, 4]))
def test_static_leaves_nobody_out_whose_workers_are_idle(world: Snapshot, dop: int) -> None:
    """The first that waits has too few; nobody else holds it up."""
    policy = make_policy(f"static:dop={dop}", COSTS)
    runnable = [job for job in left_waiting(world, policy) if most(job, [*able(world).values()])]

    for job in runnable[:1]:
        wanted = COSTS.cost(job.model, job.shape).widest(dop)
        possible = most(job, [*able(world).values()]) >= wanted
        assert not possible or most(job, idle(world, policy)) < wanted


@often
@given(clusters())
def test_static_job_is_not_overtaken_on_workers_that_it_could_use(world: Snapshot) -> None:
    """So it cannot starve: who comes later starts only where it could not."""
    policy = make_policy("static:dop=4", COSTS)
    workers = able(world)

    for job in left_waiting(world, policy):
        if most(job, [*workers.values()]) >= COSTS.cost(job.model, job.shape).widest(4):
            for later, group in started(world, policy):
                if order_key(later) > order_key(job):
                    assert not any(job.model in workers[name].models for name in group)


@often
@given(clusters())
def test_ddit_without_promotion_and_decoupling_is_dp(world: Snapshot) -> None:
    """What the paper adds is these two."""
    bare = make_policy("ddit:promotion=off,decode=group", COSTS)

    assert bare.plan(world) == make_policy("dp", COSTS).plan(world)


@often
@given(clusters())
def test_classes_do_not_share_workers(world: Snapshot) -> None:
    """Of one model, where every class has some."""
    policy = make_policy("partitioned:sizes=1/1/1", COSTS)
    alike = replace(
        world,
        workers=tuple(replace(w, models=frozenset({"open-sora"})) for w in world.workers),
        jobs=tuple(j for j in world.jobs if j.state is S.ENCODED and not j.group),
    )
    names = sorted(able(alike), key=lambda name: (able(alike)[name].node, name))
    third = len(names) / 3

    for job, group in started(alike, policy):
        number = list(COSTS.shapes("open-sora")).index(job.shape)
        if len(names) >= 3:
            own = names[int(number * third) : int((number + 1) * third)]
            assert set(group) <= set(own)


@often
@given(clusters(), policies, st.integers(0, 2**32))
def test_plan_does_not_depend_on_the_order_of_its_input(
    world: Snapshot, policy: Policy, seed: int
) -> None:
    """Nor on the origin of the clock; nor does asking again change anything."""
    jobs, workers = list(world.jobs), list(world.workers)
    Random(seed).shuffle(jobs)
    Random(seed).shuffle(workers)
    other = replace(world, jobs=tuple(jobs), workers=tuple(workers), now_s=world.now_s + 1e6)

    assert dict(policy.plan(other)) == dict(policy.plan(world)) == dict(policy.plan(world))
    assert policy.sequence(other, jobs) == policy.sequence(world, world.jobs)


@often
@given(clusters(), policies)
def test_core_can_carry_every_plan_out(world: Snapshot, policy: Policy) -> None:
    """Afterwards nobody has a worker that another has, and deciding again takes nothing back."""
    after = applied(world, decide(world, policy, UNBOUND))
    live = able(after)
    taken = Counter(
        name
        for job in after.jobs
        for name in {*job.group, *(job.pending or ())}
        if name in live and (job.held or job.job_id in policy.plan(after))
    )

    assert all(count == 1 for count in taken.values())
    settled = applied(after, decide(after, policy, UNBOUND))
    then = {job.job_id: job.next_group for job in settled.jobs}
    for job in after.jobs:
        assert then[job.job_id][: len(job.next_group)] == job.next_group

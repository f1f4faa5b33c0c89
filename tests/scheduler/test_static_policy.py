from __future__ import annotations

from fake_costs import COSTS
from worlds import a_held_job, a_job, a_sent_job, a_worker, a_world

from ddit_batch.job import JobState, Phase
from ddit_batch.policy import make_policy
from ddit_batch.policy.base import Policy
from ddit_batch.policy.static import Static
from ddit_batch.snapshot import Snapshot

S = JobState


def plan(dop: int, *things: object) -> dict[int, list[int]]:
    """The numbers of the workers that each job should have, by the job's number."""
    decisions = Static(costs=COSTS, dop=dop).plan(a_world(*things))
    return {
        int(job[-6:]): [int(name.partition("-")[2].partition("@")[0]) for name in group]
        for job, group in decisions.items()
    }


def encoded(*numbers: int, **changes: object) -> list[object]:
    return [a_job(number, S.ENCODED, **changes) for number in numbers]


def workers(count: int, **changes: object) -> list[object]:
    return [a_worker(number, **changes) for number in range(count)]


def test_jobs_are_taken_in_order_of_arrival() -> None:
    """First come, first served."""
    assert plan(1, *workers(2), *encoded(3, 1, 2)) == {1: [0], 2: [1]}


def test_urgent_jobs_are_taken_first() -> None:
    """Priority goes before arrival."""
    jobs = [*encoded(1, 2), *encoded(3, priority=1)]

    assert plan(1, *workers(2), *jobs) == {3: [0], 1: [1]}


def test_every_job_gets_k_workers() -> None:
    """No more if there are more, none if there are fewer."""
    assert plan(2, *workers(5), *encoded(1, 2, 3)) == {1: [0, 1], 2: [2, 3]}


def test_groups_stay_inside_a_node() -> None:
    """Four workers, but no three of them together."""
    left, right = workers(2, node="left"), [a_worker(n, node="right") for n in (2, 3)]

    mixed = [a_worker(n, node="left" if n % 2 else "right") for n in range(4)]

    assert plan(2, *left, *right, *encoded(1, 2)) == {1: [0, 1], 2: [2, 3]}
    assert plan(2, *mixed, *encoded(1, 2)) == {1: [1, 3], 2: [0, 2]}
    assert plan(3, *left, *right, *encoded(1)) == {}


def test_a_node_with_too_few_idle_workers_is_passed_over() -> None:
    """The next node may have enough."""
    left, right = workers(2, node="left"), [a_worker(n, node="right") for n in (2, 3)]
    running = a_held_job(9, S.DENOISING, left[0])

    assert plan(2, *left, *right, running, *encoded(1)) == {9: [0], 1: [2, 3]}


def test_groups_are_kept() -> None:
    """Nothing is ever resized: neither what runs, at any size, nor what was sent to its leader."""
    crew = workers(4)
    running = a_held_job(1, S.DENOISING, crew[2], crew[0])
    sent = a_sent_job(2, S.ENCODED, crew[3].name)

    assert plan(1, *crew, running, sent, *encoded(3, 4)) == {1: [2, 0], 2: [3], 3: [1]}


def test_group_with_a_draining_worker_is_given_up() -> None:
    """The rest of the group is not idle before it has let go."""
    crew = [a_worker(0), a_worker(1, draining=True), a_worker(2)]
    running = a_held_job(1, S.DENOISING, crew[0], crew[1])

    assert plan(1, *crew, running, *encoded(2, 3)) == {2: [2]}


def test_job_that_waits_for_its_workers_holds_up_those_behind_it() -> None:
    """Idle workers wait with it, though others could use them: so it cannot starve."""
    either = a_worker(0, models=frozenset({"large", "tiny-wan"}))
    busy, idle = a_worker(1, models=frozenset({"large"})), a_worker(2)
    running = a_held_job(9, S.DENOISING, busy, model="large")
    jobs = [*encoded(1, model="large"), *encoded(2)]

    assert plan(2, either, busy, idle, running, *jobs) == {9: [1]}
    assert plan(2, either, busy, idle, running, *jobs[1:]) == {9: [1], 2: [0, 2]}


def test_job_holds_up_only_those_that_could_use_the_same_workers() -> None:
    """Workers that cannot serve its model do not wait with it."""
    large, small = a_worker(0, models=frozenset({"large"})), a_worker(1)
    running = a_held_job(9, S.DENOISING, large, model="large")
    jobs = [*encoded(1, model="large"), *encoded(2)]

    assert plan(1, large, small, running, *jobs) == {9: [0], 2: [1]}


def test_job_whose_model_nobody_serves_holds_nobody_up() -> None:
    """It would wait for ever."""
    assert plan(1, *workers(1), *encoded(1, model="other"), *encoded(2)) == {2: [0]}


def test_job_that_could_never_get_k_workers_holds_nobody_up() -> None:
    """One worker serves its model, and a group has two."""
    either = a_worker(0, models=frozenset({"large", "tiny-wan"}))
    jobs = [*encoded(1, model="large"), *encoded(2)]

    assert plan(2, either, a_worker(1), *jobs) == {2: [0, 1]}


def test_only_live_workers_of_the_phase_are_used() -> None:
    """Neither draining ones nor those of other phases."""
    crew = [a_worker(0, draining=True), a_worker(1, Phase.ENCODE), a_worker(2, Phase.VAE)]

    assert plan(1, *crew, *encoded(1)) == {}


def test_jobs_that_are_not_encoded_get_nothing() -> None:
    """Nor those that are beyond DiT."""
    jobs = [a_job(n, state) for n, state in enumerate(S) if state is not S.ENCODED]

    assert plan(1, *workers(3), *jobs) == {}


def test_plan_does_not_depend_on_the_order_of_its_input() -> None:
    """Ties are broken by priority, arrival, node and name, never by position."""
    crew, jobs = workers(4), [*encoded(1, 2, 3), *encoded(4, priority=2)]

    assert plan(2, *crew, *jobs) == plan(2, *reversed(crew), *reversed(jobs))


def test_policy_is_chosen_by_name() -> None:
    """The name in the settings is the policy's own."""
    policy: Policy = make_policy("static", COSTS)

    assert (policy.name, policy) == ("static:dop=1", Static(costs=COSTS, dop=1))
    assert (
        policy.plan(
            Snapshot(now_s=0, jobs=(), workers=(), waiting_to_decode=0, may_lose_workers=True)
        )
        == {}
    )

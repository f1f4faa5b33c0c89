from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from clusters import BOTH, OTHER, SORA, crew, denoised, running, waiting
from fake_costs import COSTS, P144, P240, P360, FakeCosts, a_cost
from worlds import a_sent_job, a_world

from ddit_batch.job import JobState, WorkerName
from ddit_batch.policy.elastic import Elastic
from ddit_batch.policy.elastic_dops import weights_behind
from ddit_batch.policy.elastic_rank import Ranked
from ddit_batch.snapshot import BatchView, JobView, Recent, WorkerView

CALM, BUSY = Recent(load=0.0), Recent(load=0.95)
ELASTIC = Elastic(costs=COSTS)  # type: ignore[arg-type]
WORK_360_S = 30 * 0.6154 + 0.87
"""GPU-seconds of a whole 360p job at dop 1."""


def plan(
    *things: JobView | WorkerView, policy: Elastic = ELASTIC, **world: object
) -> dict[int, list[int]]:
    """The numbers of the workers that each job should have, by the job's number."""
    return {
        int(job[-6:]): [int(name.partition("-")[2].partition("@")[0]) for name in group]
        for job, group in policy.plan(replace(a_world(*things), **world)).items()
    }


def dops(*things: JobView | WorkerView, **world: object) -> dict[int, int]:
    """How many each job should have."""
    return {job: len(group) for job, group in plan(*things, **world).items()}


def ranked(*things: JobView | WorkerView, **world: object) -> list[Ranked]:
    """The jobs in order, with what each weighs."""
    return ELASTIC.prepared(replace(a_world(*things), **world))[1]


def node(name: str, first: int, count: int, models: Sequence[str] = BOTH) -> list[WorkerView]:
    """*count* workers of a node of their own, numbered from *first*."""
    more = crew(first + count)[first:]
    return [replace(worker, node=name, models=frozenset(models)) for worker in more]


# how many


def test_job_that_is_alone_gets_its_fastest_dop() -> None:
    """Nobody else would use the workers: 1 for 144p, 4 for 240p (8 is slower), 8 for 360p."""
    assert dops(*crew(8), waiting(1, P144)) == {1: 1}
    assert dops(*crew(8), waiting(1, P240)) == {1: 4}
    assert dops(*crew(8), waiting(1, P360)) == {1: 8}


def test_many_jobs_get_a_worker_each_the_shortest_first() -> None:
    """Three workers for six jobs: both 144p, and of the 240p the one that came first."""
    shapes = [P360, P240, P144, P360, P144, P240]
    jobs = [waiting(number, shape) for number, shape in enumerate(shapes, 1)]

    assert plan(*crew(3), *jobs) == {3: [0], 5: [1], 2: [2]}


def test_running_group_shrinks_when_others_come() -> None:
    """From eight to four for one, from eight to one for seven: its leader stays."""
    workers = crew(8)
    wide = running(1, P360, *workers, step=3)

    assert plan(*workers, wide, waiting(2, P360)) == {1: [0, 1, 2, 3], 2: [4, 5, 6, 7]}
    seven = [waiting(number, P360) for number in range(2, 9)]
    assert dops(*workers, wide, *seven, recent=BUSY) == dict.fromkeys(range(1, 9), 1)


def test_running_group_widens_when_workers_idle() -> None:
    """Beyond the paper's B, which is 4, to the fastest dop; its leader leads on."""
    assert plan(*crew(8), running(1, P360, crew(8)[3], step=3)) == {1: [3, 0, 1, 2, 4, 5, 6, 7]}


def test_running_group_does_not_widen_for_a_gain_of_less_than_a_few_steps() -> None:
    """Two steps would take 1 s less with eight workers, and 2.6 present steps are 1.6 s.

    Another job behind it makes workers dear enough that it is not widened in its turn.
    """
    workers = crew(8)
    other = running(2, P144, workers[0])

    nearly_done = running(1, P360, workers[3], step=28)
    half_done = running(1, P360, workers[3], step=15)

    assert dops(*workers, nearly_done, other, recent=BUSY) == {1: 1, 2: 1}
    assert dops(*workers, half_done, other, recent=BUSY) == {1: 4, 2: 1}


def test_busy_cluster_runs_narrower_groups_than_a_calm_one() -> None:
    """The price of a GPU-second rises with the load: the same jobs, all waiting at once."""
    jobs = [waiting(number, P360) for number in range(1, 6)]

    calm = dops(*crew(8), *jobs, recent=CALM)
    busy = dops(*crew(8), *jobs, recent=BUSY)

    assert sum(sorted(busy.values())[:2]) <= sum(sorted(calm.values())[:2])
    assert len(busy) == 5
    assert calm[1] > busy[1]


def test_nobody_is_widened_to_a_slower_dop() -> None:
    """A group that another policy made too wide shrinks to its fastest, though others idle.

    Nor is it left there because a resize costs something: 3.1 s a step for 3.
    """
    workers = crew(8)
    wide = running(1, P360, *workers, step=3)

    for at_8_s in (9.0, 3.1):
        cost = a_cost(8.0, 5.0, 3.0, at_8_s, optimal=2)
        policy = Elastic(costs=FakeCosts(table={(SORA, P360): cost}))  # type: ignore[arg-type]
        assert plan(*workers, wide, policy=policy) == {1: [0, 1, 2, 3]}


def test_newcomer_takes_its_workers_from_the_last_in_order() -> None:
    """Of two nodes that are full, the one whose job has more left makes room, whichever it is."""
    left, right = node("left", 0, 8), node("right", 8, 8)
    for soon, late in ((left, right), (right, left)):
        nearly_done, begun = running(1, P360, *soon, step=20), running(2, P360, *late, step=3)

        given = dops(*left, *right, nearly_done, begun, waiting(3, P144), recent=BUSY)

        assert given[1] == 8
        assert given[2] < 8
        assert given[3] == 1


def test_newcomer_goes_to_the_node_where_workers_do_nothing_now() -> None:
    """Four workers of each node are in nobody's way; on one a job has yet to let them go."""
    left, right = node("left", 0, 8), node("right", 8, 8)
    for shrinking, settled in ((left, right), (right, left)):
        kept = tuple(worker.name for worker in shrinking[:4])
        to_shrink = running(1, P360, *shrinking, step=3, pending=kept)
        other = running(2, P360, *settled[:4], step=3)

        given = plan(*left, *right, to_shrink, other, waiting(3, P360, arrived_s=-5.0))

        numbers = [int(worker.name.partition("-")[2].partition("@")[0]) for worker in settled]
        assert set(given[3]) <= set(numbers[4:])


def test_newcomers_are_given_workers_that_do_nothing_before_such_as_must_be_waited_for() -> None:
    """A group of four shrinks to two to make room for six; the first four start at once."""
    workers = crew(8)
    wide = running(1, P360, *workers[:4], step=3)
    newcomers = [waiting(number, P144) for number in range(2, 8)]

    given = plan(*workers, wide, *newcomers, recent=BUSY)

    assert [given[number] for number in range(1, 8)] == [[0, 1], [4], [5], [6], [7], [2], [3]]


def test_seconds_of_a_large_job_count_more() -> None:
    """It is the one that will be late."""
    weights = [
        entry.width_weight
        for shape in (P144, P240, P360)
        for entry in ranked(waiting(1, shape), recent=Recent(slow_s=1e3))
    ]

    assert weights == sorted(set(weights))


def test_what_a_job_costs_those_behind_counts_more_inside_its_batch() -> None:
    """They are as late as it is, and their user waits for all: nobody there goes wide for speed."""
    slow = Recent(load=0.5, slow_s=10.0)

    def width(*, together: bool) -> int:
        batches = {number: "a" if together else f"b{number}" for number in range(1, 9)}
        jobs = [
            waiting(number, P360, arrived_s=-12.0, batch_id=batch_id)
            for number, batch_id in batches.items()
        ]
        return dops(*crew(8), *jobs, recent=slow)[1]

    assert width(together=True) < width(together=False)


def test_late_job_counts_less_for_those_before_it_than_for_itself() -> None:
    """What helps it is a wide group of its own; it is worth more than one in time all the same."""
    jobs = [waiting(1, P144), waiting(2, P360, arrived_s=-55.0, batch_id="late")]
    entries = ranked(*jobs, recent=Recent(load=0.9, slow_s=30.0))
    first, late = sorted(entries, key=lambda entry: entry.job.seq)

    behind, none = weights_behind([first, late], 0.15)
    assert 1.0 < behind < late.width_weight
    assert none == 0.0


def test_a_job_of_the_same_batch_counts_in_full_for_those_before_it() -> None:
    """With jobs of other batches around it or without."""
    slow = Recent(load=0.9, slow_s=30.0)
    batch = [waiting(number, P360, arrived_s=-55.0, batch_id="a") for number in (1, 2)]
    other = waiting(3, P360, batch_id="b")

    alone = ranked(*batch, recent=slow)
    assert weights_behind(alone, 0.15)[0] == alone[1].width_weight
    mixed = ranked(*batch, other, recent=slow)
    weight = {entry.job.seq: entry.width_weight for entry in mixed}
    assert next(entry.job.seq for entry in mixed) == 1
    expected = weight[2] + 1.0 + 0.15 * (weight[3] - 1.0)
    assert weights_behind(mixed, 0.15)[0] == pytest.approx(expected)


# who first


def test_running_job_is_preempted_for_one_with_less_work_left() -> None:
    """Shortest remaining first: 27 steps of 360p against 30 of 144p, one worker."""
    worker = crew(1)[0]

    assert plan(worker, running(1, P360, worker, step=3), waiting(2, P144)) == {2: [0]}


def test_running_job_is_not_preempted_for_one_with_more_work_left() -> None:
    """What counts is what is left: 360p has one step to go, so 144p waits for its end."""
    worker = crew(1)[0]

    assert plan(worker, running(1, P360, worker, step=29), waiting(2, P144)) == {1: [0]}


def test_later_job_comes_before_a_shorter_one() -> None:
    """Between batches: 19 of 20 ended within 30 s of late, and this one has waited for 55."""
    late = waiting(1, P360, batch_id="late", arrived_s=-55.0)
    short = waiting(2, P240, batch_id="short")

    assert plan(*crew(1), late, short, recent=Recent(load=0.9, slow_s=30.0)) == {1: [0]}
    assert plan(*crew(1), late, short, recent=Recent(load=0.9, slow_s=3e3)) == {2: [0]}


def test_lateness_does_not_change_the_order_inside_a_batch() -> None:
    """Its user wants the whole: the shortest first, whenever it came."""
    jobs = [waiting(1, P360, arrived_s=-55.0), waiting(2, P240)]

    assert plan(*crew(1), *jobs, recent=Recent(load=0.9, slow_s=30.0)) == {2: [0]}


def two_batches() -> list[JobView]:
    """Eight 360p jobs of batch a, then eight of batch b."""
    first = [waiting(number, P360, batch_id="a") for number in range(1, 9)]
    return first + [waiting(number, P360, batch_id="b") for number in range(9, 17)]


def test_batches_of_equal_shares_get_equally_many_workers() -> None:
    """Though all jobs of one came before all of the other."""
    served = plan(*crew(8), *two_batches(), recent=BUSY)

    assert sorted(served) == [1, 2, 3, 4, 9, 10, 11, 12]


def test_workers_go_by_share() -> None:
    """Six to two for shares of three to one."""
    shares = (BatchView(batch_id="a", share=3.0),)

    served = plan(*crew(8), *two_batches(), recent=BUSY, batches=shares)

    assert sorted(served) == [1, 2, 3, 4, 5, 6, 9, 10]


def test_batch_with_a_deadline_gets_the_workers_that_it_needs() -> None:
    """500 GPU-seconds in 100 s are five workers, six with the margin.

    So many of its jobs have the first turn; the two workers that are left go one to each batch.
    """
    deadline = (BatchView(batch_id="b", deadline_s=100.0, work_s=500.0),)

    served = plan(*crew(8), *two_batches(), recent=BUSY, batches=deadline)

    assert sorted(served) == [1, *range(9, 16)]


def test_priority_comes_before_size() -> None:
    """And before turns: a long urgent job of a batch that has its share already."""
    jobs = [*two_batches(), waiting(20, P360, batch_id="a", priority=1)]

    assert plan(*crew(1), *jobs, recent=BUSY) == {20: [0]}
    assert plan(*crew(1), waiting(1, P144), waiting(2, P360, priority=1)) == {2: [0]}


def test_overdue_job_comes_first() -> None:
    """Before shorter and more urgent ones, once it has waited ``patience`` times its work."""
    patience_s = ELASTIC.tuning.patience * WORK_360_S
    urgent = waiting(2, P144, priority=9)

    in_time = waiting(1, P360, arrived_s=-patience_s + 0.1)
    overdue = waiting(1, P360, arrived_s=-patience_s - 0.1)

    assert plan(*crew(1), in_time, urgent) == {2: [0]}
    assert plan(*crew(1), overdue, urgent) == {1: [0]}


def test_overdue_jobs_come_in_order_of_arrival_and_leave_each_other_a_worker() -> None:
    """The first would be faster with both; the second has waited too long as well."""
    long_ago_s = -2 * ELASTIC.tuning.patience * WORK_360_S
    jobs = [
        waiting(1, P144, arrived_s=long_ago_s + 2),
        waiting(2, P360, arrived_s=long_ago_s),
        waiting(3, P360, arrived_s=long_ago_s + 1),
    ]

    assert plan(*crew(2), *jobs, recent=CALM) == {2: [0], 3: [1]}


# who is left alone


def test_leader_decodes_alone_and_the_others_are_free_at_once() -> None:
    """Of four workers, three go to those who wait."""
    workers = crew(4)
    done = denoised(1, P360, workers[2], workers[0], workers[1], workers[3])

    served = plan(*workers, done, *(waiting(number, P144) for number in (2, 3, 4)))

    assert served == {1: [2], 2: [0], 3: [1], 4: [3]}


def test_decode_takes_an_idle_worker_before_one_that_works() -> None:
    """Its leader is gone; the worker with the first name denoises another job."""
    workers = crew(2)

    things = [*workers, running(1, P144, workers[0]), denoised(2, P144)]

    assert plan(*things) == {1: [0], 2: [1]}


def test_decode_takes_a_follower_of_a_wide_group_if_nobody_idles() -> None:
    """Which goes on with a legal number of the others, under its leader."""
    workers = crew(4)

    served = plan(*workers, running(1, P360, *workers), denoised(2, P144, workers[3]))

    assert served == {1: [0, 1], 2: [3]}


def test_decode_waits_where_every_worker_leads() -> None:
    """No job is preempted for it: a worker is free sooner than that would pay."""
    workers = crew(2)
    jobs = [running(n + 1, P360, workers[n]) for n in range(2)]

    assert plan(*workers, *jobs, denoised(3, P144, workers[0])) == {1: [0], 2: [1]}


def test_job_that_was_sent_keeps_its_workers() -> None:
    """Nobody would hear of a change before its leader has claimed it."""
    workers = crew(2)
    names = [worker.name for worker in workers]
    sent = a_sent_job(1, JobState.ENCODED, *names, model=SORA, shape=P360)

    assert plan(*workers, sent, waiting(2, P144)) == {1: [0, 1]}


def test_cancelled_job_keeps_its_workers_until_it_has_stopped() -> None:
    """At its next boundary; the last worker serves who waits."""
    workers = crew(3)
    cancelled = running(1, P360, *workers[:2], cancel_requested=True)

    assert plan(*workers, cancelled, waiting(2, P144), waiting(3, P144)) == {1: [0, 1], 2: [2]}


# what is lost


def test_job_of_a_draining_leader_goes_on_elsewhere() -> None:
    """Its target has another leader: it is given back, and starts again on those."""
    first, *others = crew(3)

    drains = replace(first, draining=True)

    assert plan(drains, *others, running(1, P360, first, others[0], step=3)) == {1: [1, 2]}


def test_group_that_lost_a_follower_goes_on_without_it_before_others_join() -> None:
    """A target with one worker less and another more would be neither shrinking nor growing."""
    workers = crew(4)
    left = [workers[0], *workers[2:]]

    assert plan(*left, running(1, P360, *workers[:2], step=3)) == {1: [0]}
    assert plan(*left, running(1, P360, workers[0], step=3)) == {1: [0, 2]}


def test_group_that_is_to_shrink_takes_back_only_its_own() -> None:
    """It has four and was told to have one; eight would be faster, but that is not to shrink."""
    workers = crew(8)
    told = running(1, P360, *workers[4:], pending=(workers[4].name,))

    assert plan(*workers, told) == {1: [4, 5, 6, 7]}


def test_job_that_is_to_stop_goes_on_if_it_is_wanted_again() -> None:
    """Those for whom it was to stop are gone: its target contains its group."""
    workers = crew(4)
    told = running(1, P360, workers[3], workers[1], pending=())

    served = plan(*workers, told)

    assert served[1][0] == 3
    assert set(served[1]) >= {1, 3}


# where


def test_models_are_served_where_they_can_be() -> None:
    """A worker for the one, a worker for the other; who serves neither gets nothing."""
    one, other = node("left", 0, 1, [SORA]), node("right", 1, 1, [OTHER])
    jobs = [waiting(1, P360), waiting(2, P360), replace(waiting(3, P360), model=OTHER)]

    assert plan(*one, *other, *jobs) == {1: [0], 3: [1]}
    assert plan(*one, replace(waiting(1, P360), model=OTHER)) == {}


def test_crowded_node_hands_a_job_over_to_an_empty_one() -> None:
    """Four jobs on four workers, and four idle next door: one moves, and the others widen."""
    left, right = node("left", 0, 4), node("right", 4, 4)
    jobs = [running(n, P360, left[n - 1], step=0) for n in range(1, 5)]

    served = plan(*left, *right, *jobs)

    moved = [group for group in served.values() if group[0] >= 4]
    assert moved == [[4, 5, 6, 7]]
    assert {name for group in served.values() for name in group} == {*range(8)}


def test_job_that_moves_leaves_its_worker_to_one_that_has_no_other() -> None:
    """Only the node on the right serves the other model; nobody needed to make room for it."""
    left, right = node("left", 0, 2, [SORA]), node("right", 2, 1)
    jobs = [running(1, P360, *right, step=3), replace(waiting(2, P360), model=OTHER, steps=90)]

    assert plan(*left, *right, *jobs) == {1: [0, 1], 2: [2]}


def test_job_is_not_handed_over_for_less_than_that_costs() -> None:
    """With two steps to go it would save 0.9 s, and a checkpoint and a message take five."""
    left, right = node("left", 0, 1), node("right", 1, 4)

    assert plan(*left, *right, running(1, P360, *left, step=28)) == {1: [0]}
    assert plan(*left, *right, running(1, P360, *left, step=3)) == {1: [1, 2, 3, 4]}


def test_job_whose_worker_goes_to_another_takes_one_that_is_left_elsewhere() -> None:
    """An urgent job can only be served on its node; next door is room."""
    left, right = node("left", 0, 1), node("right", 1, 1, [SORA])
    urgent = replace(waiting(2, P144, priority=1), model=OTHER)

    assert plan(*left, *right, running(1, P360, *left, step=3), urgent) == {2: [0], 1: [1]}


def test_job_starts_where_it_was_if_it_can() -> None:
    """Its last leader holds what it needs."""
    workers = crew(3)
    last: tuple[WorkerName, ...] = (workers[2].name, workers[0].name)

    assert plan(*workers[:3], waiting(1, P144, last_group=last)) == {1: [2]}


@pytest.mark.parametrize("load", [0.0, 0.5, 0.97, 3.0])
def test_overload_has_a_plan_too(load: float) -> None:
    """The price has a pole at load 1, and stays below it."""
    served = dops(*crew(8), *two_batches(), recent=Recent(load=load))

    assert sum(served.values()) == 8

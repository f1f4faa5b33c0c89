from __future__ import annotations

import pytest
from sim_worlds import SMALL, TableCosts, a_cost, a_workload, an_arrival

from ddit_batch.simulator import Arrival, Cluster
from ddit_batch.simulator.bound import Bound, bound, srpt_sum

COSTS = TableCosts(table={SMALL: a_cost(10.0, 6.0, 4.0, 4.0, decode_s=4.0)})
"""A job of four steps: at least 40 + 4 GPU-seconds, and at least 16 + 4 seconds."""


def least(*arrivals: Arrival, gpus: int = 8, per_node: int = 8, first: int = 0) -> Bound:
    cluster = Cluster(gpus=gpus, gpus_per_node=per_node)
    return bound(a_workload(*arrivals), COSTS, cluster, first=first)


def test_job_alone_takes_its_shortest_time() -> None:
    """Whatever its area: that is its height."""
    assert least(an_arrival(1, at_s=7.0)) == Bound(mean_latency_s=20.0, makespan_s=20.0)


def test_group_must_fit_into_a_node() -> None:
    """With two GPUs a node, a step takes six seconds."""
    assert least(an_arrival(1), per_node=2).makespan_s == 28.0


def test_one_gpu_works_the_areas_off_one_by_one() -> None:
    """44 s, 88 s and 132 s: nothing is better than that on one GPU."""
    found = least(*(an_arrival(n) for n in (1, 2, 3)), gpus=1)

    assert found == Bound(mean_latency_s=88.0, makespan_s=132.0)


def test_short_jobs_go_first_also_if_they_come_later() -> None:
    """The long one has 10 of its 44 seconds left when the short one comes for 14."""
    found = least(an_arrival(1), an_arrival(2, at_s=34.0, steps=1), gpus=1)

    assert found.mean_latency_s == (44.0 + 24.0) / 2
    assert found.makespan_s == 58.0


def test_jobs_of_different_times_do_not_wait_for_each_other() -> None:
    """Each busy period has its own best bound: a height for one job, areas for many."""
    crowd = [an_arrival(n) for n in range(1, 41)]
    alone = an_arrival(99, at_s=1000.0)

    both = least(*crowd, alone).mean_latency_s * 41

    assert both == pytest.approx(least(*crowd).mean_latency_s * 40 + 20.0)
    assert both > 40 * 20.5 * 44 / 8  # the areas of the crowd alone, shortest first


def test_late_work_bounds_the_makespan() -> None:
    """Forty jobs that come at 100 cannot be done before 100 + 40 * 44 / 8."""
    late = (an_arrival(n, at_s=100.0) for n in range(2, 42))

    assert least(an_arrival(1), *late).makespan_s == 320.0


def test_jobs_of_the_warm_up_do_not_count_in_the_mean() -> None:
    """What they get in the way of is not known, so they are left out."""
    found = least(*(an_arrival(n) for n in (1, 2, 3)), gpus=1, first=2)

    assert found.mean_latency_s == 44.0
    assert found.makespan_s == 132.0


@pytest.mark.parametrize(
    ("parts", "total"),
    [
        ([(0.0, 4.0)], 2.0),
        ([(0.0, 4.0), (0.0, 2.0)], 1.0 + 3.0),
        ([(0.0, 10.0), (1.0, 2.0)], 2.0 + 6.0),
        ([(0.0, 2.0), (5.0, 2.0)], 1.0 + 6.0),
        ([(0.0, 0.0), (0.0, 0.0)], 0.0),
    ],
)
def test_least_left_goes_first(parts: list[tuple[float, float]], total: float) -> None:
    """On a machine of two GPU-seconds a second, by hand."""
    assert srpt_sum(parts, gpus=2) == total

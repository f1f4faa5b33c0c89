from __future__ import annotations

import pytest
from clusters import OTHER, crew, decoding, denoised, plan, running, waiting
from fake_costs import COSTS, P144, P240, P360, FakeCosts, a_cost
from worlds import a_job, a_worker

from ddit_batch.job import JobState, Phase, Shape
from ddit_batch.policy.dp import Dp, Groups
from ddit_batch.policy.partitioned import Partitioned
from ddit_batch.policy.static import Static

SPCI = Partitioned(costs=COSTS, sizes=(2, 2, 4), dops=(1, 2, 4))
DPCI = Partitioned(costs=COSTS)
DP = Dp(costs=COSTS)
DP_FIXED = Dp(costs=COSTS, groups=Groups.FIXED)


def test_spci_gives_every_shape_workers_of_its_own() -> None:
    """The paper's example: 8 GPUs as 2/2/4 at dop 1/2/4, two 144p videos at a time."""
    jobs = [waiting(n, shape) for n, shape in enumerate([P360, P240, P144] * 2, 1)]

    assert plan(SPCI, *crew(8), *jobs) == {1: [4, 5, 6, 7], 2: [2, 3], 3: [0], 6: [1]}


def test_spci_lets_others_idle_beside_a_class_that_waits() -> None:
    """Isolation: six workers idle, and the third 144p waits."""
    jobs = [waiting(n, P144) for n in (1, 2, 3)]

    assert plan(SPCI, *crew(8), *jobs) == {1: [0], 2: [1]}


def test_dpci_takes_its_sizes_from_the_optimal_dops() -> None:
    """1/2/4 of 8 GPUs, one left over; 360p does not start on less than its four."""
    jobs = [waiting(n, shape) for n, shape in enumerate([P360, P240, P144] * 2, 1)]

    assert plan(DPCI, *crew(8), *jobs) == {1: [3, 4, 5, 6], 2: [1, 2], 3: [0]}


def test_shapes_of_no_profile_belong_to_the_next_larger_class() -> None:
    """The largest of all to the largest."""
    between, beyond = Shape(200, 356, 51), Shape(720, 1280, 51)
    jobs = [waiting(1, between), waiting(2, beyond)]

    assert plan(SPCI, *crew(8), *jobs) == {1: [2, 3], 2: [4, 5, 6, 7]}


def test_classes_without_workers_of_their_own_use_those_of_a_larger_one() -> None:
    """Two workers for three classes: nobody waits for ever."""
    assert plan(SPCI, *crew(1), waiting(1, P144)) == {1: [0]}
    assert plan(SPCI, *crew(2), waiting(1, P240), waiting(2, P360)) == {1: [0], 2: [1]}


def test_neighbouring_shapes_share_a_class_if_there_are_fewer_sizes() -> None:
    """Two classes of three shapes: the two smaller ones together."""
    halves = Partitioned(costs=COSTS, sizes=(1, 1), dops=(1, 2))
    jobs = [waiting(1, P240), waiting(2, P144), waiting(3, P144), waiting(4, P360)]

    assert plan(halves, *crew(4), *jobs) == {1: [0], 2: [1], 4: [2, 3]}


@pytest.mark.parametrize("policy", [SPCI, DPCI], ids=["spci", "dpci"])
def test_groups_of_a_class_stay_inside_a_node(policy: Partitioned) -> None:
    """Four workers of 360p, three of them on one node: dop 2 is the largest legal one there."""
    left, right = crew(5, node="left"), crew(8, node="right")[5:]

    (group,) = plan(policy, *left, *right, waiting(1, P360)).values()

    assert group == ([5, 6] if policy is SPCI else [3, 4])


def test_dp_starts_degraded_on_what_is_idle() -> None:
    """No isolation: a request may run on a smaller group."""
    workers = crew(8)
    busy = [running(8, P360, *workers[:4]), running(9, P144, workers[4])]

    assert plan(DP, *workers, *busy, waiting(1, P360), waiting(2, P240)) == {
        8: [0, 1, 2, 3],
        9: [4],
        1: [5, 6],
        2: [7],
    }


def test_dp_takes_no_more_than_the_optimal_dop() -> None:
    """Though eight workers idle."""
    assert plan(DP, *crew(8), waiting(1, P360)) == {1: [0, 1, 2, 3]}


def test_dp_with_fixed_groups_runs_degraded_on_a_smaller_one() -> None:
    """8 GPUs cut as 1/2/4/1: the second 360p runs at 2, the others at 1."""
    jobs = [waiting(n, P360) for n in (1, 2, 3, 4)]

    assert plan(DP_FIXED, *crew(8), *jobs) == {1: [3, 4, 5, 6], 2: [1, 2], 3: [0], 4: [7]}


def test_dp_with_fixed_groups_takes_none_that_is_larger_than_the_optimal_dop() -> None:
    """The third 144p waits, though six workers idle; a later 240p goes past it."""
    jobs = [*(waiting(n, P144) for n in (1, 2, 3)), waiting(4, P240)]

    assert plan(DP_FIXED, *crew(8), *jobs) == {1: [0], 2: [7], 4: [1, 2]}


def test_dp_never_promotes() -> None:
    """The dop is fixed when a job starts, though seven workers idle."""
    workers = crew(8)

    assert plan(DP, *workers, running(1, P360, workers[0], step=9)) == {1: [0]}


@pytest.mark.parametrize(
    "policy", [Static(costs=COSTS, dop=4), SPCI, DPCI, DP], ids=["static", "spci", "dpci", "dp"]
)
def test_monolithic_systems_hold_the_whole_group_while_one_decodes(policy: Static) -> None:
    """From the end of DiT to the end of the video; a video that waits does not get them."""
    workers = crew(4)
    late = waiting(2, P360)

    assert plan(policy, *workers, denoised(1, P360, *workers), late) == {1: [0, 1, 2, 3]}
    assert plan(policy, *workers, decoding(1, P360, *workers), late) == {1: [0, 1, 2, 3]}


def test_video_workers_that_are_there_are_left_their_work() -> None:
    """Denoised videos go to the shared queue, which is no policy's business."""
    workers = crew(4)
    decoder = a_worker(90, Phase.VAE, models=workers[0].models)

    assert plan(DP, *workers, decoder, denoised(1, P360, *workers)) == {}


def test_workers_that_do_not_decode_are_not_asked_to() -> None:
    """Then a denoised video waits until somebody comes who does."""
    workers = crew(2, decodes=False)

    assert plan(DP, *workers, denoised(1, P360, *workers)) == {}
    assert plan(DP, *workers, a_worker(5, decodes=True), denoised(1, P360, *workers)) == {}
    able = a_worker(5, decodes=True, models=workers[0].models)
    assert plan(DP, *workers, able, denoised(1, P360, *workers)) == {1: [5]}


def test_static_takes_the_largest_legal_dop_up_to_k() -> None:
    """A shape that knows 1 and 2 only runs at 2 where k is 4."""
    narrow = Shape(64, 64, 9)
    costs = FakeCosts(table={(OTHER, narrow): a_cost(1.0, 0.6, optimal=2)})
    job = a_job(1, JobState.ENCODED, model=OTHER, shape=narrow)

    assert plan(Static(costs=costs, dop=4), *crew(8), job) == {1: [0, 1]}


def test_static_job_without_its_workers_holds_up_those_behind_it() -> None:
    """First come first served: two workers idle until there are four."""
    workers = crew(6)
    busy = running(9, P360, *workers[:4])
    jobs = [waiting(1, P360), waiting(2, P144)]

    assert plan(Static(costs=COSTS, dop=4), *workers, busy, *jobs) == {9: [0, 1, 2, 3]}

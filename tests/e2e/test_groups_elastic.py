"""The default policy steers running groups, live: by a fixed profile, and by what steps take."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cluster_tools import Batch, Cluster, Figure, Sums
from deciding import deciding
from e2e_processes import wait_until
from e2e_prompts import SHORT, SQUARES
from group_cluster import Span, assert_no_worker_in_two_groups, assert_steps_are_whole, spans

from ddit_batch.cost_model import CostModel
from ddit_batch.policy import make_policy
from ddit_batch.policy.static import Static
from ddit_batch.profile import load_profile, make_cost_model
from ddit_batch.scheduler.lookout import Intervals

ELASTIC = partial(make_policy, "elastic")
FOUR = 4
"""DiT workers, and the largest dop of the profile."""


def scales_well(*, is_fixed: bool) -> CostModel:
    """The costs of the profile by that name."""
    profile = load_profile(Path(__file__).with_name("scales_well.yaml"))
    return make_cost_model([profile], is_fixed=is_fixed)


def wait_dop(batch: Batch, custom_id: str, dop: int) -> None:
    """Wait until the job is denoised by *dop* workers."""
    wait_until(
        lambda: (job := batch.job(custom_id))["state"] == "denoising" and job["dop"] == dop,
        f"{custom_id} has {dop} workers",
    )


def dops(found: list[Span], custom_id: str) -> list[int]:
    """The degrees of parallelism of one job, in order."""
    return [len(span.workers) for span in found if span.custom_id == custom_id]


def test_long_job_grows_gives_way_to_a_burst_and_grows_again(
    four_workers: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """As workers fall idle, as others want them, and again; every video is its dop-1 twin."""
    with deciding(four_workers, ELASTIC, costs=scales_well(is_fixed=True)):
        rush = [four_workers.submit(*SHORT) for _ in range(2)]
        first = four_workers.submit("long")
        wait_dop(first, "long", FOUR)
        burst = four_workers.submit("fox", "tram", "waves")
        wait_until(lambda: first.job("long")["dop"] < FOUR, "the burst is given workers")
        wait_dop(first, "long", FOUR)
        for batch in (*rush, first, burst):
            batch.wait_done()

    widths = dops(spans(first), "long")
    at_four = [i for i, width in enumerate(widths) if width == FOUR]
    assert widths[0] < FOUR
    assert min(widths[at_four[0] : at_four[-1]]) < FOUR, f"the burst got no worker: {widths}"
    assert_steps_are_whole(spans(first), "long", 100)
    assert_no_worker_in_two_groups(spans(*rush, first, burst))
    for batch in (*rush, first, burst):
        batch.assert_undisturbed(undisturbed)


def test_dop_that_does_not_pay_here_is_withdrawn(four_workers: Cluster, figure: Figure) -> None:
    """The profile promises much of groups; live steps show otherwise, and groups are not used."""
    with deciding(four_workers, Static(costs=CostModel(), dop=1)):
        four_workers.submit(*SQUARES[:FOUR]).wait_done()  # so it is known what one worker takes
    used: list[int] = []
    costs, often = scales_well(is_fixed=False), Intervals(costs_s=0.2)
    with deciding(four_workers, ELASTIC, costs=costs, intervals=often):
        for custom_id in SQUARES[FOUR:]:
            batch = four_workers.submit(custom_id)
            batch.wait_done()
            used.append(max(dops(spans(batch), custom_id)))
            if max(used[-2:]) < FOUR:
                break

    figure("jobs until groups of four, which do not pay, were given up", len(used) - 2, "jobs")
    assert used[0] == FOUR
    assert max(used[-2:]) < FOUR, f"groups that cost time went on: {used}"

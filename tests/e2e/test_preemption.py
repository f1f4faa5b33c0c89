"""A running job that the policy leaves out is given back by its worker, and goes on later."""

from __future__ import annotations

import pytest
from cluster_tools import Cluster, Figure, Sums
from deciding import deciding
from shortest_first import ShortestFirst

from ddit_batch.job import Phase

BEGUN = 10
"""A step at which the long job is well under way."""


@pytest.fixture
def one_worker(cluster: Cluster) -> Cluster:
    """The cluster with one DiT worker: a shorter job must have that of the longer one."""
    cluster.mend({Phase.DIT: 1})
    return cluster


def test_running_job_gives_way_to_a_shorter_one_and_goes_on_from_its_step(
    one_worker: Cluster, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """Two segments of the long job with the short one in between, and the very same frames."""
    with deciding(one_worker, ShortestFirst()):
        long = one_worker.submit("long")
        long.wait_step("long", BEGUN)
        short = one_worker.submit("fox")
        for batch in (short, long):
            batch.wait_done()

    first, between, second = one_worker.rows(
        "SELECT custom_id, from_step, to_step, reason, "
        "    extract(epoch FROM s.started_at - b.created_at)::float8 "
        "FROM segments s JOIN jobs j ON j.id = s.job_id JOIN batches b ON b.id = j.batch_id "
        "WHERE b.id = ANY(%s) ORDER BY s.id",
        [long.batch_id, short.batch_id],
    )
    figure("preemption: a shorter job denoises after its submission", between[-1], "s")
    assert [first[0], between[0], second[0]] == ["long", "fox", "long"]
    assert (first[1], first[3], second[3]) == (0, "start", "resume")
    assert BEGUN <= first[2] == second[1] < second[2] == 100
    for batch in (short, long):
        batch.assert_undisturbed(undisturbed)
    one_worker.submit("tram").wait_done()  # a scheduler of the cluster leads again

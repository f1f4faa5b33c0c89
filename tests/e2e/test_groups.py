"""Groups that grow, shrink and move while they run, live: four DiT workers, real everything."""

from __future__ import annotations

import pytest
from cluster_tools import Batch, Cluster, Sums
from deciding import deciding
from e2e_prompts import GROUPED_STEPS
from group_cluster import (
    Span,
    assert_no_worker_in_two_groups,
    assert_steps_are_whole,
    groups,
    ids,
    spans,
)
from scripted import Scripted, Stage


def scripted(cluster: Cluster, stages: list[Stage]) -> tuple[Batch, list[Span]]:
    """Run the jobs of *stages* by the script to their ends."""
    script = Scripted(stages=stages)
    with deciding(cluster, script):
        batch = cluster.submit(*stages[0])
        script.jobs = ids(batch)
        batch.wait_done()
    assert script.is_over, f"the jobs ended in stage {script.at} of {len(stages)}"
    return batch, spans(batch)


@pytest.mark.parametrize(("a", "b"), [("odd-usp", "euler-cp"), ("unipc-cp", "euler-usp")])
def test_two_jobs_share_four_workers_by_script_and_nobody_can_tell(
    four_workers: Cluster, alone: dict[str, Sums], a: str, b: str
) -> None:
    """Grow, grow, shrink, hand over; be preempted, come back elsewhere, swap a follower."""
    stages: list[Stage] = [
        {a: (0,), b: (2, 3)},
        {a: (0, 1), b: (2, 3)},
        {a: (0, 1, 2, 3)},
        {a: (0,), b: (1, 2)},
        {a: (2,), b: (1, 3)},
    ]
    batch, found = scripted(four_workers, stages)

    assert groups(found, a) == [(0,), (0, 1), (0, 1, 2, 3), (0,), (2,)]
    assert groups(found, b) == [(2, 3), (1, 2), (1, 3)]
    assert_no_worker_in_two_groups(found)
    for name in (a, b):
        assert_steps_are_whole(found, name, GROUPED_STEPS)
    batch.assert_undisturbed(alone)

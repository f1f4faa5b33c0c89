"""A disk that is full stops what would begin, not what runs, and no job fails of it."""

from __future__ import annotations

import pytest
from cluster_tools import Cluster, Sums
from e2e_processes import wait_until
from small_disk import fill, needs_mounts, small_disk

WAITS_FOR = "SELECT waiting_for FROM job_status WHERE job_id = %s"


@pytest.mark.chaos
@needs_mounts
def test_full_disk_stops_admission_and_not_the_service(
    cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """When there is room again everything goes on by itself, with the same videos.

    Given a long job that is denoised, and a disk that is full before its next checkpoint.
    When other jobs are submitted, which may not take its worker although they are shorter.
    Then the long one goes on without its checkpoints, the others wait and say for what, and all
    end well once something was deleted.
    """
    with small_disk(cluster.home.store, size_kib=8192):
        running = cluster.submit("long", priority=1)
        running.wait_step("long", 10)
        filler = fill(cluster.home.store)
        waiting = cluster.submit("fox", "tram")
        jobs = [waiting.job(name)["id"] for name in waiting.custom_ids]
        wait_until(
            lambda: all(cluster.value(WAITS_FOR, job) == "store_failing" for job in jobs),
            "the others wait for the store",
        )
        step = running.job("long")["step"]
        running.wait_step("long", step + 10)
        assert cluster.value("SELECT failures FROM store_health") > 0

        filler.unlink()
        running.wait_done()
        waiting.wait_done()

        for batch in (running, waiting):
            batch.assert_undisturbed(undisturbed)
            assert all(batch.job(name)["failures"] == 0 for name in batch.custom_ids)
        assert cluster.value("SELECT failing_since FROM store_health") is None

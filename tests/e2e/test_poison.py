"""A job that kills its workers is told from bad luck, ends, and is not run again."""

from __future__ import annotations

import os
from signal import SIGABRT, SIGKILL, SIGSEGV

import pytest
from cluster_tools import Cluster, Sums
from e2e_processes import wait_until

from ddit_batch.job import JobState, Phase

DEATHS = (SIGSEGV, SIGABRT, SIGKILL)
"""A fault of the machine code, a failed assertion of it, the kernel's memory killer."""


@pytest.mark.chaos
def test_job_that_kills_three_workers_is_a_dead_letter(
    session_cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """It names how many have died and the last of them; its neighbours have their videos.

    Given two DiT workers, and a job whose worker dies in its middle, each time in another way.
    When that has happened three times.
    Then the job has failed, also for a scheduler that starts anew, and the others go on.
    """
    session_cluster.mend({Phase.DIT: 2})
    poison = session_cluster.submit("long")
    last = ""
    for count, death in enumerate(DEATHS, 1):
        caught = poison.catch(Phase.DIT)
        last = caught.name
        os.kill(caught.pid, death)
        caught.thaw()
        session_cluster.add_spare(Phase.DIT)
        wait_until(
            lambda count=count: poison.job("long")["worker_losses"] == count, "the loss is noticed"
        )
    neighbours = session_cluster.submit("fox", "tram")
    neighbours.wait_done()

    job = poison.job("long")
    assert (job["state"], job["failure_code"]) == (JobState.FAILED, "worker_lost")
    assert job["failure_message"].startswith("3 workers died while they worked on this job")
    assert last in job["failure_message"]
    assert poison.attempts("long", Phase.DIT) == ["worker_lost", "worker_lost", "fail"]
    neighbours.assert_undisturbed(undisturbed)
    for scheduler in ("scheduler-0", "scheduler-1"):
        session_cluster.kill(scheduler)
    session_cluster.mend()
    assert len(poison.attempts("long", Phase.DIT)) == len(DEATHS)

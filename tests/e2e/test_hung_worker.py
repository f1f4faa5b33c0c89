"""Workers that live and hang: in a file of the store that, as on a dead server, never answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_tools import Batch, Cluster, Sums
from deciding import LIMITS, deciding
from e2e_processes import wait_until
from group_cluster import events, ids, pid_of
from scripted import Scripted

from ddit_batch.job import JobState, Phase
from ddit_batch.scheduler.hanging import HangLimits

HUNG_AFTER_S = 2.0
# Whether or not the cost of a step is known: that of the first one may not be.
IMPATIENT = replace(
    LIMITS,
    max_timeouts=2,
    hang=HangLimits(steps=10, floor_s=HUNG_AFTER_S, phase_s=HUNG_AFTER_S),
)
HUNG = "SELECT count(*) FROM workers WHERE hung_since IS NOT NULL AND ended_at IS NULL"


@contextmanager
def dead_file(path: Path) -> Iterator[None]:
    """Whoever opens *path* hangs, until the block ends: then the file is what it was."""
    good, pipe = path.with_name("good~"), path.with_name("pipe~")
    path.rename(good)
    os.mkfifo(path)
    os.link(path, pipe)
    try:
        yield
    finally:
        good.rename(path)
        with suppress(OSError):  # nobody hangs in it any more
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        pipe.unlink()


def encoded(cluster: Cluster, script: Scripted) -> tuple[Batch, Path]:
    """A job that waits for DiT workers, and its embeddings."""
    batch = cluster.submit("fox")
    wait_until(lambda: batch.count(JobState.ENCODED), "the job is encoded")
    script.jobs = ids(batch)
    return batch, cluster.home.store / batch.job("fox")["embeddings_key"]


@pytest.mark.chaos
def test_worker_that_hangs_loses_its_job_and_gets_no_other_until_it_has_answered(
    session_cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """A second worker does the job; the first comes back late, changes nothing, and serves again.

    Given a job whose embeddings cannot be read, and a worker that tries.
    When it has not taken a step for too long.
    Then the job goes to the other worker, with the video of an undisturbed run.
    """
    session_cluster.mend({Phase.DIT: 2})
    pids = {number: pid_of(session_cluster, number) for number in range(2)}
    script = Scripted(stages=[{}])
    with deciding(session_cluster, script, limits=IMPATIENT):
        batch, embeddings = encoded(session_cluster, script)
        with dead_file(embeddings):
            script.stages = [{"fox": (0,)}]
            wait_until(lambda: "timed_out" in events(batch, "fox"), "the job is taken away")
            script.stages = [{}]
            assert session_cluster.value(HUNG) == 1
        wait_until(lambda: session_cluster.value(HUNG) == 0, "the worker has answered")
        script.stages = [{"fox": (1,)}]
        batch.wait_done()

    assert batch.attempts("fox", Phase.DIT) == ["timed_out", "finish"]
    assert batch.job("fox")["timeouts"] == 1
    batch.assert_undisturbed(undisturbed)
    assert {number: pid_of(session_cluster, number) for number in range(2)} == pids


@pytest.mark.chaos
def test_job_that_hangs_every_worker_ends_and_they_end_themselves(
    session_cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """It fails with ``timeout``; what never returns is ended from inside and started again.

    Given a job whose embeddings never can be read, and two tries.
    When both have hung.
    Then the job has failed, and both processes end after their time of grace; the supervisor's is
    started again and does the next job.
    """
    session_cluster.mend({Phase.DIT: 2})
    pid = pid_of(session_cluster, 0)
    script = Scripted(stages=[{}])
    with deciding(session_cluster, script, limits=IMPATIENT):
        batch, embeddings = encoded(session_cluster, script)
        with dead_file(embeddings):
            script.stages = [{"fox": (0,)}]
            wait_until(lambda: events(batch, "fox").count("timed_out") == 1, "the first hangs")
            script.stages = [{"fox": (1,)}]
            batch.wait_done()
            wait_until(lambda: session_cluster.value(HUNG) == 0, "both have ended", within_s=60.0)

    job = batch.job("fox")
    assert (job["state"], job["failure_code"]) == (JobState.FAILED, "timeout")
    assert "the 2. time that a worker hung with this job" in job["failure_message"]
    assert "this process ends" in session_cluster.log("dit-0")
    session_cluster.mend({Phase.DIT: 1})
    assert pid_of(session_cluster, 0) != pid
    after = session_cluster.submit("fox")
    after.wait_done()
    after.assert_undisturbed(undisturbed)

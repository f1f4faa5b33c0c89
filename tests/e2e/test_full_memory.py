"""A job that does not fit into a worker's memory ends by that; the worker goes on with the next."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster_tools import Cluster, Sums
from e2e_prompts import BIG

from ddit_batch.job import JobState, Phase

ROOM_BYTES = 48 * 2**20
"""What the worker may still take: more than small videos need, less than the frames of the big."""


@contextmanager
def with_little_memory(pid: int) -> Iterator[None]:
    """The kernel gives process *pid* no more than ``ROOM_BYTES`` for the length of the block."""
    kind = resource.RLIMIT_DATA
    before = resource.prlimit(pid, kind)
    status = Path(f"/proc/{pid}/status").read_text()
    (used,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmData:"))
    resource.prlimit(pid, kind, (int(used) * 1024 + ROOM_BYTES, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, before)


def test_job_that_does_not_fit_fails_and_its_neighbours_do_not(
    session_cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """The first try names cause and cure; the same process decodes the small videos after it.

    Given a VAE worker whose allocations really fail beyond a limit.
    When it gets a job whose frames are beyond it, between two small ones.
    Then that job has failed by its first attempt, and the small ones are what they always are.
    """
    session_cluster.mend({Phase.VAE: 1})
    (pid,) = session_cluster.worker_pids(Phase.VAE)
    small = session_cluster.submit("fox")
    small.wait_done()  # what it takes once is taken
    with with_little_memory(pid):
        big, after = session_cluster.submit(BIG), session_cluster.submit("tram")
        big.wait_done()
        after.wait_done()

    job = big.job(BIG)
    assert (job["state"], job["failure_code"]) == (JobState.FAILED, "out_of_memory")
    assert job["failure_message"].startswith("decoding latents of 1x16x9x64x64 does not fit into")
    assert "use a smaller size or fewer frames" in job["failure_message"]
    assert big.attempts(BIG, Phase.VAE) == ["fail"]
    small.assert_undisturbed(undisturbed)
    after.assert_undisturbed(undisturbed)
    assert session_cluster.worker_pids(Phase.VAE) == [pid]

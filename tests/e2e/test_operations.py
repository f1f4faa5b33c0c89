"""What operators do to a cluster that works: pause, drain, cancel, change its schema."""

from __future__ import annotations

import time

from cluster_tools import Batch, Cluster, Sums
from e2e_processes import ddit, wait_until
from group_cluster import events

from ddit_batch.job import JobState, Phase


def held(batch: Batch) -> int:
    """How many jobs of the batch workers hold."""
    return batch.count(JobState.ENCODING, JobState.DENOISING, JobState.DECODING)


def test_paused_batch_stands_still_and_goes_on_to_the_same_videos(
    cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """The running job comes back with a checkpoint; no step is lost, and none done in between."""
    home = cluster.home.path
    batch = cluster.submit("long", "fox")
    batch.wait_step("long", 5)

    assert ddit(home, "pause", batch.batch_id).returncode == 0
    wait_until(lambda: not held(batch), "nobody holds a job of it", within_s=20)
    stood, moves = batch.job("long"), events(batch, "long")
    time.sleep(2.0)
    assert (batch.job("long")["step"], held(batch)) == (stood["step"], 0)
    assert events(batch, "long") == moves
    assert moves[-1] == "give_back"
    assert 5 <= stood["checkpoint_step"] == stood["step"] < 100
    assert "paused" in ddit(home, "status", batch.batch_id).stdout

    assert ddit(home, "resume", batch.batch_id).returncode == 0
    batch.wait_done()

    spans = batch.segments("long")
    assert [(begin, reason) for begin, _, reason in spans][-1] == (stood["step"], "resume")
    assert sum(end - begin for begin, end, _ in spans) == 100
    assert batch.attempts("long", Phase.DIT)[-1] == "finish"
    batch.assert_undisturbed({name: undisturbed[name] for name in ("long", "fox")})

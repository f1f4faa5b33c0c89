"""Workers and schedulers whose clock is wrong by an hour: leases are the database's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cluster_tools import Cluster, Sums
from e2e_prompts import SHORT

from ddit_batch.job import Phase

HOUR_S = 3600
WRONG_CLOCK = """
import os, time

_shift_s = float(os.environ.get("DDIT_TEST_CLOCK_SHIFT_S", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _shift_s
time.time_ns = lambda: _time_ns() + int(_shift_s * 1e9)
"""
"""Read by Python when it starts, from the first folder of its path."""


LEASE_S = 3.0
PLACING_S = 2.0
"""From a lease's end until another worker that is warm has the job."""


@pytest.fixture(params=[HOUR_S, -HOUR_S], ids=["ahead", "behind"])
def wrong_clock(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Variables that put the clock of a process an hour ahead or behind."""
    (tmp_path / "sitecustomize.py").write_text(WRONG_CLOCK)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "DDIT_TEST_CLOCK_SHIFT_S": str(request.param)}


@pytest.fixture
def skewed(session_cluster: Cluster, wrong_clock: dict[str, str]) -> Iterator[Cluster]:
    """The cluster with one DiT worker more, whose clock is wrong."""
    session_cluster.mend({Phase.DIT: 1})
    session_cluster.add_odd_spare(Phase.DIT, wrong_clock)
    yield session_cluster
    session_cluster.drop_spare(Phase.DIT)


@pytest.mark.chaos
def test_worker_with_a_wrong_clock_keeps_its_lease_and_its_jobs(
    skewed: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """It is not taken for lost, nor does it think so itself; both workers share the jobs."""
    batches = [skewed.submit("long", *SHORT) for _ in range(2)]
    for batch in batches:
        batch.wait_done()

    for batch in batches:
        batch.assert_undisturbed(undisturbed)
        assert all(batch.job(name)["worker_losses"] == 0 for name in batch.custom_ids)
    lost = "SELECT count(*) FROM workers WHERE name LIKE 'dit-1@%%' AND state = 'lost'"
    assert skewed.value(lost + " AND registered_at > now() - interval '2 minutes'") == 0
    done = (
        "SELECT count(DISTINCT workers) FROM segments s JOIN jobs j ON j.id = s.job_id "
        "WHERE batch_id = ANY(%s)"
    )
    assert skewed.value(done, [batch.batch_id for batch in batches]) > 1


@pytest.mark.chaos
def test_scheduler_with_a_wrong_clock_takes_the_dead_for_lost_and_nobody_else(
    session_cluster: Cluster, wrong_clock: dict[str, str], undisturbed: dict[str, Sums]
) -> None:
    """It finds a killed worker as soon as another would, and every other lease holds."""
    cluster = session_cluster
    cluster.mend({Phase.DIT: 2})
    with cluster.led_by_odd_scheduler(wrong_clock):
        batch = cluster.submit("long", *SHORT)
        caught = batch.catch(Phase.DIT, custom_id="long", step=24)
        caught.kill()
        recovery_s = batch.recovery_s(caught, Phase.DIT)
        batch.wait_done()

    lost = "SELECT incarnation FROM workers WHERE state = 'lost' AND lease_expires_at > %s"
    since = datetime.fromtimestamp(caught.at, UTC)
    assert cluster.rows(lost, since) == [(caught.incarnation,)]
    assert recovery_s < LEASE_S + PLACING_S
    batch.assert_undisturbed(undisturbed)

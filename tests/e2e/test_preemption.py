"""A real worker gives a running job back when the policy leaves it out, and goes on with it later.

The cluster's schedulers are frozen meanwhile: another leads in this process, with a policy of the
tests. When they thaw, they find at their first write that their term is over, and lead again.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest
from cluster_tools import Cluster, Figure, Sums

from ddit_batch.control import LiveControl
from ddit_batch.db.engine import make_engine
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.dispatch import Dispatcher, make_celery
from ddit_batch.job import Phase
from ddit_batch.metrics import SchedulerMetrics
from ddit_batch.policy.base import Policy
from ddit_batch.profile import known_profiles, make_cost_model
from ddit_batch.scheduler.core import Limits
from ddit_batch.scheduler.live import LiveDriver, Pace
from ddit_batch.scheduler.lookout import Lookout

sys.path.append(str(Path(__file__).parent.parent / "scheduler"))
from shortest_first import ShortestFirst

BEGUN = 10
"""A step at which the long job is well under way."""
ROUND_S = 0.1


@contextmanager
def deciding(cluster: Cluster, policy: Policy) -> Iterator[None]:
    """Lead the cluster from here by *policy*, while its own schedulers stand still."""
    schedulers = [cluster.state.services[f"scheduler-{i}"] for i in range(cluster.plan.schedulers)]
    engine, stopping = make_engine(cluster.state.database_url, pool_size=2), threading.Event()
    costs = make_cost_model(known_profiles().values())
    for pid in schedulers:
        os.kill(pid, SIGSTOP)
    try:
        driver = LiveDriver(
            store=SchedulerStore(engine, term=begin_term(engine, holder="test")),
            control=LiveControl(cluster.state.broker_url),
            dispatcher=Dispatcher(make_celery(cluster.state.broker_url)),
            lookout=Lookout(engine, costs, lambda _: policy),
            limits=Limits(look_ahead=8, decode_backlog=16, max_worker_losses=5),
            pace=Pace(tick_s=ROUND_S, reconcile_s=0.5, lease_s=3.0),
            metrics=SchedulerMetrics(),
        )

        def lead() -> None:
            while not stopping.wait(ROUND_S):
                driver.round()

        thread = threading.Thread(target=lead)
        thread.start()
        yield
        stopping.set()
        thread.join()
    finally:
        stopping.set()
        for pid in schedulers:
            os.kill(pid, SIGCONT)
        engine.dispose()


@pytest.fixture
def one_worker(cluster: Cluster) -> Cluster:
    """The cluster with one DiT worker: a shorter job must have that of the longer one."""
    cluster.mend(one={Phase.DIT})
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

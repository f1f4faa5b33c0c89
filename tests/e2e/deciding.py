"""Leading a cluster from a test, with a policy of the test's choice.

The cluster's own schedulers are frozen meanwhile. When they thaw, they find at their first write
that their term is over, and lead again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGCONT, SIGSTOP

from cluster_tools import Cluster
from sqlalchemy import Engine

from ddit_batch.control import LiveControl
from ddit_batch.cost_model import CostModel
from ddit_batch.db.engine import make_engine
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.dispatch import Dispatcher, make_celery
from ddit_batch.metrics import SchedulerMetrics
from ddit_batch.policy.base import Policy
from ddit_batch.profile import known_profiles, make_cost_model
from ddit_batch.scheduler.core import Limits
from ddit_batch.scheduler.live import LiveDriver, Pace
from ddit_batch.scheduler.lookout import Intervals, Lookout

ROUND_S = 0.05
LIMITS = Limits(look_ahead=8, decode_backlog=16, max_worker_losses=5)


@contextmanager
def deciding(
    cluster: Cluster,
    policy: Policy | Callable[[CostModel], Policy],
    *,
    costs: CostModel | None = None,
    intervals: Intervals | None = None,
    limits: Limits = LIMITS,
) -> Iterator[Callable[[], None]]:
    """Lead the cluster from here by *policy*, or by what it makes of *costs*.

    Gives what a restart of the scheduler is: a new term with a driver that remembers nothing.
    """
    schedulers = [cluster.state.services[f"scheduler-{i}"] for i in range(cluster.plan.schedulers)]
    engine, stopping = make_engine(cluster.state.database_url, pool_size=2), threading.Event()
    restarting = threading.Event()
    known = costs or make_cost_model(known_profiles().values())
    make_policy = policy if callable(policy) else lambda _: policy

    def new_driver() -> LiveDriver:
        lookout = Lookout(engine, known, make_policy, intervals)
        return _driver(cluster, engine, lookout, limits)

    for pid in schedulers:
        os.kill(pid, SIGSTOP)
    try:
        failures: list[Exception] = []

        def lead() -> None:
            try:
                driver = new_driver()
                while not stopping.wait(ROUND_S):
                    if restarting.is_set():
                        driver = new_driver()
                        restarting.clear()
                    driver.round()
            except Exception as exc:  # noqa: BLE001 -- told to the test below
                failures.append(exc)

        thread = threading.Thread(target=lead)
        thread.start()
        yield restarting.set
        stopping.set()
        thread.join()
        assert not failures, failures
    finally:
        stopping.set()
        for pid in schedulers:
            os.kill(pid, SIGCONT)
        engine.dispose()


def _driver(cluster: Cluster, engine: Engine, lookout: Lookout, limits: Limits) -> LiveDriver:
    return LiveDriver(
        store=SchedulerStore(engine, term=begin_term(engine, holder="test")),
        control=LiveControl(cluster.state.broker_url),
        dispatcher=Dispatcher(make_celery(cluster.state.broker_url)),
        lookout=lookout,
        limits=limits,
        pace=Pace(tick_s=ROUND_S, reconcile_s=0.5, lease_s=3.0),
        metrics=SchedulerMetrics(),
    )

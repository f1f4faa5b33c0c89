"""The commands that a service manager, ``compose.yaml`` or the embedded supervisor runs."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from functools import partial

import click

from ddit_batch.cli.command import ExampleCommand, command
from ddit_batch.cli.health import check_flower, check_option, check_scheduler, check_worker
from ddit_batch.config import Settings, load_settings, require
from ddit_batch.control import LiveControl
from ddit_batch.db import migrate
from ddit_batch.db.engine import make_engine
from ddit_batch.db.scheduler_store import SchedulerStore
from ddit_batch.db.schema_version import check_schema
from ddit_batch.dispatch import Dispatcher, make_celery
from ddit_batch.errors import ConfigError
from ddit_batch.job import Phase, WorkerName, queue_of
from ddit_batch.logs import set_up_logging
from ddit_batch.metrics import SchedulerMetrics
from ddit_batch.policy import make_policy
from ddit_batch.profile import cost_model_of
from ddit_batch.scheduler.core import Limits
from ddit_batch.scheduler.hanging import HangLimits
from ddit_batch.scheduler.live import LiveDriver, Pace
from ddit_batch.scheduler.lookout import Lookout
from ddit_batch.scheduler.recorder import DecisionRecorder
from ddit_batch.scheduler.service import serve

logger = logging.getLogger(__name__)

FLOWER_COLUMNS = "uuid,state,worker,received,runtime,exception"
"""Of Flower's list of tasks: the id says job, phase and attempt, the exception why it ended."""


@command("DDIT_DATABASE_URL=... DDIT_BROKER_URL=... ddit scheduler")
@check_option
def scheduler(check: bool) -> None:
    """Decide who works on what, until told to stop. Two may run: one leads."""
    settings = load_settings()
    if check:
        check_scheduler(settings)
        return
    require(settings, "database_url", "broker_url")
    set_up_logging(settings)
    costs = cost_model_of(settings)
    policy_of = partial(make_policy, settings.policy)
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=4)
    check_schema(engine)
    metrics = SchedulerMetrics()
    if settings.metrics_address:
        url = metrics.serve(settings.metrics_address)
        logger.info("metrics at %s", url, extra={"action": "metrics"})
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    serve(
        engine,
        lambda store: _driver(settings, store, metrics, Lookout(engine, costs, policy_of)),
        metrics=metrics,
        tick_s=settings.tick_s,
        should_stop=stopping.is_set,
    )


def _driver(
    settings: Settings, store: SchedulerStore, metrics: SchedulerMetrics, lookout: Lookout
) -> LiveDriver:
    """The driver of a term that begins; its limits are made known to the views."""
    store.publish_limits(look_ahead=settings.look_ahead, decode_backlog=settings.decode_backlog)
    broker_url = settings.broker_url.get_secret_value()
    return LiveDriver(
        store=store,
        control=LiveControl(broker_url),
        dispatcher=Dispatcher(make_celery(broker_url)),
        lookout=lookout,
        limits=Limits(
            look_ahead=settings.look_ahead,
            decode_backlog=settings.decode_backlog,
            max_worker_losses=settings.max_worker_losses,
            max_timeouts=settings.max_timeouts,
            hang=HangLimits(
                steps=settings.hung_steps,
                floor_s=settings.hung_after_s,
                group_s=settings.group_timeout_s,
                phase_s=settings.phase_timeout_s,
            ),
        ),
        pace=Pace(
            tick_s=settings.tick_s, reconcile_s=settings.reconcile_s, lease_s=settings.lease_s
        ),
        metrics=metrics,
        recorder=_recorder(settings, store),
    )


def _recorder(settings: Settings, store: SchedulerStore) -> DecisionRecorder | None:
    """What records the decisions of the store's term; None if the settings want none recorded."""
    if not settings.decisions_per_s:
        return None
    return DecisionRecorder(store.decision_log(), per_s=settings.decisions_per_s)


@command("DDIT_DATABASE_URL=... ddit worker --phase dit --name dit-0")
@click.option("--phase", type=click.Choice([str(p) for p in Phase]), required=True)
@click.option("--name", help="Unique on this host; default: the phase and a zero.")
@check_option
def worker(phase: str, name: str | None, check: bool) -> None:
    """Serve one phase on one GPU or CPU slot, until told to stop."""
    settings = load_settings()
    require(settings, "database_url", "broker_url", "artifacts_url")
    own_name = WorkerName(f"{name or f'{phase}-0'}@{settings.host}")
    if check:
        check_worker(settings, own_name)
        return
    queues = [queue_of(Phase(phase), own_name)]
    if phase != Phase.DIT:
        queues.append(queue_of(Phase(phase)))
    environment = {
        "TQDM_DISABLE": "1",  # a bar is no line of a log
        **os.environ,
        "DDIT_WORKER_PHASE": phase,
        "DDIT_WORKER_NAME": own_name,
    }
    # A thread of its own for the task: the process goes on answering, so that Flower sees it.
    # No child processes: CUDA and process groups do not survive a fork.
    _become_celery(
        "workers.app",
        [
            "worker",
            "--pool",
            "threads",
            "--concurrency",
            "1",
            "--queues",
            ",".join(queues),
            "--hostname",
            own_name,
            "--task-events",
            "--without-gossip",
            "--without-mingle",
        ],
        environment,
    )


@command("ddit flower --port 5555")
@click.option("--port", type=int, default=5555, show_default=True)
@click.option("--address", default="127.0.0.1", show_default=True, help="Interface to bind to.")
@check_option
def flower(port: int, address: str, check: bool) -> None:
    """Watch the tasks in a browser. It only shows: `ddit cancel` and `ddit retry` act."""
    if check:
        check_flower(port)
        return
    require(load_settings(), "broker_url")
    environment = {
        "FLOWER_READ_ONLY": "true",  # what it could do goes past the database
        "FLOWER_TASKS_COLUMNS": FLOWER_COLUMNS,
        **os.environ,
    }
    if "FLOWER_BASIC_AUTH" not in environment:
        if address != "127.0.0.1":
            raise ConfigError(
                f"Flower on {address} would be open to everybody who reaches it: "
                "set FLOWER_BASIC_AUTH=user:password, or leave it on 127.0.0.1"
            )
        environment["FLOWER_UNAUTHENTICATED_API"] = "true"
    words = ["flower", f"--address={address}", f"--port={port}", "--logging=none"]
    _become_celery("workers.flower", words, environment)


@click.group()
def db() -> None:
    """Look after the database."""


@db.command(cls=ExampleCommand, example="DDIT_DATABASE_URL=... ddit db upgrade")
def upgrade() -> None:
    """Bring the database to this release's schema; safe to repeat."""
    settings = load_settings()
    require(settings, "database_url")
    migrate.upgrade(settings.database_url.get_secret_value())


def _become_celery(app: str, words: list[str], environment: dict[str, str]) -> None:
    """Replace this process by Celery's own command, which takes signals as it likes."""
    command = [sys.executable, "-m", "celery", "-q", "-A", app, *words]
    os.execve(command[0], command, environment)  # noqa: S606 -- no shell is wanted

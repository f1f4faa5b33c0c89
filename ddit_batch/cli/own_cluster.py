"""A cluster for the length of a command, or the one that runs in its home already."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import Engine

from ddit_batch.cli.connection import ready_cluster
from ddit_batch.cli.prompts import START_OVER, Prompts, check_served
from ddit_batch.db import status
from ddit_batch.db.engine import make_engine
from ddit_batch.embedded.cluster import start_cluster, stop_cluster
from ddit_batch.embedded.home import ClusterState, Home, running_cluster
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.embedded.process import tail
from ddit_batch.errors import ServiceError
from ddit_batch.job import Phase

POLL_S = 0.25
HOPELESS_RESTARTS = 3
"""A worker that was restarted this often and never registered will not come up: see its log."""


@contextmanager
def cluster_at_hand(home: Home, plan: ClusterPlan, prompts: Prompts) -> Iterator[ClusterState]:
    """The cluster that runs in *home*, or one for the length of the block.

    Raises:
        RequestError: The one that runs does not serve the models of *prompts*.
        ServiceError: It does not come up.
    """
    state = ready_cluster(home)
    if state is not None and not state.database_url:
        raise ServiceError(
            f"in {home.path} run the workers of a deployed cluster: `ddit submit` gives them work, "
            "or choose another folder with --home"
        )
    if state is not None:
        click.echo(f"using the cluster that runs in {home.path}", err=True)
        if plan.policy:
            click.echo(
                f"--policy {plan.policy} is for a new cluster: this one keeps its own", err=True
            )
        _check_served(home, state, prompts)
        yield state
        return
    click.echo(f"starting a cluster in {home.path} ...", err=True)
    state = start_cluster(home, plan, with_parent=True)
    if state.flower_url:
        click.echo(f"Flower: {state.flower_url}", err=True)
    try:
        yield state
    except KeyboardInterrupt:
        click.echo("stopping: running jobs checkpoint and wait (Ctrl-C again to hurry)", err=True)
        raise
    finally:
        _stop(home)


def _check_served(home: Home, state: ClusterState, prompts: Prompts) -> None:
    """Raise RequestError if the cluster's workers, once they are up, do not serve the models."""
    engine = make_engine(state.database_url)
    try:
        while len(status.workers_online(engine)) < len(Phase):
            check_cluster(engine, home)
            time.sleep(POLL_S)
        check_served(engine, prompts, cure=START_OVER)
    finally:
        engine.dispose()


def _stop(home: Home) -> None:
    try:
        stop_cluster(home)
    except KeyboardInterrupt:
        stop_cluster(home)  # asked again: the supervisor hurries


def check_cluster(engine: Engine, home: Home) -> None:
    """Raise ServiceError when waiting for the cluster in *home* makes no sense."""
    state = running_cluster(home)
    if state is None:
        raise ServiceError(
            f"the cluster has ended; see {home.log('supervisor')}. Nothing is lost: "
            "the same command goes on from here"
        )
    hopeless = {
        name
        for name, count in state.restarts.items()
        if count >= HOPELESS_RESTARTS and name.partition("-")[0] in set(Phase)
    }
    for name in sorted(hopeless - status.names_ever_registered(engine)):
        raise ServiceError(
            f"{name} does not come up (restarted {state.restarts[name]} times); "
            f"{home.log(name)} ends with:\n{tail(home.log(name))}"
        )

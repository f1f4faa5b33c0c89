"""The workers at hand, for a command that measures them: who they are, and who leads them."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Engine

from ddit_batch.cli.own_cluster import POLL_S, check_cluster
from ddit_batch.cli.own_scheduler import Check, Leaderless
from ddit_batch.config import load_settings, require
from ddit_batch.db import status
from ddit_batch.embedded.home import ClusterState, Home
from ddit_batch.embedded.plan import Addresses
from ddit_batch.job import Phase
from ddit_batch.model_config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The workers at hand."""

    engine: Engine
    """Of their database."""
    check: Check
    leaderless: Leaderless | None
    """None: a scheduler leads them, and its policy stands."""

    def workers_by_node(self, model: ModelConfig) -> tuple[int, ...]:
        """How many of each node denoise videos of *model*."""
        return status.dit_workers_by_node(self.engine, model.name)


def deployed_crew(engine: Engine, home: Home, models: tuple[str, ...]) -> Crew:
    """The workers of the deployment that the settings name.

    Raises:
        ConfigError: No scheduler leads, and the settings do not say where the broker is.
    """
    if status.scheduler_leads(engine):
        return Crew(engine=engine, check=lambda: None, leaderless=None)
    settings = load_settings()
    require(settings, "broker_url")
    at = Addresses(
        database_url=settings.database_url.get_secret_value(),
        broker_url=settings.broker_url.get_secret_value(),
        artifacts_url=settings.artifacts_url,
        flower_port=0,
    )
    leaderless = Leaderless(home=home, at=at, models=models)
    return Crew(engine=engine, check=lambda: None, leaderless=leaderless)


def cluster_crew(
    engine: Engine, home: Home, cluster: ClusterState, models: tuple[str, ...]
) -> Crew:
    """The workers of the cluster in *home*, as soon as all of them are up.

    Raises:
        ServiceError: One does not come up.
    """
    planned = {phase: _children(cluster, phase) for phase in Phase}
    while any(status.workers_online(engine).get(p, 0) < n for p, n in planned.items()):
        check_cluster(engine, home)
        time.sleep(POLL_S)
    at = Addresses(
        database_url=cluster.database_url,
        broker_url=cluster.broker_url,
        artifacts_url=cluster.artifacts_url,
        flower_port=0,
    )
    is_led = _children(cluster, "scheduler") > 0
    return Crew(
        engine=engine,
        check=lambda: check_cluster(engine, home),
        leaderless=None if is_led else Leaderless(home=home, at=at, models=models),
    )


def _children(cluster: ClusterState, kind: str) -> int:
    """How many children of a *kind* the cluster has."""
    return sum(name.startswith(f"{kind}-") for name in cluster.services)

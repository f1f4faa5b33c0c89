"""``ddit up`` and ``ddit down``: an embedded cluster that stays."""

from __future__ import annotations

from pathlib import Path

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.machine import (
    cluster_option,
    deployed,
    other_hosts,
    planned,
    shown,
    workers_option,
)
from ddit_batch.cli.options import flower_option, home_option
from ddit_batch.cli.policy_option import policy_option
from ddit_batch.cli.prompt_options import model_option
from ddit_batch.embedded.cluster import start_cluster, stop_cluster
from ddit_batch.embedded.home import Home


@command("ddit up --workers 2")
@home_option
@workers_option
@cluster_option
@model_option
@policy_option
@flower_option
def up(
    home: Home,
    workers: int,
    cluster: Path | None,
    model: str,
    policy: str | None,
    flower: bool,
) -> None:
    """Start a cluster in the background; `ddit down` stops it.

    With --cluster, and with DDIT_DATABASE_URL, DDIT_BROKER_URL and DDIT_ARTIFACTS_URL set, only the
    workers of this host are started, for the services that these name.
    """
    plan = planned(workers=workers, cluster=cluster, models=(model,), flower=flower, policy=policy)
    if cluster is not None:
        plan = deployed(plan)
    state = start_cluster(home, plan, with_parent=False)
    what = "workers" if plan.is_deployed else "cluster"
    click.echo(f"{what} up in {home.path}", err=True)
    if cluster is not None:
        click.echo(f"workers of this host: {shown(plan.workers)}", err=True)
        if not plan.is_deployed and (others := other_hosts(cluster)):
            click.echo(
                f"{', '.join(others)} cannot reach this cluster: set DDIT_DATABASE_URL, "
                "DDIT_BROKER_URL and DDIT_ARTIFACTS_URL for services that all hosts share",
                err=True,
            )
    if state.flower_url:
        click.echo(f"Flower: {state.flower_url}", err=True)


@command("ddit down")
@home_option
def down(home: Home) -> None:
    """Stop the cluster: running jobs checkpoint and wait."""
    stopped = stop_cluster(home)
    click.echo("cluster down" if stopped else f"no cluster runs in {home.path}", err=True)

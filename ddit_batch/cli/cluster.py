"""``ddit up`` and ``ddit down``: an embedded cluster that stays."""

from __future__ import annotations

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.options import flower_option, home_option, workers_option
from ddit_batch.cli.policy_option import policy_option
from ddit_batch.cli.prompt_options import model_option
from ddit_batch.cli.threads import threads_for
from ddit_batch.embedded.cluster import start_cluster, stop_cluster
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import ClusterPlan


@command("ddit up --workers 2")
@home_option
@workers_option
@model_option
@policy_option
@flower_option
def up(home: Home, workers: int, model: str, policy: str | None, flower: bool) -> None:
    """Start a cluster in the background; `ddit down` stops it."""
    plan = ClusterPlan(
        dit_workers=workers,
        models=(model,),
        flower=flower,
        torch_threads=threads_for(workers),
        policy=policy or "",
    )
    state = start_cluster(home, plan, with_parent=False)
    click.echo(f"cluster up in {home.path}", err=True)
    if state.flower_url:
        click.echo(f"Flower: {state.flower_url}", err=True)


@command("ddit down")
@home_option
def down(home: Home) -> None:
    """Stop the cluster: running jobs checkpoint and wait."""
    stopped = stop_cluster(home)
    click.echo("cluster down" if stopped else f"no cluster runs in {home.path}", err=True)

"""Which workers ``ddit up`` and ``ddit run`` start here: a number of them, or a cluster file's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from ddit_batch.cli.gpus import devices_for
from ddit_batch.cli.threads import threads_for
from ddit_batch.cluster_file import WorkerSlot, load_cluster_file
from ddit_batch.config import load_settings, require
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.errors import ConfigError
from ddit_batch.job import Phase

workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="DiT workers, each on a GPU of its own where there are GPUs. One encode and one VAE "
    "worker come with them.",
)

cluster_option = click.option(
    "--cluster",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="Start the workers that a cluster file has for this host (docs/deploy.md).",
)


def planned(
    *,
    workers: int,
    cluster: Path | None,
    models: tuple[str, ...],
    flower: bool,
    policy: str | None,
) -> ClusterPlan:
    """An embedded cluster with *workers* DiT workers, or with those of the file *cluster*.

    Raises:
        ConfigError: There are too few GPUs, or the file is wrong or does not have this host.
        click.UsageError: Both are given.
    """
    plan = ClusterPlan(dit_workers=1, models=models, flower=flower, policy=policy or "")
    if cluster is None:
        return replace(
            plan,
            dit_workers=workers,
            devices=devices_for(workers),
            torch_threads=threads_for(workers),
        )
    said = click.get_current_context().get_parameter_source("workers")
    if said is not ParameterSource.DEFAULT:
        raise click.UsageError("--workers and --cluster both say what to start: give one of them")
    slots = load_cluster_file(cluster).host(load_settings().host).slots()
    counts = Counter(slot.phase for slot in slots)
    return replace(
        plan,
        dit_workers=counts[Phase.DIT],
        slots=slots,
        torch_threads=threads_for(max(1, counts[Phase.DIT])),
    )


def deployed(plan: ClusterPlan) -> ClusterPlan:
    """*plan* without services of its own, if the environment names those of a deployment.

    Raises:
        ConfigError: It names some of them, but not all.
    """
    settings = load_settings()
    if not (settings.database_url.get_secret_value() or settings.broker_url.get_secret_value()):
        return plan
    require(settings, "database_url", "broker_url", "artifacts_url")
    return replace(plan, schedulers=0, flower=False, is_deployed=True)


def check_complete(plan: ClusterPlan) -> None:
    """Check that a cluster of this host's workers alone can make a video.

    Raises:
        ConfigError: A phase has no worker.
    """
    lacking = set(Phase) - {slot.phase for slot in plan.workers}
    for phase in sorted(lacking):
        raise ConfigError(
            f"the cluster file has no {phase} worker for host {load_settings().host}, and "
            "`ddit run` has no other hosts: add one, or deploy with `ddit up --cluster`"
        )


def other_hosts(cluster: Path) -> tuple[str, ...]:
    """The hosts of the file that are not this one."""
    own = load_settings().host
    return tuple(host.name for host in load_cluster_file(cluster).hosts if host.name != own)


def shown(slots: tuple[WorkerSlot, ...]) -> str:
    """``4 dit, 1 encode and 1 vae workers``, in a few words."""
    counts = Counter(slot.phase for slot in slots)
    words = [f"{counts[phase]} {phase}" for phase in Phase if counts[phase]]
    return ", ".join(words) or "none"

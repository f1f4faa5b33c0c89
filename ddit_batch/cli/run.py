"""``ddit run``: a file becomes videos, with a cluster of its own."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from sqlalchemy import Engine

from ddit_batch.artifact import ArtifactStore
from ddit_batch.artifact_keys import file_name_for
from ddit_batch.cli.command import command
from ddit_batch.cli.connection import ready_cluster
from ddit_batch.cli.display import BatchDisplay, Look
from ddit_batch.cli.options import flower_option, home_option, workers_option
from ddit_batch.cli.prompt_options import (
    file_argument,
    format_option,
    model_option,
    set_option,
    skip_invalid_option,
)
from ddit_batch.cli.prompts import (
    START_OVER,
    Prompts,
    check_served,
    load_prompts,
    submit_prompts,
)
from ddit_batch.cli.skipped import error_lines, errors_file, keep_skipped
from ddit_batch.cli.threads import threads_for
from ddit_batch.cli.watch import OUTAGE_S, look_at
from ddit_batch.config import load_settings
from ddit_batch.db import status
from ddit_batch.db.engine import make_engine, persist
from ddit_batch.delivery import deliver
from ddit_batch.embedded.cluster import start_cluster, stop_cluster
from ddit_batch.embedded.home import ClusterState, Home, running_cluster
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.embedded.process import tail
from ddit_batch.errors import ServiceError
from ddit_batch.formats import FormatName
from ddit_batch.job import BatchId, JobState, Phase
from ddit_batch.results import write_results

POLL_S = 0.25
HOPELESS_RESTARTS = 3
"""A worker that was restarted this often and never registered will not come up: see its log."""
STOPPED_EXIT_CODE = 130


@command("ddit run prompts.jsonl --out videos")
@file_argument
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("videos"),
    show_default=True,
    help="Folder for <custom_id>.mp4 and <custom_id>.json.",
)
@workers_option
@model_option
@set_option
@format_option
@skip_invalid_option
@home_option
@flower_option
def run(
    file: str,
    out: Path,
    workers: int,
    model: str,
    overrides: dict[str, str],
    format_name: FormatName | None,
    skip_invalid: bool,
    home: Home,
    flower: bool,
) -> None:
    """Turn FILE into videos: start what is needed, show progress, stop what was started.

    The same command again goes on where it was stopped: finished videos are kept, half-done ones
    continue at their last step.
    """
    prompts = load_prompts(
        file,
        model=model,
        overrides=overrides,
        models_folder=load_settings().models_folder,
        format_name=format_name,
        skip_invalid=skip_invalid,
    )
    keep_skipped(prompts, file=file, errors=errors_file(None, out))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = ClusterPlan(
        dit_workers=workers,
        models=prompts.models,
        flower=flower,
        torch_threads=threads_for(workers),
    )
    try:
        with _cluster(home, plan, prompts) as cluster:
            engine = make_engine(cluster.database_url)
            try:
                succeeded = _run_batch(engine, home, cluster, prompts, out)
            finally:
                engine.dispose()
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(STOPPED_EXIT_CODE)
    if not succeeded:
        sys.exit(1)


@contextmanager
def _cluster(home: Home, plan: ClusterPlan, prompts: Prompts) -> Iterator[ClusterState]:
    """The cluster that runs in *home*, or one for the length of the block."""
    state = ready_cluster(home)
    if state is not None:
        click.echo(f"using the cluster that runs in {home.path}", err=True)
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
            _check_health(engine, home)
            time.sleep(POLL_S)
        check_served(engine, prompts, cure=START_OVER)
    finally:
        engine.dispose()


def _stop(home: Home) -> None:
    try:
        stop_cluster(home)
    except KeyboardInterrupt:
        stop_cluster(home)  # asked again: the supervisor hurries


def _run_batch(
    engine: Engine, home: Home, cluster: ClusterState, prompts: Prompts, out: Path
) -> bool:
    """Submit, watch until nothing is left to do, deliver, sum up. False: a job failed."""
    submission = submit_prompts(engine, prompts, out=out, new=False)
    batch_id = submission.batch_id
    before = _look(engine, batch_id)
    if not submission.created:
        click.echo(
            f"batch {batch_id} goes on: {before.batch.done} of {before.batch.total} done", err=True
        )
    begun_s = time.monotonic()
    with BatchDisplay(prompts.name) as display:
        while not (look := _look(engine, batch_id)).batch.is_done:
            display.show(look)
            _check_health(engine, home)
            time.sleep(POLL_S)
        display.show(look)
    _deliver_missing(engine, batch_id, ArtifactStore(cluster.artifacts_url), out)
    skipped = error_lines(prompts.skipped)
    write_results(status.finished_jobs(engine, batch_id), out, skipped=skipped)
    return _sum_up(
        engine,
        look,
        out,
        newly=look.batch.done - before.batch.done,
        seconds=time.monotonic() - begun_s,
    )


def _look(engine: Engine, batch_id: BatchId) -> Look:
    """The batch at this instant, or as soon as the database is back."""
    return persist(lambda: look_at(engine, batch_id), give_up_s=OUTAGE_S, what="look at progress")


def _check_health(engine: Engine, home: Home) -> None:
    """Raise ServiceError when waiting on makes no sense."""
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


def _deliver_missing(engine: Engine, batch_id: BatchId, store: ArtifactStore, out: Path) -> None:
    """Make the user's files that are not there: a worker may have died between commit and file."""
    for job in status.finished_jobs(engine, batch_id):
        names = (file_name_for(job.custom_id, suffix) for suffix in (".mp4", ".json"))
        if job.artifact_key and job.manifest_key and not all((out / n).exists() for n in names):
            deliver(
                store,
                str(out.resolve()),
                custom_id=job.custom_id,
                artifact_key=job.artifact_key,
                manifest_key=job.manifest_key,
            )


def _sum_up(engine: Engine, look: Look, out: Path, *, newly: int, seconds: float) -> bool:
    jobs = look.batch.jobs
    for job in status.finished_jobs(engine, look.batch.batch_id):
        if job.state is JobState.FAILED:
            click.echo(f"{job.custom_id}: {job.failure_code}: {job.failure_message}", err=True)
    counts = ", ".join(f"{jobs[state]} {state}" for state in JobState if jobs.get(state))
    rate = f", {newly / seconds * 60:.1f} videos a minute" if newly else ""
    click.echo(f"{counts} in {seconds:.1f} s{rate}; videos in {out}", err=True)
    return jobs.get(JobState.SUCCEEDED, 0) == look.batch.total

"""``ddit run``: a file becomes videos, with a cluster of its own."""

from __future__ import annotations

import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import click
from sqlalchemy import Engine

from ddit_batch.artifact import ArtifactStore
from ddit_batch.artifact_keys import file_name_for
from ddit_batch.cli.batch_options import deadline_option, share_option, wishes_of
from ddit_batch.cli.command import command
from ddit_batch.cli.display import Look
from ddit_batch.cli.machine import check_complete, cluster_option, planned, workers_option
from ddit_batch.cli.options import flower_option, home_option
from ddit_batch.cli.own_cluster import check_cluster, cluster_at_hand
from ddit_batch.cli.policy_option import policy_option
from ddit_batch.cli.prompt_options import (
    file_argument,
    format_option,
    model_option,
    set_option,
    skip_invalid_option,
)
from ddit_batch.cli.prompts import Prompts, load_prompts, submit_prompts
from ddit_batch.cli.skipped import error_lines, errors_file, keep_skipped
from ddit_batch.cli.watch import follow, look_at
from ddit_batch.config import load_settings
from ddit_batch.db import status
from ddit_batch.db.engine import make_engine
from ddit_batch.db.submission import Wishes
from ddit_batch.delivery import deliver
from ddit_batch.embedded.home import ClusterState, Home
from ddit_batch.formats import FormatName
from ddit_batch.job import BatchId, JobState
from ddit_batch.results import write_results

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
@cluster_option
@model_option
@set_option
@format_option
@skip_invalid_option
@share_option
@deadline_option
@policy_option
@home_option
@flower_option
def run(
    file: str,
    out: Path,
    workers: int,
    cluster: Path | None,
    model: str,
    overrides: dict[str, str],
    format_name: FormatName | None,
    skip_invalid: bool,
    share: float | None,
    deadline: datetime | timedelta | None,
    policy: str | None,
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
    plan = planned(
        workers=workers, cluster=cluster, models=prompts.models, flower=flower, policy=policy
    )
    check_complete(plan)
    keep_skipped(prompts, file=file, errors=errors_file(None, out))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wishes = wishes_of(share, deadline)
    try:
        with cluster_at_hand(home, plan, prompts) as running:
            engine = make_engine(running.database_url)
            try:
                succeeded = _run_batch(engine, home, running, prompts, out, wishes)
            finally:
                engine.dispose()
    except KeyboardInterrupt:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(STOPPED_EXIT_CODE)
    if not succeeded:
        sys.exit(1)


def _run_batch(
    engine: Engine,
    home: Home,
    cluster: ClusterState,
    prompts: Prompts,
    out: Path,
    wishes: Wishes,
) -> bool:
    """Submit, watch until nothing is left to do, deliver, sum up. False: a job failed."""
    submission = submit_prompts(engine, prompts, out=out, new=False, wishes=wishes)
    batch_id = submission.batch_id
    before = look_at(engine, batch_id)
    if not submission.created:
        click.echo(
            f"batch {batch_id} goes on: {before.batch.done} of {before.batch.total} done", err=True
        )
    begun_s = time.monotonic()
    look = follow(engine, batch_id, lambda: check_cluster(engine, home))
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
                anew=True,
            )


def _sum_up(engine: Engine, look: Look, out: Path, *, newly: int, seconds: float) -> bool:
    jobs = look.batch.jobs
    for job in status.finished_jobs(engine, look.batch.batch_id):
        if job.state is JobState.FAILED:
            click.echo(f"{job.custom_id}: {job.failure_code}: {job.failure_message}", err=True)
    for failed in status.failures(engine, look.batch.batch_id):
        if failed.advice is not None:
            click.echo(f"{failed.code}: {failed.advice}", err=True)
    counts = ", ".join(f"{jobs[state]} {state}" for state in JobState if jobs.get(state))
    rate = f", {newly / seconds * 60:.1f} videos a minute" if newly else ""
    click.echo(f"{counts} in {seconds:.1f} s{rate}; videos in {out}", err=True)
    return jobs.get(JobState.SUCCEEDED, 0) == look.batch.total

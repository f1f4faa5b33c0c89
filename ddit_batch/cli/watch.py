"""``ddit watch``: the live picture of a batch that runs anyway."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import click
from sqlalchemy import Engine

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import connected_engine
from ddit_batch.cli.display import BatchDisplay, Look
from ddit_batch.cli.options import home_option
from ddit_batch.db import status
from ddit_batch.db.engine import persist
from ddit_batch.embedded.home import Home
from ddit_batch.job import BatchId, JobState

POLL_S = 0.25
OUTAGE_S = 60.0
"""How long the display waits for a database that is away."""


@command("ddit watch")
@click.argument("batch", required=False)
@home_option
def watch(batch: str | None, home: Home) -> None:
    """Show progress of BATCH, or of the newest, until it is done. Ctrl-C only looks away."""
    with connected_engine(home) as engine:
        batch_id = _chosen(engine, batch)
        try:
            look = follow(engine, batch_id)
        except KeyboardInterrupt:
            click.echo("the batch goes on", err=True)
            return
    if look.batch.jobs.get(JobState.SUCCEEDED, 0) < look.batch.total:
        sys.exit(1)


def look_at(engine: Engine, batch_id: BatchId) -> Look:
    """The batch at this instant."""
    done, total = status.steps_done(engine, batch_id)
    return Look(
        batch=status.one_batch(engine, batch_id),
        running=status.running_jobs(engine, batch_id),
        steps_done=done,
        steps=total,
    )


def _chosen(engine: Engine, batch: str | None) -> BatchId:
    if batch:
        return BatchId(batch)
    found = status.batches(engine)
    if not found:
        raise click.ClickException("there is no batch yet: `ddit submit FILE` makes one")
    return found[0].batch_id


def follow(engine: Engine, batch_id: BatchId, check: Callable[[], None] | None = None) -> Look:
    """Show the batch until it is done, calling *check* now and then; returns its last picture."""
    look = _look(engine, batch_id)
    with BatchDisplay(look.batch.name) as display:
        display.show(look)
        while not look.batch.is_done:
            if check:
                check()
            time.sleep(POLL_S)
            look = _look(engine, batch_id)
            display.show(look)
    return look


def _look(engine: Engine, batch_id: BatchId) -> Look:
    """The batch at this instant, or as soon as the database is back."""
    return persist(lambda: look_at(engine, batch_id), give_up_s=OUTAGE_S, what="look at progress")

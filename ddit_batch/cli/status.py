"""``ddit status``: what has become of the batches."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.table import Table

from ddit_batch.cli.connection import connected_engine
from ddit_batch.cli.options import home_option
from ddit_batch.db.status import BatchSummary, batches
from ddit_batch.embedded.home import Home
from ddit_batch.job import BatchId, JobState


@click.command()
@click.argument("batch", required=False)
@home_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a batch.")
def status(batch: str | None, home: Home, as_json: bool) -> None:
    """Show all batches, or one BATCH.

    \b
    ddit status
    """
    with connected_engine(home) as engine:
        found = batches(engine, BatchId(batch) if batch else None)
    if batch and not found:
        raise click.ClickException(f"no batch {batch!r}: `ddit status` lists them")
    if as_json:
        for summary in found:
            click.echo(json.dumps(_as_json(summary)))
    else:
        Console().print(_as_table(found))


def _as_json(summary: BatchSummary) -> dict[str, object]:
    return {
        "batch_id": summary.batch_id,
        "name": summary.name,
        "total": summary.total,
        "created_at": summary.created_at.isoformat(),
        **{str(state): summary.jobs.get(state, 0) for state in JobState},
    }


def _as_table(found: tuple[BatchSummary, ...]) -> Table:
    table = Table("batch", "file", "jobs", *JobState)
    for summary in found:
        counts = [str(summary.jobs.get(state, 0) or "") for state in JobState]
        table.add_row(summary.batch_id, summary.name, str(summary.total), *counts)
    return table

"""``ddit results``: what came of each line, in the output format of the OpenAI Batch API."""

from __future__ import annotations

from pathlib import Path

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import readable_source
from ddit_batch.cli.options import batch_argument, home_option
from ddit_batch.db.status import finished_jobs, one_batch
from ddit_batch.embedded.home import Home
from ddit_batch.job import BatchId
from ddit_batch.results import ERRORS_FILE, RESULTS_FILE, result_line, write_results


@command("ddit results b0123456789 --out videos")
@batch_argument
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Write {RESULTS_FILE} and {ERRORS_FILE} into this folder instead of to stdout.",
)
@home_option
def results(batch: str, out: Path | None, home: Home) -> None:
    """Print a JSON line for every finished job of BATCH."""
    with readable_source(home) as source:
        batch_id = one_batch(source, BatchId(batch)).batch_id
        if out is not None:
            write_results(finished_jobs(source, batch_id), out)
            return
        for job in finished_jobs(source, batch_id):
            click.echo(result_line(job))

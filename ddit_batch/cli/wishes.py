"""``ddit cancel`` and ``ddit retry``."""

from __future__ import annotations

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import lasting_engine
from ddit_batch.cli.options import home_option
from ddit_batch.db import wishes
from ddit_batch.embedded.home import Home

ids_argument = click.argument("ids", nargs=-1, required=True, metavar="BATCH|JOB...")


@command("ddit cancel b0123456789")
@ids_argument
@home_option
def cancel(ids: tuple[str, ...], home: Home) -> None:
    """Cancel whole batches, or single jobs; what is under way stops at its next step boundary."""
    with lasting_engine(home) as engine:
        count = wishes.cancel(engine, ids)
    click.echo(f"{count} jobs to cancel", err=True)


@command("ddit retry b0123456789")
@ids_argument
@home_option
def retry(ids: tuple[str, ...], home: Home) -> None:
    """Try failed jobs again, and nothing else: each from the last phase that succeeded."""
    with lasting_engine(home) as engine:
        count = wishes.retry(engine, ids)
    click.echo(f"{count} jobs to try again", err=True)

"""``ddit cancel``, ``ddit retry``, ``ddit pause`` and ``ddit resume``."""

from __future__ import annotations

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import lasting_engine
from ddit_batch.cli.options import home_option
from ddit_batch.db import wishes
from ddit_batch.embedded.home import Home

ids_argument = click.argument("ids", nargs=-1, required=True, metavar="BATCH|JOB...")
batches_argument = click.argument("ids", nargs=-1, required=True, metavar="BATCH...")


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


@command("ddit pause b0123456789")
@batches_argument
@home_option
def pause(ids: tuple[str, ...], home: Home) -> None:
    """Have nothing more of whole batches sent, until `ddit resume`.

    What is denoised is given back with a checkpoint at its next step boundary; what is encoded or
    decoded is done first.
    """
    with lasting_engine(home) as engine:
        count = wishes.pause(engine, ids)
    click.echo(f"{count} jobs paused", err=True)


@command("ddit resume b0123456789")
@batches_argument
@home_option
def resume(ids: tuple[str, ...], home: Home) -> None:
    """Have paused batches go on, each job from where it was."""
    with lasting_engine(home) as engine:
        count = wishes.resume(engine, ids)
    click.echo(f"{count} jobs go on", err=True)

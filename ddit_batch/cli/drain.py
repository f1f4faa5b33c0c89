"""``ddit drain``."""

from __future__ import annotations

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import connected_engine
from ddit_batch.cli.options import home_option
from ddit_batch.db import drains
from ddit_batch.embedded.home import Home


@command("ddit drain dit-3@gpu-a")
@click.argument("workers", nargs=-1, required=True, metavar="WORKER...")
@home_option
def drain(workers: tuple[str, ...], home: Home) -> None:
    """Have workers leave in order: no new work, what they hold done or given back, then the end.

    A job that is denoised comes back with a checkpoint at its next step boundary and goes on
    elsewhere. `ddit up` does not start them again; a service manager of yours might.
    """
    with connected_engine(home) as engine:
        names = drains.drain(engine, workers)
    click.echo(f"asked to leave: {', '.join(names)}", err=True)

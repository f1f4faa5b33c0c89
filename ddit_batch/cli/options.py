"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from ddit_batch.embedded.home import Home


def _as_home(_: click.Context, __: click.Parameter, value: Path) -> Home:
    return Home(value)


home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".ddit"),
    show_default=True,
    envvar="DDIT_HOME",
    callback=_as_home,
    help="Folder of the embedded cluster: databases, store, logs.",
)

flower_option = click.option(
    "--flower/--no-flower", default=True, show_default=True, help="Watch tasks in a browser."
)

batch_argument = click.argument("batch")

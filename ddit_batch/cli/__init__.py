"""The command line: thin faces on public Python calls. Data on stdout, talk on stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage (an option, or a line of the input file), 130 stopped by
Ctrl-C.
"""

from __future__ import annotations

import click

from ddit_batch import __version__
from ddit_batch.cli.cluster import down, up
from ddit_batch.cli.run import run
from ddit_batch.cli.services import db, flower, scheduler, worker
from ddit_batch.cli.status import status
from ddit_batch.cli.submit import submit
from ddit_batch.errors import DditError, RequestError


class _Failed(click.ClickException):
    exit_code = 1


class _WrongInput(click.ClickException):
    exit_code = 2


class _DditGroup(click.Group):
    """Turns the project's errors into messages: no traceback reaches a user."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except DditError as exc:
            raise (_WrongInput if isinstance(exc, RequestError) else _Failed)(str(exc)) from exc


@click.group(cls=_DditGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ddit")
def main() -> None:
    """A file of prompts becomes videos.

    \b
    ddit run prompts.jsonl --out videos
    """


for command in (run, up, down, submit, status, scheduler, worker, flower, db):
    main.add_command(command)

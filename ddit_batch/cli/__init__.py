"""The command line: thin faces on public Python calls. Data on stdout, talk on stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage (an option, or a line of the input file), 130 stopped by
Ctrl-C.
"""

from __future__ import annotations

import click

from ddit_batch import __version__
from ddit_batch.cli.group import CommandGroup

PLACES = {
    "run": "ddit_batch.cli.run:run",
    "up": "ddit_batch.cli.cluster:up",
    "down": "ddit_batch.cli.cluster:down",
    "submit": "ddit_batch.cli.submit:submit",
    "status": "ddit_batch.cli.status:status",
    "watch": "ddit_batch.cli.watch:watch",
    "results": "ddit_batch.cli.results:results",
    "cancel": "ddit_batch.cli.wishes:cancel",
    "retry": "ddit_batch.cli.wishes:retry",
    "sql": "ddit_batch.cli.sql:sql",
    "profile": "ddit_batch.cli.profile:profile",
    "doctor": "ddit_batch.cli.doctor:doctor",
    "scheduler": "ddit_batch.cli.services:scheduler",
    "worker": "ddit_batch.cli.services:worker",
    "flower": "ddit_batch.cli.services:flower",
    "db": "ddit_batch.cli.services:db",
}
"""Users' commands first, then those that a service manager runs."""


@click.group(
    cls=CommandGroup, places=PLACES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="ddit")
def main() -> None:
    """A file of prompts becomes videos.

    \b
    ddit run prompts.jsonl --out videos
    """

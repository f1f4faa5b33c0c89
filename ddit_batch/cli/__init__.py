"""The command line: thin faces on public Python calls. Data on stdout, talk on stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage (an option, or a line of the input file), 130 stopped by
Ctrl-C.
"""

from __future__ import annotations

import click

from ddit_batch import __version__
from ddit_batch.cli.group import CommandGroup, Place

PLACES = {
    "run": Place(
        "ddit_batch.cli.run:run",
        "Turn FILE into videos: start what is needed, show progress, stop what was started.",
    ),
    "up": Place(
        "ddit_batch.cli.cluster:up", "Start a cluster in the background; `ddit down` stops it."
    ),
    "down": Place(
        "ddit_batch.cli.cluster:down", "Stop the cluster: running jobs checkpoint and wait."
    ),
    "submit": Place(
        "ddit_batch.cli.submit:submit",
        "Submit FILE (- is standard input) to the running cluster; prints the batch's id.",
    ),
    "status": Place(
        "ddit_batch.cli.status:status",
        "Show all batches, or one BATCH, or the whole story of one JOB.",
    ),
    "explain": Place(
        "ddit_batch.cli.explain:explain",
        "Say why JOB waits, or has the dop that it has, from the decisions on record.",
    ),
    "watch": Place(
        "ddit_batch.cli.watch:watch",
        "Show progress of BATCH, or of the newest, until it is done.",
    ),
    "results": Place(
        "ddit_batch.cli.results:results", "Print a JSON line for every finished job of BATCH."
    ),
    "cancel": Place(
        "ddit_batch.cli.wishes:cancel",
        "Cancel whole batches, or single jobs; what is under way stops at its next step boundary.",
    ),
    "retry": Place(
        "ddit_batch.cli.wishes:retry",
        "Try failed jobs again, and nothing else: each from the last phase that succeeded.",
    ),
    "pause": Place(
        "ddit_batch.cli.wishes:pause",
        "Have nothing more of whole batches sent, until `ddit resume`.",
    ),
    "resume": Place(
        "ddit_batch.cli.wishes:resume", "Have paused batches go on, each job from where it was."
    ),
    "drain": Place(
        "ddit_batch.cli.drain:drain",
        "Have workers leave in order: no new work, what they hold done or given back, then the "
        "end.",
    ),
    "gc": Place(
        "ddit_batch.cli.gc:gc",
        "Find the files in the artifact store that no job in the database needs.",
    ),
    "sql": Place(
        "ddit_batch.cli.sql:sql",
        "Run QUERY on the documented views; it can read them and change nothing.",
    ),
    "profile": Place(
        "ddit_batch.cli.profile:profile",
        "Measure what steps, encoding and decoding take, and write a profile.",
    ),
    "plan": Place(
        "ddit_batch.cli.plan:plan",
        "Say how many GPUs FILE (- is standard input) needs to be done by a time from its start.",
    ),
    "simulate": Place(
        "ddit_batch.cli.simulate:simulate_command",
        "Simulate a workload under one policy or several, side by side.",
    ),
    "doctor": Place(
        "ddit_batch.cli.doctor:doctor",
        "Check this installation and the cluster in reach; exit 1 if something is bad.",
    ),
    "scheduler": Place(
        "ddit_batch.cli.services:scheduler", "Decide who works on what, until told to stop."
    ),
    "worker": Place(
        "ddit_batch.cli.services:worker",
        "Serve one phase on one GPU or CPU slot, until told to stop.",
    ),
    "flower": Place("ddit_batch.cli.services:flower", "Watch the tasks in a browser."),
    "db": Place("ddit_batch.cli.services:db", "Look after the database."),
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

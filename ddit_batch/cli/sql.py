"""``ddit sql``: ask the views of the database."""

from __future__ import annotations

import csv
import json
import sys

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import readable_source
from ddit_batch.cli.options import home_option
from ddit_batch.db.query import QueryResult, run_query
from ddit_batch.embedded.home import Home


@command("ddit sql \"SELECT custom_id, failure_message FROM job_status WHERE state = 'failed'\"")
@click.argument("query")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True)
@home_option
def sql(query: str, as_json: bool, as_csv: bool, limit: int, home: Home) -> None:
    """Run QUERY on the documented views; it can read them and change nothing. `-` reads stdin."""
    text = sys.stdin.read() if query == "-" else query
    with readable_source(home) as source:
        found = run_query(source, text, limit=limit)
    if as_json:
        for row in found.rows:
            click.echo(json.dumps(dict(zip(found.columns, row, strict=True)), default=str))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(found.columns)
        writer.writerows(found.rows)
    else:
        _print_table(found)
    if found.truncated:
        click.echo(f"only the first {limit} rows: raise --limit for more", err=True)


def _print_table(found: QueryResult) -> None:
    from rich.console import Console  # noqa: PLC0415 -- slow, and not for JSON or CSV
    from rich.table import Table  # noqa: PLC0415 -- the same

    table = Table(*found.columns)
    for row in found.rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    Console().print(table)

"""A command that only looks does not wait for libraries that it does not use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import click
import pytest
from finished_batch import three_jobs
from sqlalchemy import Engine

from ddit_batch.cli import PLACES, main
from ddit_batch.job import BatchId

LIBRARIES = frozenset(
    {
        "alembic",
        "celery",
        "fsspec",
        "kombu",
        "prometheus_client",
        "psycopg",
        "pydantic",
        "pydantic_settings",
        "redis",
        "rich",
        "sqlalchemy",
        "yaml",
    }
)
"""What the control plane has, but for click, which no command can do without."""
RUN = """
import json, sys
from ddit_batch.cli import main
try:
    main(json.loads(sys.argv[1]), prog_name="ddit")
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@dataclass(frozen=True)
class Done:
    """What a process of ``ddit`` said, and what it had loaded at its end."""

    stdout: str
    modules: frozenset[str]

    @property
    def libraries(self) -> frozenset[str]:
        """Those of ``LIBRARIES`` among the modules."""
        return LIBRARIES & {name.partition(".")[0] for name in self.modules}


def ddit(*words: str, database_url: str = "") -> Done:
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(words)],
        env={**os.environ, "DDIT_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Done(done.stdout, frozenset(json.loads(done.stderr.splitlines()[-1])))


@pytest.fixture
def batch(engine: Engine) -> BatchId:
    """Three jobs: succeeded, failed, queued."""
    return three_jobs(engine)


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("status", {"psycopg", "rich"}),
        ("status --json", {"psycopg"}),
        ("status BATCH --json", {"psycopg"}),
        ("status BATCH-000001", {"psycopg", "rich"}),
        ("status BATCH-000001 --json", {"psycopg"}),
        ("results BATCH", {"psycopg"}),
        ("explain BATCH-000001", {"psycopg"}),
        ("explain BATCH-000002 --json", {"psycopg"}),
    ],
)
def test_look_at_a_batch_loads_no_more_than_it_uses(
    batch: BatchId, database_url: str, words: str, needed: set[str]
) -> None:
    """The driver, and what draws tables where one is drawn."""
    done = ddit(*words.replace("BATCH", batch).split(), database_url=database_url)

    assert batch in done.stdout
    assert done.libraries == needed


@pytest.mark.parametrize(
    ("flags", "needed"),
    [([], {"psycopg", "rich"}), (["--json"], {"psycopg"}), (["--csv"], {"psycopg"})],
)
def test_query_loads_no_more_than_it_uses(
    database_url: str, flags: list[str], needed: set[str]
) -> None:
    """The same for queries of one's own."""
    done = ddit("sql", "SELECT 6 * 7 AS answer", *flags, database_url=database_url)

    assert "42" in done.stdout
    assert done.libraries == needed


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_loads_no_command(flag: str) -> None:
    """The list of the commands is there before any of them."""
    done = ddit(flag)

    assert not done.libraries
    modules = {place.path.partition(":")[0] for place in PLACES.values()}
    assert not done.modules & modules


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("limit", [20, 45, 200])
def test_summary_in_the_list_is_that_of_the_command(name: str, limit: int) -> None:
    """The help of ``ddit`` says of a command what the command would say, at any width."""
    command = main.get_command(click.Context(main), name)
    listed = click.Command(name, help=PLACES[name].summary)

    assert command is not None
    assert not command.hidden
    assert listed.get_short_help_str(limit) == command.get_short_help_str(limit)


def test_list_of_commands_is_laid_out_as_click_does() -> None:
    """Nobody sees that it was made without them."""
    context = click.Context(main, info_name="ddit")
    ours, clicks = (context.make_formatter() for _ in range(2))

    main.format_commands(context, ours)
    click.Group.format_commands(main, context, clicks)

    assert ours.getvalue() == clicks.getvalue()

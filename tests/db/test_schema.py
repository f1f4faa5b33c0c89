from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, text

import ddit_batch.db.service_models  # noqa: F401 -- its tables are Base's too
from ddit_batch.db.migrate import upgrade
from ddit_batch.db.models import Base
from ddit_batch.db.schema_version import check_schema
from ddit_batch.errors import ConfigError

CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'u', 'p', 'f')
  AND conrelid::regclass::text <> 'alembic_version'
"""
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename <> 'alembic_version'"
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity,
       identity_generation
FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name <> 'alembic_version'
"""
CHECKS_OF_JOBS = {
    "jobs_state",
    "jobs_held_while_worked_on",
    "jobs_held_dispatched",
    "jobs_embeddings",
    "jobs_latents",
    "jobs_artifact",
    "jobs_cause",
    "jobs_step",
    "jobs_ckpt",
}

UPGRADE = "import os; from ddit_batch.db.migrate import upgrade; upgrade(os.environ['URL'])"


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def catalog(connection: Connection) -> dict[str, set[tuple[object, ...]]]:
    """What Postgres says of a schema, in its own words; NOT NULL is told by the columns."""
    queries = {"constraints": CONSTRAINTS, "indexes": INDEXES, "columns": COLUMNS}
    return {
        name: {tuple(row) for row in connection.execute(text(query))}
        for name, query in queries.items()
    }


def test_migrations_make_what_the_models_say(engine: Engine) -> None:
    """Alembic finds nothing to generate: tables, columns, types, defaults, indexes agree."""
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)

        assert compare_metadata(context, Base.metadata) == []


def test_migrations_make_the_same_schema_as_the_models_would(
    engine: Engine, empty_engine: Engine
) -> None:
    """Every column, constraint and index is the same to the letter, checks included."""
    Base.metadata.create_all(empty_engine)

    with engine.connect() as migrated, empty_engine.connect() as modelled:
        assert catalog(migrated) == catalog(modelled)


def test_checks_of_jobs_have_names_that_an_error_can_be_traced_by(engine: Engine) -> None:
    """Each invariant of a job is a constraint with a name of its own."""
    named = text(
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'jobs'::regclass"
    )
    with engine.connect() as connection:
        assert set(connection.scalars(named)) == CHECKS_OF_JOBS


def test_upgrade_of_an_upgraded_database_changes_nothing(empty_engine: Engine) -> None:
    """Who starts a service upgrades first, whether that is needed or not."""
    url = url_of(empty_engine)
    upgrade(url)
    with empty_engine.connect() as connection:
        before = catalog(connection)
        term = connection.execute(text("SELECT term FROM leadership")).all()

    upgrade(url)

    with empty_engine.connect() as connection:
        assert catalog(connection) == before
        assert connection.execute(text("SELECT term FROM leadership")).all() == term == [(0,)]


def test_processes_that_upgrade_at_once_take_turns(empty_engine: Engine) -> None:
    """Two services that start together on an empty database both find it ready."""
    environment = {**os.environ, "URL": url_of(empty_engine)}
    command = [sys.executable, "-c", UPGRADE]

    processes = [subprocess.Popen(command, env=environment) for _ in range(3)]

    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    check_schema(empty_engine)


def test_check_of_an_empty_database_says_how_to_mend_it(empty_engine: Engine) -> None:
    """The message names what is there, what is needed, and the command."""
    with pytest.raises(ConfigError) as caught:
        check_schema(empty_engine)

    found, _, cure = str(caught.value).partition(": ")
    assert re.fullmatch(r"the database has schema none, this release needs \d{4}", found)
    assert cure == "run `ddit db upgrade` (or update ddit-batch, if the database is newer)"


def test_check_refuses_a_database_of_another_release(empty_engine: Engine) -> None:
    """A schema that this release does not know is not written to."""
    upgrade(url_of(empty_engine))
    check_schema(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(ConfigError, match="has schema 9999, this release needs"):
        check_schema(empty_engine)

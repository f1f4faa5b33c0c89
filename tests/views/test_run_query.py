from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from farm import Farm, request
from sqlalchemy import Engine, text

from ddit_batch.db.engine import make_engine
from ddit_batch.db.query import QueryResult, run_query
from ddit_batch.errors import RequestError, ServiceError
from ddit_batch.scheduler.service import LEADER_LOCK

TABLES = ("batches", "jobs", "job_events", "attempts", "segments", "workers", "leadership")
BECOME_OWNER = "set_config('role', 'postgres', true)"

NOT_ONE_QUERY = [
    "",
    "-- nothing",
    "DROP TABLE jobs",
    "TRUNCATE jobs CASCADE",
    "COMMIT",
    "ROLLBACK",
    "RESET ROLE",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ALL",
    "COPY jobs TO PROGRAM 'touch {folder}/written'",
    "COPY (SELECT 1) TO '{folder}/written'",
    "COPY (SELECT 1) TO STDOUT",
    "CREATE TABLE other AS SELECT 1",
    "SELECT 1 INTO other",
    "DO $$ BEGIN EXECUTE 'RESET ROLE'; DELETE FROM jobs; END $$",
    "ALTER ROLE ddit_reader SUPERUSER",
    "ALTER SYSTEM SET max_connections = 1",
    "PREPARE plan AS DELETE FROM jobs",
    "DECLARE cursor CURSOR FOR SELECT 1",
    "LISTEN ddit_scheduler",
    "NOTIFY ddit_scheduler",
    "VACUUM",
]
SEVERAL = [
    "SELECT 1; SELECT 2",
    "COMMIT; DROP TABLE jobs",
    "SELECT 1; COMMIT; RESET ROLE; DROP TABLE jobs; --",
    "SELECT 1) AS q; DROP TABLE jobs; SELECT (2",
]
FORBIDDEN = [
    *(f"SELECT * FROM {table}" for table in TABLES),
    "SELECT count(*) FROM alembic_version",
    "SELECT rolpassword FROM pg_authid",
    "DELETE FROM jobs RETURNING id",
    "WITH gone AS (DELETE FROM jobs RETURNING id) SELECT * FROM gone",
    "INSERT INTO batches DEFAULT VALUES RETURNING id",
    "INSERT INTO waiting_jobs DEFAULT VALUES RETURNING *",
    "UPDATE jobs SET priority = 9 RETURNING id",
    "EXPLAIN ANALYZE DELETE FROM jobs",
    "SELECT * FROM job_status FOR UPDATE",
    "SELECT * FROM jobs FOR SHARE",
    "SELECT nextval('jobs_seq_seq')",
    "SELECT setval('jobs_seq_seq', 1)",
    "SELECT lo_create(0)",
    "SELECT lo_import('/etc/hostname')",
    "SELECT lo_export(1, '{folder}/written')",
    "SELECT pg_read_file('/etc/hostname')",
    "SELECT * FROM pg_ls_dir('.')",
    "SELECT pg_reload_conf()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    "SELECT ddit_grant_reader()",
    f"SELECT {BECOME_OWNER}",
    "SELECT set_config('role', 'none', false)",
    "SELECT set_config('session_authorization', 'postgres', true)",
    "SELECT set_config('transaction_read_only', 'off', true)",
    f"SELECT {BECOME_OWNER}, query_to_xml('SELECT * FROM jobs', true, true, '')::text",
    (
        f"WITH me AS MATERIALIZED (SELECT {BECOME_OWNER} AS r) "
        "SELECT pg_read_file('/etc/hostname') FROM me WHERE r IS NOT NULL"
    ),
    f"SELECT query_to_xml($$SELECT {BECOME_OWNER}$$, true, true, '')::text",
    f"SELECT * FROM ddit_read($$SELECT {BECOME_OWNER}$$, 1) AS result (role text)",
    "SELECT * FROM ddit_read('RESET ROLE', 1) AS result (role text)",
    "SELECT * FROM ddit_read('SELECT id FROM jobs', 1) AS result (id text)",
]


def contents(engine: Engine) -> list[object]:
    """Every row of every table, and what roles there are."""
    roles = "SELECT to_jsonb(r)::text FROM pg_roles r ORDER BY 1"
    with engine.connect() as connection:
        queries = [f"SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1" for table in TABLES]
        return [connection.scalars(text(query)).all() for query in (*queries, roles)]


def asked(engine: Engine, query: str, *, limit: int = 10) -> QueryResult:
    return run_query(engine, query, limit=limit, timeout_s=20.0)


def test_query_gives_columns_and_rows_as_python_has_them(engine: Engine) -> None:
    """Types survive, equal names too; a trailing comment or semicolon does no harm."""
    query = (
        "SELECT 1 AS a, 2 AS a, 'x' AS \"Ä b\", NULL, 1.50::numeric(10, 2), ARRAY[1, 2], "
        "'2026-01-01 12:00Z'::timestamptz, '{\"a\": \"100%\"}'::jsonb; -- done"
    )

    found = asked(engine, query)

    assert found.columns == (
        "a",
        "a",
        "Ä b",
        "?column?",
        "numeric",
        "array",
        "timestamptz",
        "jsonb",
    )
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert found.rows == ((1, 2, "x", None, Decimal("1.50"), [1, 2], noon, {"a": "100%"}),)
    assert not found.truncated


@pytest.mark.parametrize(
    "query",
    [
        "WITH jobs AS (SELECT * FROM job_status) SELECT count(*) FROM jobs",
        "VALUES (1), (2)",
        "TABLE batch_progress",
        "SHOW server_version",
        "EXPLAIN (ANALYZE) SELECT * FROM batch_progress",
        "SELECT s FROM job_status s",
    ],
)
def test_every_kind_of_query_is_understood(farm: Farm, query: str) -> None:
    """Whatever gives rows and changes nothing runs."""
    farm.submit()

    assert asked(farm.engine, query).rows


def test_limit_cuts_and_says_so(engine: Engine) -> None:
    """At most so many rows come, however many there would be, and no more are computed."""
    cut = asked(engine, "SELECT generate_series(1, 1000000000) AS n", limit=3)
    whole = asked(engine, "SELECT generate_series(1, 3) AS n", limit=3)

    assert (cut.rows, cut.truncated) == (((1,), (2,), (3,)), True)
    assert (whole.rows, whole.truncated) == (((1,), (2,), (3,)), False)


@pytest.mark.parametrize("query", NOT_ONE_QUERY)
def test_statement_that_is_no_query_is_refused(farm: Farm, tmp_path: Path, query: str) -> None:
    """It is not even begun."""
    farm.submit()
    before = contents(farm.engine)

    with pytest.raises(RequestError, match="only one query is run here"):
        asked(farm.engine, query.replace("{folder}", str(tmp_path)))

    assert contents(farm.engine) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("query", SEVERAL)
def test_several_statements_are_refused(farm: Farm, query: str) -> None:
    """Also when the first of them is harmless."""
    farm.submit()
    before = contents(farm.engine)

    with pytest.raises(RequestError, match=r"more than one statement|syntax error"):
        asked(farm.engine, query)

    assert contents(farm.engine) == before


@pytest.mark.parametrize("query", FORBIDDEN)
def test_query_reads_views_and_nothing_else_and_changes_nothing(
    farm: Farm, tmp_path: Path, query: str
) -> None:
    """Tables, other roles, files, other sessions and writes are out of reach."""
    farm.submit()
    before = contents(farm.engine)

    with pytest.raises(RequestError):
        asked(farm.engine, query.replace("{folder}", str(tmp_path)))

    assert contents(farm.engine) == before
    assert list(tmp_path.iterdir()) == []


def test_other_sessions_and_their_queries_are_not_to_be_seen(farm: Farm) -> None:
    """Activity of the scheduler and the workers shows no text."""
    with farm.engine.connect() as busy:
        busy.execute(text("SELECT 'secret'"))
        found = asked(farm.engine, "SELECT query FROM pg_stat_activity WHERE datname = 'views'")

    assert found.rows
    assert "secret" not in str(found.rows)


def test_locks_and_notifications_of_a_query_leave_with_it(farm: Farm) -> None:
    """Not even the scheduler's own lock is kept, and nobody is woken."""
    url = farm.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as listening:
        listening.execute("LISTEN ddit_scheduler")

        asked(farm.engine, f"SELECT pg_advisory_lock({LEADER_LOCK + 100})::text")
        asked(farm.engine, "SELECT pg_notify('ddit_scheduler', 'boo')::text")

        assert list(listening.notifies(timeout=0.2)) == []
        take = "SELECT pg_try_advisory_lock(%s)"
        assert listening.execute(take, [LEADER_LOCK + 100]).fetchone() == (True,)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT pg_sleep(60)::text",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(60)::text",
        "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 1000) b",
    ],
)
def test_query_that_takes_too_long_is_stopped(engine: Engine, query: str) -> None:
    """Also one that tries to have more time."""
    began = time.monotonic()

    with pytest.raises(RequestError, match=r"took longer than 0\.3 s"):
        run_query(engine, query, limit=1, timeout_s=0.3)

    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "SELECT stat FROM job_status",
            (
                'column "stat" does not exist (line 1, column 8)\n'
                'Hint: Perhaps you meant to reference the column "job_status.state".'
            ),
        ),
        ("SELECT\n  1,,\n 2", 'syntax error at or near "," (line 2, column 5)'),
        ("SELECT 1 WHERE", "syntax error at end of input (line 1, column 15)"),
        ("SELECT * FROM job_statu", 'relation "job_statu" does not exist (line 1, column 15)'),
        ("SELECT 1 / 0", "division by zero"),
        (
            "SELECT * FROM jobs",
            (
                "permission denied for table jobs: a query reads the views of docs/sql.md "
                "and changes nothing"
            ),
        ),
        (
            "SELECT pg_sleep(0)",
            "column 'pg_sleep' is of type void, which cannot be shown: cast it to text",
        ),
        ("SELECT '\0'", "the query contains a NUL character"),
    ],
)
def test_error_says_what_postgres_says(engine: Engine, query: str, message: str) -> None:
    """Message, place and hint, for a person."""
    with pytest.raises(RequestError) as raised:
        asked(engine, query)

    assert str(raised.value) == message


def test_database_that_is_away_is_no_fault_of_the_query(tmp_path: Path) -> None:
    """The error is that of a service, and names the reason."""
    away = make_engine(f"postgresql+psycopg://postgres@/ddit?host={tmp_path}")

    with pytest.raises(ServiceError, match="the database does not answer"):
        run_query(away, "SELECT 1", limit=1)


def test_connections_of_the_engine_are_untouched(farm: Farm) -> None:
    """A query has a connection of its own: the pool's stay what they were."""
    farm.submit(request(1))
    asked(farm.engine, "SELECT set_config('work_mem', '1MB', false)")

    with farm.engine.connect() as connection:
        who = connection.execute(text("SELECT current_user, current_setting('work_mem')")).one()
    assert tuple(who) == ("postgres", "4MB")

"""Making the reader role: allowed or not, once or by many, on a server of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, make_url, text

from ddit_batch.db.engine import make_engine
from ddit_batch.db.migrate import upgrade
from ddit_batch.db.query import run_query
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.postgres import running_postgres
from ddit_batch.errors import RequestError

UPGRADE = "import os; from ddit_batch.db.migrate import upgrade; upgrade(os.environ['URL'])"
DATABASES = ("one", "two", "three")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """URL of a server's own database, as its superuser."""
    with running_postgres(Home(tmp_path_factory.mktemp("server"))) as postgres:
        yield make_url(postgres.service.url)


@pytest.fixture
def admin(server: URL) -> Iterator[Engine]:
    """The superuser of a server without a reader role, with empty databases of the user ddit."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE ddit LOGIN"))
        for name in DATABASES:
            connection.execute(text(f"CREATE DATABASE {name} OWNER ddit"))
    yield engine
    with engine.connect() as connection:
        for name in DATABASES:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        connection.execute(text("DROP ROLE IF EXISTS ddit_reader"))
        connection.execute(text("DROP ROLE ddit"))
    engine.dispose()


def do(admin: Engine, statement: str) -> None:
    with admin.connect() as connection:
        connection.execute(text(statement))


def url_of(admin: Engine, database: str, user: str = "ddit") -> str:
    return admin.url.set(database=database, username=user).render_as_string(hide_password=False)


def is_guarded(url: str) -> bool:
    """Whether a query reads the views, and not the tables."""
    engine = make_engine(url)
    try:
        assert run_query(engine, "SELECT * FROM job_status", limit=1).rows == ()
        who = run_query(engine, "SELECT current_user", limit=1).rows
        try:
            run_query(engine, "SELECT * FROM jobs", limit=1)
        except RequestError:
            assert who == (("ddit_reader",),)
            return True
        assert who == (("ddit",),)
        return False
    finally:
        engine.dispose()


def test_user_who_may_make_roles_gets_a_guard(admin: Engine) -> None:
    """No superuser is needed."""
    do(admin, "ALTER ROLE ddit CREATEROLE")

    upgrade(url_of(admin, "one"))

    assert is_guarded(url_of(admin, "one"))


def test_databases_of_a_server_share_the_role(admin: Engine) -> None:
    """The second database finds the role there, and uses it."""
    do(admin, "ALTER ROLE ddit CREATEROLE")

    for database in DATABASES[:2]:
        upgrade(url_of(admin, database))

    assert all(is_guarded(url_of(admin, database)) for database in DATABASES[:2])


@pytest.mark.parametrize("user", ["postgres", "ddit"])
def test_databases_that_are_upgraded_at_once_make_the_role_once(admin: Engine, user: str) -> None:
    """Whoever is late finds the role made, and goes on."""
    do(admin, "ALTER ROLE ddit CREATEROLE")
    environments = [{**os.environ, "URL": url_of(admin, name, user)} for name in DATABASES]

    processes = [
        subprocess.Popen([sys.executable, "-c", UPGRADE], env=environment)
        for environment in environments
    ]

    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    if user == "ddit":
        assert all(is_guarded(url_of(admin, name)) for name in DATABASES)
    else:
        with admin.connect() as connection:
            made = connection.scalar(
                text("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ddit_%'")
            )
        assert made == 1


def test_user_who_may_not_make_roles_is_told_the_cure_and_can_read(
    admin: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The upgrade succeeds; queries run as the user itself, read-only; the cure is a notice."""
    url = url_of(admin, "one")
    upgrade(url)

    with caplog.at_level(logging.WARNING):
        assert not is_guarded(url)
    assert "runs with the rights of ddit" in caplog.text

    notices: list[str] = []
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection:
        connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        connection.execute("SELECT ddit_grant_reader()")
    assert len(notices) == 1
    assert "permission denied to create role" in notices[0]
    assert "CREATE ROLE ddit_reader; GRANT ddit_reader TO ddit" in notices[0]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM jobs RETURNING id",
        "WITH gone AS (DELETE FROM jobs RETURNING id) SELECT * FROM gone",
        "COMMIT; DROP TABLE jobs",
        "DROP TABLE jobs",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT nextval('jobs_seq_seq')",
    ],
)
def test_without_a_guard_a_query_still_changes_nothing(admin: Engine, query: str) -> None:
    """The transaction is read-only and the statement single, whoever runs it."""
    upgrade(url_of(admin, "one"))
    engine = make_engine(url_of(admin, "one"))

    with pytest.raises(RequestError):
        run_query(engine, query, limit=1)

    rows = run_query(engine, "SELECT generate_series(1, 1000000)", limit=2)
    assert (rows.rows, rows.truncated) == (((1,), (2,)), True)
    assert run_query(engine, "EXPLAIN SELECT 1", limit=5).rows
    engine.dispose()


def test_role_made_later_guards_once_it_is_granted(admin: Engine) -> None:
    """An administrator makes the role, the owner of the views grants them: both can be repeated."""
    url = url_of(admin, "one")
    upgrade(url)
    do(admin, "CREATE ROLE ddit_reader")
    do(admin, "GRANT ddit_reader TO ddit")
    assert not is_guarded(url)

    engine = make_engine(url)
    for _ in range(2):
        with engine.begin() as connection:
            said = connection.scalar(text("SELECT ddit_grant_reader()"))
            assert said == "the role ddit_reader can read the views"
    engine.dispose()

    assert is_guarded(url)


def test_role_that_the_user_may_not_become_is_left_alone(admin: Engine) -> None:
    """Somebody else's role of that name stops no upgrade."""
    do(admin, "CREATE ROLE ddit_reader")

    upgrade(url_of(admin, "one"))

    assert not is_guarded(url_of(admin, "one"))

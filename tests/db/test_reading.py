"""Asking a database through psycopg alone, and through an engine: the same answers."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import rows
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import DBAPIError

from ddit_batch.db import history, status
from ddit_batch.db.query import run_query
from ddit_batch.db.reading import Database, Source, ask, open_source, plain_conninfo, stream
from ddit_batch.db.schema_version import check_schema
from ddit_batch.job import JobId, JobState

PLAIN = [
    "postgresql+psycopg://postgres@/ddit?host=/srv/ddit/run&port=5432",
    "postgresql+psycopg://postgres@/ddit?host=%2Ftmp%2Fddit-1&port=5432",
    "postgresql+psycopg://ddit:s%40cr%3At@db.example.org:5433/ddit",
    "postgresql+psycopg://ddit:@db/ddit",
    "postgresql+psycopg://ddit@127.0.0.1/ddit?sslmode=verify-full",
    "postgresql+psycopg://db/ddit",
    "postgresql+psycopg:///ddit",
]
UNUSUAL = [
    "postgresql://ddit@db/ddit",
    "postgres://ddit@db/ddit",
    "mysql://ddit@db/ddit",
    "postgresql+psycopg://ddit:a+b@db/ddit",
    "postgresql+psycopg://ddit:100%@db/ddit",
    "postgresql+psycopg://ddit@[::1]/ddit",
    "postgresql+psycopg://ddit@db",
    "postgresql+psycopg://ddit@/ddit?host=one&host=two",
    "postgresql+psycopg://ddit@db/ddit?application_name=a+b",
    "postgresql+psycopg://ddit@db/ddit?prepare_threshold=3",
    "postgresql+psycopg://ddit@db/ddit\n",
    "",
]


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture(params=["database", "engine"])
def source(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Source]:
    """The same database in either form."""
    if request.param == "engine":
        yield engine
        return
    with open_source(url_of(engine)) as opened:
        assert isinstance(opened, Database)
        yield opened


@pytest.mark.parametrize("url", PLAIN)
def test_plain_url_means_the_same_to_libpq_as_to_sqlalchemy(url: str) -> None:
    """Both connect to the same place as the same user."""
    conninfo = plain_conninfo(url)
    parsed = make_url(url)
    _, meant = parsed.get_dialect()().create_connect_args(parsed)

    assert conninfo is not None
    found = {name: value for name, value in conninfo_to_dict(conninfo).items() if value != ""}
    assert found == {name: str(value) for name, value in meant.items() if value != ""}


@pytest.mark.parametrize("url", UNUSUAL)
def test_unusual_url_is_left_to_sqlalchemy(url: str) -> None:
    """What the two may read differently is read by the one that the docs name."""
    assert plain_conninfo(url) is None


def test_unusual_url_gives_the_same_answers(engine: Engine) -> None:
    """It only takes longer."""
    url = f"{url_of(engine)}&application_name=x"

    with open_source(url) as source:
        assert isinstance(source, Engine)
        assert ask(source, "SELECT 1 AS one") == [{"one": 1}]


def test_rows_have_names_and_values_of_python(source: Source) -> None:
    """JSON is an object, an array a list, a parameter what was given."""
    query = """
        SELECT '{"a": [1]}'::jsonb AS json, ARRAY['x'] AS list, %(given)s AS given, NULL AS nothing
    """

    expected = {"json": {"a": [1]}, "list": ["x"], "given": "it's 100 %", "nothing": None}
    assert ask(source, query, given="it's 100 %") == [expected]


def test_many_rows_come_in_order(source: Source) -> None:
    """More than are fetched at once, and who stops early leaves nothing behind."""
    query = "SELECT number FROM generate_series(1, %(last)s) AS number"

    first = next(stream(source, query, last=5000))
    found = [row["number"] for row in stream(source, query, last=2500)]

    assert first == {"number": 1}
    assert found == list(range(1, 2501))


def test_database_that_is_only_looked_at_cannot_be_changed(engine: Engine) -> None:
    """Postgres itself refuses."""
    with (
        open_source(url_of(engine)) as source,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        ask(source, "DELETE FROM jobs")


def test_database_holds_no_transaction_while_nothing_is_asked(engine: Engine) -> None:
    """A table printed slowly, or a second query, is in nobody's way."""
    with open_source(url_of(engine)) as source:
        assert isinstance(source, Database)
        ask(source, "SELECT 1")
        list(stream(source, "SELECT 1"))
        next(stream(source, "SELECT generate_series(1, 5000)"))

        assert source.connection.info.transaction_status is TransactionStatus.IDLE


def test_database_does_not_tell_its_password(engine: Engine) -> None:
    """Whoever logs it logs no secret."""
    with psycopg.connect(url_of(engine).replace("+psycopg", "")) as connection:
        assert "secret" not in repr(Database("postgresql://me:secret@db/ddit", connection))


def test_error_of_an_engine_is_one_that_persist_knows(engine: Engine) -> None:
    """Who has an engine waits for its database with that."""
    with pytest.raises(DBAPIError):
        ask(engine, "SELECT 1 / 0")


def test_both_forms_tell_the_same_of_a_batch(engine: Engine) -> None:
    """Every question that ``ddit status``, ``results`` and ``sql`` ask."""
    jobs = {state: JobId(rows.job_in(engine, state)) for state in JobState}

    with open_source(url_of(engine)) as database:
        assert told(database, jobs) == told(engine, jobs)


def told(source: Source, jobs: dict[JobState, JobId]) -> list[object]:
    check_schema(source)
    batches = status.batches(source)
    return [
        batches,
        [status.one_batch(source, batch.batch_id) for batch in batches],
        [list(status.finished_jobs(source, batch.batch_id)) for batch in batches],
        {**status.job_facts(source, jobs[JobState.SUCCEEDED]), "in_state_s": "grows"},
        [history.events(source, job) for job in jobs.values()],
        [history.segment_spans(source, job) for job in jobs.values()],
        run_query(source, "SELECT job_id, state FROM job_status ORDER BY job_id", limit=100),
    ]

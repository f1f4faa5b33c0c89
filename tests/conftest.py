"""What tests share: one Postgres and one Valkey for the session, a fresh database for a test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, create_engine, make_url, text

from ddit_batch.db.engine import make_engine
from ddit_batch.db.migrate import upgrade
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.postgres import running_postgres
from ddit_batch.embedded.valkey import running_valkey

# Helpers of several folders: whichever imports them first, their asserts shall explain themselves.
pytest.register_assert_rewrite("rows", "worlds")

# How long an example takes says how busy the machine is, not whether the code is right. A gate that
# others wait for draws the same examples every time; whoever runs the tests by hand draws new ones.
settings.register_profile(
    "ddit",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("ddit")


@pytest.fixture(scope="session")
def service_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Home of the session's own Postgres and Valkey."""
    return Home(tmp_path_factory.mktemp("services"))


@pytest.fixture(scope="session")
def migrated_database(service_home: Home) -> Iterator[str]:
    """URL of a database with the newest schema and nothing in it: the template of the others."""
    with running_postgres(service_home) as postgres:
        _hurry(postgres.service.url)
        upgrade(postgres.service.url)
        yield postgres.service.url


def _hurry(url: str) -> None:
    """No test of these databases pulls the plug: they need not reach the disk."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()


@pytest.fixture(scope="session")
def _database_numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def database_url(migrated_database: str, _database_numbers: Iterator[int]) -> Iterator[str]:
    """URL of a fresh database with the newest schema."""
    template = make_url(migrated_database)
    name = f"test_{next(_database_numbers)}"
    admin = create_engine(template.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template.database}"))
        yield template.set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a fresh database."""
    engine = make_engine(database_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def broker_url(service_home: Home) -> Iterator[str]:
    """URL of the session's Valkey."""
    with running_valkey(service_home) as valkey:
        yield valkey.service.url

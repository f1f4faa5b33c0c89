"""Databases that the tests of this folder need besides a fresh one each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from ddit_batch.db.engine import make_engine


@contextmanager
def _database(template: str, *, empty: bool) -> Iterator[str]:
    url = make_url(template)
    name = f"db_{uuid4().hex[:12]}"
    admin = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        source = "template0" if empty else url.database
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {source}"))
        yield url.set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def empty_database_url(migrated_database: str) -> Iterator[str]:
    """URL of a database without any table."""
    with _database(migrated_database, empty=True) as url:
        yield url


@pytest.fixture
def empty_engine(empty_database_url: str) -> Iterator[Engine]:
    """An engine on a database without any table."""
    engine = make_engine(empty_database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def shared_engine(migrated_database: str) -> Iterator[Engine]:
    """An engine on a database that the tests of a module share: each has rows of its own."""
    with _database(migrated_database, empty=False) as url:
        engine = make_engine(url, pool_size=8)
        yield engine
        engine.dispose()

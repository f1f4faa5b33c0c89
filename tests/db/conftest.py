"""Databases for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from databases import a_database, wipe
from sqlalchemy import Engine


@pytest.fixture(scope="session")
def _one_database(migrated_database: str) -> Iterator[Engine]:
    with a_database(migrated_database) as engine:
        yield engine


@pytest.fixture
def engine(_one_database: Engine) -> Iterator[Engine]:
    """An engine on a database with the newest schema and nothing in it."""
    yield _one_database
    wipe(_one_database)


@pytest.fixture
def empty_engine(migrated_database: str) -> Iterator[Engine]:
    """An engine on a database without any table."""
    with a_database(migrated_database, empty=True) as engine:
        yield engine


@pytest.fixture(scope="module")
def shared_engine(migrated_database: str) -> Iterator[Engine]:
    """An engine on a database that the tests of a module share: each has rows of its own."""
    with a_database(migrated_database) as engine:
        yield engine

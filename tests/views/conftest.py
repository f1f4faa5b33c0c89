"""What the tests of the views share: one database, emptied before each test or module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from farm import Farm, empty, scheduler_running
from sqlalchemy import Engine, create_engine, make_url, text

from ddit_batch.db.engine import make_engine


@pytest.fixture(scope="session")
def views_engine(migrated_database: str) -> Iterator[Engine]:
    """An engine on the database, with whatever the last test left there."""
    template = make_url(migrated_database)
    admin = create_engine(template.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE views TEMPLATE {template.database}"))
        url = template.set(database="views").render_as_string(hide_password=False)
        engine = make_engine(url, pool_size=8)
        yield engine
        engine.dispose()
        connection.execute(text("DROP DATABASE views WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def engine(views_engine: Engine) -> Engine:
    """An engine on the empty database."""
    empty(views_engine)
    return views_engine


@pytest.fixture
def farm(engine: Engine) -> Iterator[Farm]:
    """An empty cluster whose scheduler runs."""
    with scheduler_running(engine):
        yield Farm(engine)

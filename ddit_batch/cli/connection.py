"""Find the database: the deployed one, the running embedded one, or a Postgres for this command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from ddit_batch.config import load_settings
from ddit_batch.db.engine import make_engine
from ddit_batch.db.migrate import check_schema
from ddit_batch.embedded.home import Home, running_cluster
from ddit_batch.errors import ServiceError


@contextmanager
def connected_engine(home: Home) -> Iterator[Engine]:
    """The database of a cluster that runs.

    Raises:
        ServiceError: None runs; the message names the commands that start one.
    """
    url = load_settings().database_url.get_secret_value()
    if not url:
        state = running_cluster(home)
        if state is None:
            raise ServiceError(
                f"no cluster runs in {home.path}: start one with `ddit up`, "
                "or use `ddit run FILE`, which brings its own"
            )
        url = state.database_url
    engine = make_engine(url)
    try:
        check_schema(engine)
        yield engine
    finally:
        engine.dispose()

"""Find the database: the deployed one, or that of the embedded cluster that runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from ddit_batch.config import load_settings
from ddit_batch.db.engine import make_engine
from ddit_batch.db.schema_version import check_schema
from ddit_batch.embedded.home import ClusterState, Home, running_cluster
from ddit_batch.embedded.postgres import running_postgres
from ddit_batch.errors import ServiceError

CHANGE_S = 60.0
"""How long a cluster may take to start or to stop before a command gives up on it."""
POLL_S = 0.1


@contextmanager
def connected_engine(home: Home) -> Iterator[Engine]:
    """The database of a cluster that runs.

    Raises:
        ServiceError: None runs; the message names the commands that start one.
    """
    url = load_settings().database_url.get_secret_value()
    if not url:
        state = ready_cluster(home)
        if state is None:
            raise ServiceError(
                f"no cluster runs in {home.path}: start one with `ddit up`, "
                "or use `ddit run FILE`, which brings its own"
            )
        url = state.database_url
    with _engine(url) as engine:
        yield engine


@contextmanager
def reading_engine(home: Home) -> Iterator[Engine]:
    """The database, whether its cluster runs or not: if need be, Postgres runs for the block.

    Raises:
        ServiceError: There is no database in *home*; the message says what makes one.
    """
    if load_settings().database_url.get_secret_value() or ready_cluster(home) is not None:
        with connected_engine(home) as engine:
            yield engine
    elif not home.data.is_dir():
        raise ServiceError(
            f"{home.path} has no database yet: `ddit run FILE` or `ddit up` makes one "
            "(or name another folder with --home)"
        )
    else:
        with running_postgres(home) as postgres, _engine(postgres.service.url) as engine:
            yield engine


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    engine = make_engine(url)
    try:
        check_schema(engine)
        yield engine
    finally:
        engine.dispose()


def ready_cluster(home: Home) -> ClusterState | None:
    """The cluster that runs in *home*, once it is ready; None if none runs.

    Raises:
        ServiceError: It starts or stops, and is not done with that in reasonable time.
    """
    deadline = time.monotonic() + CHANGE_S
    while (state := running_cluster(home)) is not None:
        if state.ready:
            return state
        if time.monotonic() > deadline:
            raise ServiceError(
                f"the cluster in {home.path} is starting or stopping and does not get ready: "
                f"see {home.log('supervisor')}, or end it with `ddit down`"
            )
        time.sleep(POLL_S)
    return None

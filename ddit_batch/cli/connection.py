"""Find the database: the deployed one, or that of the embedded cluster of this home."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ddit_batch.db.reading import Source, open_source
from ddit_batch.db.schema_version import check_schema
from ddit_batch.embedded.home import ClusterState, Home, running_cluster
from ddit_batch.environment import database_url
from ddit_batch.errors import ServiceError

if TYPE_CHECKING:
    from sqlalchemy import Engine

CHANGE_S = 60.0
"""How long a cluster may take to start or to stop before a command gives up on it."""
POLL_S = 0.1


@contextmanager
def connected_engine(home: Home) -> Iterator[Engine]:
    """The database of a cluster that runs.

    Raises:
        ServiceError: None runs; the message names the commands that start one.
    """
    url = database_url() or _url_of_cluster(home)
    if not url:
        raise ServiceError(
            f"no cluster runs in {home.path}: start one with `ddit up`, "
            "or use `ddit run FILE`, which brings its own"
        )
    with _engine(url) as engine:
        yield engine


@contextmanager
def lasting_engine(home: Home) -> Iterator[Engine]:
    """The database, whether its cluster runs or not: if need be, Postgres runs for the block.

    Raises:
        ServiceError: There is no database in *home*; the message says what makes one.
    """
    with _lasting_url(home) as url, _engine(url) as engine:
        yield engine


@contextmanager
def readable_source(home: Home) -> Iterator[Source]:
    """As ``lasting_engine``, for who only looks and wants to begin at once."""
    with _lasting_url(home) as url, open_source(url) as source:
        check_schema(source)
        yield source


@contextmanager
def _lasting_url(home: Home) -> Iterator[str]:
    url = database_url() or _url_of_cluster(home)
    if url:
        yield url
    elif not home.data.is_dir():
        raise ServiceError(
            f"{home.path} has no database yet: `ddit run FILE` or `ddit up` makes one "
            "(or name another folder with --home)"
        )
    else:
        from ddit_batch.embedded.postgres import running_postgres  # noqa: PLC0415 -- rarely needed

        with running_postgres(home) as postgres:
            yield postgres.service.url


def _url_of_cluster(home: Home) -> str:
    """Where the database of the cluster in *home* is; empty if none runs."""
    state = ready_cluster(home)
    return state.database_url if state else ""


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    from ddit_batch.db.engine import make_engine  # noqa: PLC0415 -- slow, and not for a look

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

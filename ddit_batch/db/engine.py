"""Connections, and the one place that decides which database errors pass by themselves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

IDLE_IN_TRANSACTION_S = 5.0
"""How long Postgres lets a transaction stand idle. Ours are some statements in a row: one that
stops in between is that of a frozen process, whose locks would stop the scheduler for as long."""
TURNS_LOCK = 7_283_003
"""First half of the Postgres advisory locks of ``take_turns``."""


def make_engine(database_url: str, *, pool_size: int = 2, pool_timeout_s: float = 30) -> Engine:
    """A pool of at most *pool_size* connections, checked before use.

    Who finds all of them in use waits *pool_timeout_s* for one. A transaction that stands still for
    ``IDLE_IN_TRANSACTION_S`` is ended by Postgres, and its connection with it.
    """
    url = make_url(database_url)
    idle = f"-c idle_in_transaction_session_timeout={1000 * IDLE_IN_TRANSACTION_S:.0f}"
    options = " ".join([idle, *url.normalized_query.get("options", ())])  # the user's come last
    return create_engine(
        url,
        connect_args={"options": options},
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=pool_timeout_s,
    )


def take_turns(connection: Connection, what: str) -> None:
    """Wait until no other transaction has taken its turn at *what*; the turn ends with this one."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(:lock, hashtext(:what))"),
        {"lock": TURNS_LOCK, "what": what},
    )


def is_passing(exc: SQLAlchemyError) -> bool:
    """Whether the same call may succeed a moment later: server away, deadlock, serialization.

    So may one that got no connection: the others wait for a server that has stopped answering.
    """
    if isinstance(exc, PoolTimeout):
        return True
    if not isinstance(exc, DBAPIError):
        return False
    if exc.connection_invalidated or isinstance(exc, OperationalError):
        return True
    return getattr(exc.orig, "sqlstate", None) in {"40001", "40P01", "57P01", "57P02", "57P03"}


def persist(call: Callable[[], _T], *, give_up_s: float, what: str) -> _T:
    """Run *call*, again and again while the database is away, for at most *give_up_s* seconds.

    *call* must be safe to repeat after a commit whose answer was lost: the writers in this package
    are, because each begins with a compare-and-set that tells its own success from a conflict.
    """
    deadline = time.monotonic() + give_up_s
    pause_s = 0.05
    while True:
        try:
            return call()
        except SQLAlchemyError as exc:
            if not is_passing(exc) or time.monotonic() + pause_s > deadline:
                raise
            logger.warning("database away, will try again: %s", what, extra={"action": "db_retry"})
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)

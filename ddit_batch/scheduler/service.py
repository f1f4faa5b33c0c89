"""Leading: at most one scheduler decides at a time, and another takes over when it dies.

Leading means holding a Postgres advisory lock, which ends with the connection, and having raised
the term. Every write checks the term, so a leader that slept through its own end cannot write after
its successor has begun. The service keeps nothing that it could not read again: kill it at any
moment.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ddit_batch.db.census import Census
from ddit_batch.db.engine import is_passing
from ddit_batch.db.moves import SCHEDULER_CHANNEL
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.errors import LeadershipLost
from ddit_batch.metrics import SchedulerMetrics
from ddit_batch.scheduler.live import LiveDriver

logger = logging.getLogger(__name__)

LEADER_LOCK = 7_283_002
"""Postgres advisory lock of the leading scheduler."""


def serve(
    engine: Engine,
    make_driver: Callable[[SchedulerStore], LiveDriver],
    *,
    metrics: SchedulerMetrics,
    tick_s: float,
    should_stop: Callable[[], bool],
) -> None:
    """Lead when possible, wait otherwise, until *should_stop*; outages of Postgres are waited out.

    *make_driver* is called at the beginning of each term with the store of that term.
    """
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    while not should_stop():
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                if _wait_for_lock(connection, metrics, tick_s, should_stop):
                    _lead(
                        connection,
                        engine,
                        make_driver,
                        metrics=metrics,
                        tick_s=tick_s,
                        should_stop=should_stop,
                    )
        except (psycopg.OperationalError, LeadershipLost) as exc:
            logger.warning("not leading: %s", exc, extra={"action": "lead_lost"})
            time.sleep(tick_s)
        except SQLAlchemyError as exc:
            if not is_passing(exc):
                raise
            cause = getattr(exc, "orig", exc)
            logger.warning("not leading: %s", cause, extra={"action": "lead_lost"})
            time.sleep(tick_s)
        finally:
            metrics.follows()


def _wait_for_lock(
    connection: psycopg.Connection,
    metrics: SchedulerMetrics,
    tick_s: float,
    should_stop: Callable[[], bool],
) -> bool:
    """Wait for the lock, which is held as long as *connection* lives. False: told to stop."""
    while not should_stop():
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,)).fetchone()
        if row is not None and row[0]:
            return True
        metrics.waited()
        time.sleep(tick_s)
    return False


def _lead(
    connection: psycopg.Connection,
    engine: Engine,
    make_driver: Callable[[SchedulerStore], LiveDriver],
    *,
    metrics: SchedulerMetrics,
    tick_s: float,
    should_stop: Callable[[], bool],
) -> None:
    term = begin_term(engine, holder=f"{os.uname().nodename}:{os.getpid()}")
    logger.info("leading", extra={"action": "lead", "term": term})
    metrics.leads(term)
    connection.execute(f"LISTEN {SCHEDULER_CHANNEL}".encode())
    driver = make_driver(SchedulerStore(engine, term=term))
    census = Census(engine)
    while not should_stop():
        begun_s = time.monotonic()
        driver.round()
        took_s = time.monotonic() - begun_s
        metrics.round_took(took_s)
        _count(census, metrics)
        # At most half of the time goes into rounds. Under load one then sees many changes at once,
        # which costs little more than to see one; without load the pause is of milliseconds.
        time.sleep(min(took_s, tick_s))
        # Wake at the first notification; those that came in meanwhile share one round.
        for _ in connection.notifies(timeout=tick_s, stop_after=1):
            pass


def _count(census: Census, metrics: SchedulerMetrics) -> None:
    if metrics.wants_census():
        begun_s = time.monotonic()
        counts = census.take()
        metrics.counted(counts, took_s=time.monotonic() - begun_s)

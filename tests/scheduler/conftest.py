"""A broker of their own for the tests of the live scheduler: one logical database of the session's.

They share databases and what is in them with the tests of the database layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from databases import a_database, wipe
from fake_costs import COSTS, FixedCosts
from redis import Redis
from sqlalchemy import Engine

from ddit_batch.control import LiveControl, redis_url
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.dispatch import Dispatcher, make_celery
from ddit_batch.metrics import SchedulerMetrics
from ddit_batch.policy.static import Static
from ddit_batch.scheduler.core import Limits
from ddit_batch.scheduler.live import LiveDriver, Pace
from ddit_batch.scheduler.lookout import Lookout


@pytest.fixture(scope="session")
def _live_database(migrated_database: str) -> Iterator[Engine]:
    with a_database(migrated_database) as engine:
        yield engine


@pytest.fixture
def engine(_live_database: Engine) -> Iterator[Engine]:
    """An engine on a database with the newest schema and nothing in it."""
    yield _live_database
    wipe(_live_database)


@pytest.fixture
def broker(broker_url: str) -> Iterator[str]:
    """URL of an empty logical database, emptied again afterwards."""
    url = f"{broker_url}?virtual_host=9"
    with Redis.from_url(redis_url(url)) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def redis(broker: str) -> Iterator[Redis]:
    """A plain client of that database."""
    with Redis.from_url(redis_url(broker), decode_responses=True) as client:
        yield client


@pytest.fixture
def control(broker: str) -> Iterator[LiveControl]:
    """Live control over that database."""
    control = LiveControl(broker)
    yield control
    control.close()


@pytest.fixture
def app(broker: str) -> Iterator[Celery]:
    """The Celery app of that database."""
    with make_celery(broker) as app:
        yield app


@pytest.fixture
def dispatcher(app: Celery) -> Dispatcher:
    """Publishes into that database."""
    return Dispatcher(app)


@pytest.fixture
def make_driver(
    engine: Engine, control: LiveControl, dispatcher: Dispatcher
) -> Callable[..., LiveDriver]:
    """Makes drivers on the fresh database, each with a new term if no store is given."""

    def make(**parts: object) -> LiveDriver:
        if "store" not in parts:
            parts["store"] = SchedulerStore(engine, term=begin_term(engine, holder="test"))
        policy = parts.pop("policy", Static(costs=COSTS, dop=1))
        own = {
            "control": control,
            "dispatcher": dispatcher,
            "lookout": Lookout(engine, FixedCosts(), lambda _: policy),
            "limits": Limits(look_ahead=2, decode_backlog=4, max_worker_losses=3),
            "pace": Pace(tick_s=0.01, reconcile_s=0.0, lease_s=600.0),
            "metrics": SchedulerMetrics(),
        }
        return LiveDriver(**{**own, **parts})

    return make

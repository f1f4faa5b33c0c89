from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.leases import LeaseStore
from ddit_batch.db.moves import SCHEDULER_CHANNEL
from ddit_batch.job import Incarnation, Phase


@pytest.fixture
def leases(engine: Engine) -> LeaseStore:
    """Leases that outlive a test."""
    return LeaseStore(engine, lease_s=600)


def state_of(engine: Engine, incarnation: Incarnation) -> str:
    with engine.connect() as connection:
        query = text("SELECT state FROM workers WHERE incarnation = :i")
        return connection.execute(query, {"i": incarnation}).scalar_one()


def lease_left_s(engine: Engine, incarnation: Incarnation) -> float:
    query = "SELECT extract(epoch FROM lease_expires_at - now()) FROM workers WHERE incarnation=:i"
    with engine.connect() as connection:
        return float(connection.execute(text(query), {"i": incarnation}).scalar_one())


def test_registration_is_what_the_scheduler_sees(engine: Engine, leases: LeaseStore) -> None:
    """Name, phase, place and models of a worker come from what it said of itself."""
    incarnation = leases.register(
        rows.identity(Phase.DIT, name="dit-3@host", models=("a", "b"), node="left")
    )

    (worker,) = rows.seen(engine).workers
    assert (worker.name, worker.incarnation, worker.phase) == ("dit-3@host", incarnation, "dit")
    assert (worker.host, worker.node, worker.models) == ("host", "left", {"a", "b"})
    assert (worker.draining, worker.lease_expired) == (False, False)


def test_registration_replaces_the_live_incarnation_of_the_name(
    engine: Engine, leases: LeaseStore
) -> None:
    """A process that was started again needs no lease to run out before it works."""
    first = leases.register(rows.identity(name="dit-0@host"))
    other = leases.register(rows.identity(name="dit-1@host"))

    second = leases.register(rows.identity(name="dit-0@host"))

    assert second > first
    assert [state_of(engine, i) for i in (first, second, other)] == ["lost", "online", "online"]


def test_registrations_of_one_name_at_once_all_succeed_and_one_lives(engine: Engine) -> None:
    """Processes that were given the same name by mistake take turns; none of them breaks."""
    leases, barrier = LeaseStore(engine, lease_s=600), Barrier(6)

    def register(_: int) -> Incarnation:
        barrier.wait()
        return leases.register(rows.identity(name="dit-0@host"))

    with ThreadPoolExecutor(6) as pool:
        incarnations = [*pool.map(register, range(6)), *pool.map(register, range(6))]

    assert len(set(incarnations)) == 12
    assert sorted(state_of(engine, i) for i in incarnations) == ["lost"] * 11 + ["online"]


def test_renewal_extends_the_lease_on_the_clock_of_the_database(engine: Engine) -> None:
    """However late it comes: nobody had declared the worker lost."""
    incarnation = rows.registered(engine, lease_s=-5)
    assert rows.seen(engine).workers[0].lease_expired

    assert LeaseStore(engine, lease_s=60).renew(incarnation)

    assert not rows.seen(engine).workers[0].lease_expired
    assert 50 < lease_left_s(engine, incarnation) <= 60


def test_renewal_after_the_loss_says_so(engine: Engine, leases: LeaseStore) -> None:
    """An incarnation that was declared lost does not come back."""
    incarnation = rows.registered(engine)
    rows.lost(engine, incarnation)

    with rows.unchanged(engine):
        assert not leases.renew(incarnation)


def test_renewal_of_a_replaced_incarnation_says_so(leases: LeaseStore) -> None:
    """The older of two processes with one name learns that it is not the worker any more."""
    first = leases.register(rows.identity(name="dit-0@host"))
    second = leases.register(rows.identity(name="dit-0@host"))

    assert (leases.renew(first), leases.renew(second)) == (False, True)


def test_draining_worker_stays_live_until_it_has_stopped(
    engine: Engine, leases: LeaseStore
) -> None:
    """It renews its lease, takes nothing new, and leaves the snapshot at its end."""
    incarnation = rows.registered(engine)

    leases.drain(incarnation)
    (worker,) = rows.seen(engine).workers
    assert worker.draining
    assert leases.renew(incarnation)

    leases.stopped(incarnation)
    assert rows.seen(engine).workers == ()
    assert not leases.renew(incarnation)


@pytest.mark.parametrize("say", [LeaseStore.drain, LeaseStore.stopped])
def test_what_a_lost_worker_says_of_itself_changes_nothing(
    engine: Engine, leases: LeaseStore, say: object
) -> None:
    """Lost is lost, however orderly the process ends afterwards."""
    incarnation = rows.registered(engine)
    rows.lost(engine, incarnation)

    with rows.unchanged(engine):
        say(leases, incarnation)


def test_worker_with_time_left_is_not_declared_lost(engine: Engine) -> None:
    """The scheduler's snapshot may be older than the renewal."""
    incarnation = rows.registered(engine)
    store = rows.leading(engine)

    with rows.unchanged(engine):
        assert not store.lose_worker(incarnation)


@pytest.mark.parametrize("draining", [False, True])
def test_worker_whose_lease_ran_out_is_declared_lost_once(engine: Engine, draining: bool) -> None:  # noqa: FBT001
    """A draining worker can die too; a dead one dies no second time."""
    incarnation = rows.registered(engine, lease_s=-1)
    store = rows.leading(engine)
    if draining:
        LeaseStore(engine, lease_s=1).drain(incarnation)

    assert store.lose_worker(incarnation)
    assert state_of(engine, incarnation) == "lost"
    assert not store.lose_worker(incarnation)


def test_coming_and_going_workers_wake_the_scheduler(engine: Engine, leases: LeaseStore) -> None:
    """A new worker gets its first job at once, and a leaving one's are taken care of."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute(f"LISTEN {SCHEDULER_CHANNEL}".encode())

        incarnation = leases.register(rows.identity(name="dit-0@host"))
        leases.drain(incarnation)
        leases.stopped(incarnation)

        heard = [found.payload for found in listener.notifies(timeout=5, stop_after=3)]
    assert heard == [
        "dit-0@host registered",
        f"worker {incarnation} draining",
        f"worker {incarnation} stopped",
    ]

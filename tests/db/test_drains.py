from __future__ import annotations

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.drains import drain
from ddit_batch.db.leases import LeaseStore
from ddit_batch.errors import NotFound, StateConflict
from ddit_batch.job import Phase


def draining(engine: Engine) -> dict[str, bool]:
    """The live workers, and whether they take new work."""
    return {worker.name: worker.draining for worker in rows.seen(engine).workers}


def test_worker_that_is_asked_to_leave_gets_nothing_new_and_finds_out(engine: Engine) -> None:
    """From that moment, whether it knows or not; its neighbours do not notice."""
    leases, job = LeaseStore(engine, lease_s=600), rows.waiting_for(engine, Phase.ENCODE)
    first = rows.registered(engine, Phase.ENCODE, name="encode-0@host")
    other = rows.registered(engine, Phase.ENCODE, name="encode-1@host")

    assert drain(engine, ["encode-0@host"]) == ("encode-0@host",)

    shown = draining(engine)
    assert (shown["encode-0@host"], shown["encode-1@host"]) == (True, False)
    assert [leases.is_drain_requested(worker) for worker in (first, other)] == [True, False]
    assert leases.renew(first)
    with rows.unchanged(engine), pytest.raises(StateConflict):
        ClaimStore(engine).claim(job, Phase.ENCODE, 1, first)
    ClaimStore(engine).claim(job, Phase.ENCODE, 1, other)


def test_host_may_be_left_out_where_it_is_plain(engine: Engine) -> None:
    """Of two hosts' workers the whole name is asked for, and both are named."""
    for name in ("dit-0@left", "dit-0@right", "dit-1@left", "dit-10@left"):
        rows.registered(engine, name=name)

    assert drain(engine, ["dit-1", "dit-0@left"]) == ("dit-1@left", "dit-0@left")
    with rows.unchanged(engine), pytest.raises(NotFound, match="dit-0@left or dit-0@right"):
        drain(engine, ["dit-10", "dit-0"])


def test_asking_again_changes_nothing(engine: Engine) -> None:
    """It is leaving already."""
    rows.registered(engine, name="dit-0@host")
    drain(engine, ["dit-0@host"])

    with rows.unchanged(engine):
        assert drain(engine, ["dit-0@host", "dit-0"]) == ("dit-0@host", "dit-0@host")


def test_worker_that_is_unknown_or_gone_is_named(engine: Engine) -> None:
    """With what has become of it; and those that are known stay."""
    leases = LeaseStore(engine, lease_s=600)
    leases.stopped(rows.registered(engine, name="dit-0@host"))
    rows.lost(engine, rows.registered(engine, name="dit-1@host"))
    rows.registered(engine, name="dit-2@host")

    for name, said in (
        ("dit-9@host", "no worker has the name 'dit-9@host'"),
        ("dit-0", "worker dit-0@host is gone already: it is stopped"),
        ("dit-1@host", "worker dit-1@host is gone already: it is lost"),
    ):
        with rows.unchanged(engine), pytest.raises(NotFound, match=said):
            drain(engine, ["dit-2@host", name])


def test_next_life_of_the_name_is_not_asked_to_leave(engine: Engine) -> None:
    """Whoever starts the worker again wants it."""
    leases = LeaseStore(engine, lease_s=600)
    rows.registered(engine, name="dit-0@host")
    drain(engine, ["dit-0"])

    again = leases.register(rows.identity(name="dit-0@host"))

    assert not leases.is_drain_requested(again)
    assert draining(engine) == {"dit-0@host": False}
    with engine.connect() as connection:
        query = text("SELECT state, drain_requested_at FROM worker_status")
        assert connection.execute(query).all() == [("online", None)]

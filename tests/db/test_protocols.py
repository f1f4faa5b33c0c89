"""Workers and schedulers of several releases on one database."""

from __future__ import annotations

from dataclasses import replace

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch import __version__
from ddit_batch.db.leases import LeaseStore
from ddit_batch.job import Phase
from ddit_batch.protocol import PROTOCOL
from ddit_batch.scheduler.service import LEADER_LOCK


@pytest.mark.parametrize("protocol", [0, PROTOCOL + 1])
def test_worker_of_another_protocol_gets_no_work_and_says_what_helps(
    engine: Engine, protocol: int
) -> None:
    """An older or a newer one; it stays live, and who speaks ours is as before."""
    rows.leading(engine).publish_limits(look_ahead=8, decode_backlog=8)
    leases = LeaseStore(engine, lease_s=600)
    identity = rows.identity(Phase.DIT, name="dit-0@host")
    other = leases.register(replace(identity, protocol=protocol))
    rows.registered(engine, Phase.DIT, name="dit-1@host")

    assert leases.renew(other)

    assert {w.name: w.draining for w in rows.seen(engine).workers} == {
        "dit-0@host": True,
        "dit-1@host": False,
    }
    with engine.connect() as connection:
        unfit, fit = connection.execute(
            text("SELECT protocol, unfit_because FROM worker_status ORDER BY name")
        )
        able = connection.execute(text("SELECT workers, idle FROM worker_capacity")).all()
    assert unfit.protocol == protocol
    assert unfit.unfit_because == (
        f"It speaks protocol {protocol}, the scheduler {PROTOCOL}, so it gets no work: install "
        f"release {__version__} of ddit-batch there, and start it again."
    )
    assert (fit.protocol, fit.unfit_because) == (PROTOCOL, None)
    assert able == [(1, 1)]


def test_job_that_only_misfits_could_take_waits_for_a_worker(engine: Engine) -> None:
    """Its reason does not count them as online."""
    rows.leading(engine).publish_limits(look_ahead=8, decode_backlog=8)
    identity = replace(rows.identity(Phase.ENCODE), protocol=PROTOCOL + 1)
    LeaseStore(engine, lease_s=600).register(identity)
    (job,) = rows.submitted(engine)

    with engine.begin() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LEADER_LOCK})"))
        query = text("SELECT waiting_for FROM job_status WHERE job_id = :id")
        assert connection.execute(query, {"id": job}).scalar_one() == "no_worker"


def test_while_no_scheduler_has_said_what_it_speaks_nobody_is_a_misfit(engine: Engine) -> None:
    """A database that was just upgraded, with workers from before."""
    identity = replace(rows.identity(name="dit-0@host"), protocol=0)
    LeaseStore(engine, lease_s=600).register(identity)

    with engine.begin() as connection:
        connection.execute(text("UPDATE leadership SET protocol = NULL, version = NULL"))
        unfit = connection.execute(text("SELECT unfit_because FROM worker_status")).all()
        able = connection.execute(text("SELECT workers FROM worker_capacity")).all()
    assert (unfit, able) == ([(None,)], [(1,)])

"""What a command that measures workers asks of the database first."""

from __future__ import annotations

import rows
from sqlalchemy import Engine, text

from ddit_batch.db.leases import LeaseStore
from ddit_batch.db.status import dit_workers_by_node, scheduler_leads
from ddit_batch.job import Phase
from ddit_batch.scheduler.service import LEADER_LOCK


def test_workers_at_hand_are_counted_by_node(engine: Engine) -> None:
    """Of those that denoise and serve the model: live ones, and not those that leave."""
    leases = LeaseStore(engine, lease_s=600.0)
    for node, phase, model in (
        ("a", Phase.DIT, "tiny-wan"),
        ("a", Phase.DIT, "tiny-wan"),
        ("a", Phase.VAE, "tiny-wan"),
        ("b", Phase.DIT, "tiny-wan"),
        ("b", Phase.DIT, "other"),
    ):
        leases.register(rows.identity(phase, models=(model,), node=node))
    rows.registered(engine, lease_s=-1.0)
    leases.drain(leases.register(rows.identity(node="b")))

    assert dit_workers_by_node(engine, "tiny-wan") == (2, 1)
    assert dit_workers_by_node(engine, "other") == (1,)
    assert dit_workers_by_node(engine, "third") == ()


def test_a_scheduler_leads_while_it_holds_the_lock(engine: Engine) -> None:
    """Whatever the database says of terms."""
    with engine.connect() as connection:
        assert not scheduler_leads(engine)
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LEADER_LOCK})
        assert scheduler_leads(engine)
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LEADER_LOCK})

    assert not scheduler_leads(engine)

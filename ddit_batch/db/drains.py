"""What operators wish of workers that live: to leave."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, func, or_, select, update

from ddit_batch.db.leases import LIVE_WORKER_STATES
from ddit_batch.db.models import Worker
from ddit_batch.db.moves import wake_scheduler
from ddit_batch.errors import NotFound
from ddit_batch.job import Incarnation, WorkerName


def drain(engine: Engine, names: Sequence[str]) -> tuple[WorkerName, ...]:
    """Ask workers to leave, each by its name, whose host may be left out if no other has the rest.

    They get no new work from now on; they find out when they next renew their leases, and end once
    what they hold is done or given back. Asked again, they are not hurried. Returns their names.

    Raises:
        NotFound: A name is unknown, of nobody who lives, or of several; nothing was changed.
    """
    with engine.begin() as connection:
        found = [_live(connection, name) for name in names]
        connection.execute(
            update(Worker)
            .where(
                Worker.incarnation.in_([incarnation for incarnation, _ in found]),
                Worker.state.in_(LIVE_WORKER_STATES),
                Worker.drain_requested_at.is_(None),
            )
            .values(drain_requested_at=func.clock_timestamp(), state="draining")
        )
        wake_scheduler(connection, "drain")
    return tuple(name for _, name in found)


def _live(connection: Connection, name: str) -> tuple[Incarnation, WorkerName]:
    """The live incarnation of the worker that *name* means."""
    meant = or_(Worker.name == name, func.split_part(Worker.name, "@", 1) == name)
    rows = connection.execute(
        select(Worker.incarnation, Worker.name, Worker.state).where(meant).order_by(Worker.name)
    ).all()
    live = [row for row in rows if row.state in LIVE_WORKER_STATES]
    if not rows:
        raise NotFound(
            f"no worker has the name {name!r}: `ddit sql` on the view worker_status lists them"
        )
    if not live:
        newest = max(rows, key=lambda row: row.incarnation)
        raise NotFound(f"worker {newest.name} is gone already: it is {newest.state}")
    if len(live) > 1:
        raise NotFound(
            f"{name!r} could be {' or '.join(row.name for row in live)}: give the whole name"
        )
    return Incarnation(live[0].incarnation), WorkerName(live[0].name)

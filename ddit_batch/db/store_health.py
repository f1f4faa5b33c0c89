"""Whether the artifact store takes what is written to it, as far as workers have found out.

One row. Who fails reports it, and who has written something reports that it works again; meanwhile
the scheduler sends nothing new but one job at a time, after a pause that grows: the row is what is
called a circuit breaker elsewhere. Every writer changes its job first and this row last, so that no
two wait for each other.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, select, text, update
from sqlalchemy.orm import Session

from ddit_batch.db.service_models import StoreHealth
from ddit_batch.job import Phase
from ddit_batch.snapshot import StoreState

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
"""From the first report, and at most, until somebody tries again; it doubles in between."""

_DOUBLINGS = 16
"""Beyond any use; keeps the power of two a number."""


def is_failing(connection: Connection) -> bool:
    """Whether anybody has reported a failure since it last worked."""
    since = connection.execute(select(StoreHealth.failing_since)).scalar_one()
    return since is not None


def report_failing(connection: Connection, phase: Phase, message: str) -> None:
    """A write or a read of *phase* has failed, also when it was tried again."""
    pause_s = func.least(
        FIRST_PAUSE_S * func.power(2.0, func.least(StoreHealth.failures, _DOUBLINGS)),
        LONGEST_PAUSE_S,
    )
    connection.execute(
        update(StoreHealth).values(
            failing_since=func.coalesce(StoreHealth.failing_since, func.clock_timestamp()),
            probe_after=func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, pause_s),
            failures=StoreHealth.failures + 1,
            phase=phase,
            message=message,
        )
    )


def report_working(connection: Connection, phase: Phase) -> None:
    """Something of *phase* was written.

    Embeddings are small: that they could be written says nothing to who could not write latents.
    """
    known: list[ColumnElement[bool]] = [StoreHealth.failing_since.is_not(None)]
    if phase is Phase.ENCODE:
        known.append(StoreHealth.phase == phase)
    connection.execute(
        update(StoreHealth)
        .where(*known)
        .values(failing_since=None, probe_after=None, failures=0, phase=None, message=None)
    )


def read_store_state(session: Session) -> StoreState:
    """What the scheduler may send."""
    failing, may_probe = session.execute(
        select(
            StoreHealth.failing_since.is_not(None),
            func.coalesce(StoreHealth.probe_after <= func.clock_timestamp(), text("true")),
        )
    ).one()
    if not failing:
        return StoreState.WELL
    return StoreState.PROBE if may_probe else StoreState.FAILING

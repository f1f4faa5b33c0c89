"""Plans as the workers that form their groups see them.

A plan is pending until one statement ends it: its leader's ``formed`` or ``not_formed``, or the
scheduler's replacing or withdrawing it (``planning.py``). Whoever comes first has decided. So a
group that takes effect was never taken back, and a worker whose plan was taken back is free.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Engine, func, select, update

from ddit_batch.db.claim import Claim
from ddit_batch.db.models import Attempt, Job, Plan, PlanOutcome, Segment
from ddit_batch.db.moves import as_believed, wake_scheduler
from ddit_batch.job import Phase

__all__ = ["PlanOutcome", "PlanStore"]


class PlanStore:
    """Plans as leaders and newcomers see them. Every method may be repeated after a lost answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def formed(self, claim: Claim, epoch: int) -> bool:
        """All workers of the plan are ready: it takes effect at the next step boundary.

        False: it was ended otherwise, or the claim is lost. Then nobody may enter its group.
        """
        with self._engine.begin() as connection:
            if not _holds(connection, claim):
                return False
            if _end(connection, claim, epoch, PlanOutcome.FORMED):
                return True
            outcome = connection.execute(select(Plan.outcome).where(*_of(claim, epoch)))
            return outcome.scalar_one_or_none() == PlanOutcome.FORMED

    def not_formed(self, claim: Claim, epoch: int) -> None:
        """Not all workers of the plan were ready in time; nothing, if it has ended otherwise."""
        with self._engine.begin() as connection:
            if _holds(connection, claim) and _end(connection, claim, epoch, PlanOutcome.NOT_FORMED):
                wake_scheduler(connection, f"{claim.job_id} plan {epoch} not formed")

    def is_open(self, epoch: int) -> bool:
        """Whether the plan may still take effect: a newcomer has something to wait for."""
        used_up = (
            select(Segment.id)
            .where(Segment.job_id == Plan.job_id, Segment.plan_epoch >= Plan.epoch)
            .exists()
        )
        live = (
            select(Attempt.number)
            .where(
                Attempt.job_id == Plan.job_id,
                Attempt.phase == Phase.DIT,
                Attempt.number == Plan.attempt,
                Attempt.ended_at.is_(None),
            )
            .exists()
        )
        with self._engine.connect() as connection:
            found = connection.execute(
                select(Plan.epoch).where(Plan.epoch == epoch, is_open_or_formed(), live, ~used_up)
            )
            return found.first() is not None


def is_open_or_formed() -> ColumnElement[bool]:
    """Whether a row of plans may take effect, or has, as far as it says itself."""
    return Plan.outcome.is_(None) | (Plan.outcome == PlanOutcome.FORMED)


def _of(claim: Claim, epoch: int) -> tuple[ColumnElement[bool], ...]:
    return (Plan.epoch == epoch, Plan.job_id == claim.job_id, Plan.attempt == claim.attempt)


def _holds(connection: Connection, claim: Claim) -> bool:
    """Whether the claim holds; until the transaction ends, if so."""
    held = select(Job.id).where(*as_believed(claim.belief)).with_for_update(read=True)
    return connection.execute(held).first() is not None


def _end(connection: Connection, claim: Claim, epoch: int, outcome: PlanOutcome) -> bool:
    """End the plan, if it is pending."""
    ended = connection.execute(
        update(Plan)
        .where(*_of(claim, epoch), Plan.outcome.is_(None))
        .values(outcome=outcome, ended_at=func.clock_timestamp())
    )
    return ended.rowcount == 1

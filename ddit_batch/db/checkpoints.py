"""The two checkpoints that a job names: the newest, and the one before in case it is damaged."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, case, func, select, update

from ddit_batch.db.models import Job, Segment
from ddit_batch.db.moves import Belief, as_believed
from ddit_batch.errors import StateConflict

CHECKPOINT_COLUMNS = (
    "checkpoint_key",
    "checkpoint_step",
    "older_checkpoint_key",
    "older_checkpoint_step",
)


def newest(key: str, step: int) -> dict[str, Any]:
    """What the row becomes when *key* is written; said again, it stays as it is."""
    is_new = Job.checkpoint_key.is_distinct_from(key)
    return {
        "checkpoint_key": key,
        "checkpoint_step": step,
        "older_checkpoint_key": case((is_new, Job.checkpoint_key), else_=Job.older_checkpoint_key),
        "older_checkpoint_step": case(
            (is_new, Job.checkpoint_step), else_=Job.older_checkpoint_step
        ),
    }


def go_back(connection: Connection, belief: Belief, key: str) -> str | None:
    """Forget the newest checkpoint, *key*, and have the open segment begin at the older one.

    Returns the key of that one; None: there is none, and the segment begins at step 0.

    Raises:
        StateConflict: The job is not as *belief* says.
    """
    connection.execute(  # not twice, if the answer to the first time was lost
        update(Job)
        .where(*as_believed(belief), Job.checkpoint_key == key)
        .values(
            checkpoint_key=Job.older_checkpoint_key,
            checkpoint_step=Job.older_checkpoint_step,
            older_checkpoint_key=None,
            older_checkpoint_step=None,
            step=func.coalesce(Job.older_checkpoint_step, 0),
        )
    )
    left = connection.execute(
        select(Job.checkpoint_key, Job.checkpoint_step).where(*as_believed(belief))
    ).one_or_none()
    if left is None:
        raise StateConflict(f"job {belief.job_id} was taken from {belief.holder}")
    connection.execute(
        update(Segment)
        .where(Segment.job_id == belief.job_id, Segment.ended_at.is_(None))
        .values(
            from_step=left.checkpoint_step or 0,
            reason="older_checkpoint" if left.checkpoint_key else "checkpoint_lost",
        )
    )
    return None if left.checkpoint_key is None else str(left.checkpoint_key)

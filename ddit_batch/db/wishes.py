"""What users wish of jobs that exist: cancel, and retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Engine, func, or_, select, update

from ddit_batch.db.models import Batch, Job
from ddit_batch.db.moves import move_all, wake_scheduler
from ddit_batch.errors import NotFound
from ddit_batch.job import FINAL_STATES, WAITING_STATE, JobState
from ddit_batch.lifecycle import Trigger


def cancel(engine: Engine, ids: Sequence[str]) -> int:
    """Cancel batches and jobs by id. Returns how many jobs that concerns.

    What waits ends here and now; what a worker holds ends once the worker has confirmed that it
    stopped. Jobs in final states stay as they are.

    Raises:
        NotFound: An id is neither a batch's nor a job's; nothing was changed.
    """
    with engine.begin() as connection:
        _check_known(engine, ids)
        meant = _of(ids)
        unfinished = [meant, Job.state.not_in(FINAL_STATES)]
        concerned = connection.execute(
            update(Job)
            .where(*unfinished, Job.cancel_requested_at.is_(None))
            .values(cancel_requested_at=func.clock_timestamp())
        ).rowcount
        connection.execute(
            update(Batch)
            .where(Batch.id.in_(ids), Batch.cancel_requested_at.is_(None))
            .values(cancel_requested_at=func.clock_timestamp())
        )
        for state in WAITING_STATE.values():
            move_all(
                connection,
                state,
                Trigger.CANCEL,
                where=[meant, Job.dispatched_at.is_(None)],
            )
        wake_scheduler(connection, "cancel")
    return int(concerned)


def retry(engine: Engine, ids: Sequence[str]) -> int:
    """Have the failed jobs among *ids* (batches, jobs) tried again; returns how many they are.

    Each goes back to the last state whose handoff exists, with all of its tries.

    Raises:
        NotFound: An id is neither a batch's nor a job's; nothing was changed.
    """
    fresh: dict[str, Any] = {
        "failures": 0,
        "worker_losses": 0,
        "store_failures": 0,
        "timeouts": 0,
        "failure_code": None,
        "failure_message": None,
        "cancel_requested_at": None,
    }
    with_latents = Job.latents_key.is_not(None)
    with_embeddings = Job.embeddings_key.is_not(None)
    ways: tuple[tuple[Trigger, list[ColumnElement[bool]]], ...] = (
        (Trigger.RETRY_VAE, [with_latents]),
        (Trigger.RETRY_DIT, [~with_latents, with_embeddings]),
        (Trigger.RETRY_ENCODE, [~with_latents, ~with_embeddings]),
    )
    with engine.begin() as connection:
        _check_known(engine, ids)
        moved = sum(
            move_all(connection, JobState.FAILED, trigger, where=[_of(ids), *where], changes=fresh)
            for trigger, where in ways
        )
        connection.execute(  # else what is left of an earlier cancel would end them again
            update(Batch)
            .where(Batch.id.in_(select(Job.batch_id).where(_of(ids))))
            .values(cancel_requested_at=None)
        )
        wake_scheduler(connection, "retry")
    return moved


def _of(ids: Sequence[str]) -> ColumnElement[bool]:
    return or_(Job.id.in_(ids), Job.batch_id.in_(ids))


def _check_known(engine: Engine, ids: Sequence[str]) -> None:
    with engine.connect() as connection:
        known = set(connection.scalars(select(Batch.id).where(Batch.id.in_(ids))))
        known |= set(connection.scalars(select(Job.id).where(Job.id.in_(ids))))
    for unknown in sorted(set(ids) - known):
        raise NotFound(f"no batch and no job has the id {unknown!r}: `ddit status` lists them")

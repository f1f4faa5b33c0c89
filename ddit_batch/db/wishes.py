"""What users wish of jobs that exist: cancel, retry, pause and resume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, or_, select, update

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
        _take_turns(connection, ids)
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


def pause(engine: Engine, batch_ids: Sequence[str]) -> int:
    """Have nothing more of the batches sent; returns how many unfinished jobs that concerns.

    What is denoised comes back at its next step boundary, with a checkpoint; what is encoded or
    decoded is done first. Batches that are paused already stay as they are.

    Raises:
        NotFound: An id is no batch's; nothing was changed.
    """
    return _set_paused(engine, batch_ids, pause=True)


def resume(engine: Engine, batch_ids: Sequence[str]) -> int:
    """Have paused batches go on; returns how many unfinished jobs that concerns.

    Raises:
        NotFound: An id is no batch's; nothing was changed.
    """
    return _set_paused(engine, batch_ids, pause=False)


def _set_paused(engine: Engine, batch_ids: Sequence[str], *, pause: bool) -> int:
    with engine.begin() as connection:
        known = _take_turns(connection, batch_ids)
        for unknown in sorted(set(batch_ids) - known):
            raise NotFound(f"no batch has the id {unknown!r}: `ddit status` lists them")
        connection.execute(
            update(Batch)
            .where(Batch.id.in_(batch_ids), Batch.paused_at.is_(None) == pause)
            .values(paused_at=func.clock_timestamp() if pause else None)
        )
        turned = connection.execute(
            # Finished ones too: a retry does not end the pause.
            update(Job)
            .where(Job.batch_id.in_(batch_ids), Job.paused != pause)
            .values(paused=pause)
            .returning(Job.finished_at.is_(None))
        )
        wake_scheduler(connection, "pause" if pause else "resume")
        return sum(turned.scalars())


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
        _take_turns(connection, ids)
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


def _take_turns(connection: Connection, ids: Sequence[str]) -> frozenset[str]:
    """Have wishes about the same batches wait for each other; returns the batches.

    Each of them touches many rows of jobs, in whatever order: two at once could block each other.
    """
    of_jobs = select(Job.batch_id).where(Job.id.in_(ids))
    rows = connection.scalars(
        select(Batch.id)
        .where(Batch.id.in_(ids) | Batch.id.in_(of_jobs))
        .order_by(Batch.id)
        .with_for_update(key_share=True)
    )
    return frozenset(rows)

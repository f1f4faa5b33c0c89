"""A file's requests become a batch and its jobs, in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from ddit_batch.db.deliveries import deliver_anew
from ddit_batch.db.engine import take_turns
from ddit_batch.db.models import Batch
from ddit_batch.db.moves import wake_scheduler
from ddit_batch.job import BatchId, JobId, work_of
from ddit_batch.request import Request

_JOB_COLUMNS = (
    "id, batch_id, line, custom_id, model, priority, height, width, num_frames, steps, work, "
    "request"
)


LARGE = 1000
"""A batch of so many requests has the table analyzed at once. Else all sessions go on with plans
for the small table that it was, which read it whole for one job, until autovacuum comes by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How a batch is to be treated beside others. What is None was not said."""

    share: float | None = None
    """Its weight against other batches; finite, above 0."""
    deadline: datetime | timedelta | None = None
    """When all of it is wanted: an aware time, or how long after its submission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What became of a submitted file."""

    batch_id: BatchId
    created: bool
    """False: the same content had been submitted before, and this is that batch."""
    total: int


NO_WISHES = Wishes()


def submit(
    engine: Engine,
    requests: Sequence[Request],
    *,
    content_hash: str,
    name: str,
    out_url: str | None,
    new: bool = False,
    wishes: Wishes = NO_WISHES,
) -> Submission:
    """Store *requests* as a batch, or find the batch that has the same *content_hash*.

    Two submissions of the same content at once give one batch: the second waits for the first to
    commit. With *new*, a further batch of the same content is made. *out_url* and *wishes* are not
    part of the content: those of a later submission of the same batch replace its own, and what it
    does not say stays; what has succeeded is delivered to the new place too. A deadline that was
    given as a time from the submission counts from the first one, so that a command that is
    repeated does not put it off.
    """
    with engine.begin() as connection:
        take_turns(connection, content_hash)
        repeat = _next_repeat(connection, content_hash) if new else 0
        batch_id = _batch_id(content_hash, repeat)
        created = connection.execute(
            insert(Batch)
            .values(
                id=batch_id,
                content_hash=content_hash,
                repeat=repeat,
                name=name,
                total=len(requests),
            )
            .on_conflict_do_nothing(constraint="batches_content_once")
            .returning(Batch.id)
        ).first()
        changes = _changes(out_url, wishes)
        if out_url is not None and created is None:
            deliver_anew(connection, batch_id, out_url)
        if changes:
            connection.execute(update(Batch).where(Batch.id == batch_id).values(**changes))
        if created is not None:
            _copy_jobs(connection, batch_id, requests)
            if len(requests) >= LARGE:
                connection.execute(text("ANALYZE jobs"))
        if created is not None or wishes != NO_WISHES:
            wake_scheduler(connection, f"{batch_id} submitted")
    return Submission(batch_id=batch_id, created=created is not None, total=len(requests))


def _changes(out_url: str | None, wishes: Wishes) -> dict[str, Any]:
    """The columns of a batch that a submission says something of."""
    deadline: Any = wishes.deadline
    if isinstance(deadline, timedelta):
        deadline = Batch.created_at + deadline
    said = {"out_url": out_url, "share": wishes.share, "deadline": deadline}
    return {column: value for column, value in said.items() if value is not None}


def job_id(batch_id: BatchId, line: int) -> JobId:
    """The id of the job of *line*; ids of a batch sort as its lines do."""
    return JobId(f"{batch_id}-{line:06d}")


def _batch_id(content_hash: str, repeat: int) -> BatchId:
    digest = hashlib.sha256(f"{content_hash}:{repeat}".encode()).hexdigest()
    return BatchId(f"b{digest[:10]}")


def _next_repeat(connection: Connection, content_hash: str) -> int:
    newest = select(func.max(Batch.repeat)).where(Batch.content_hash == content_hash)
    repeat = connection.execute(newest).scalar_one()
    return 0 if repeat is None else int(repeat) + 1


def _copy_jobs(connection: Connection, batch_id: BatchId, requests: Sequence[Request]) -> None:
    driver_connection = connection.connection.driver_connection
    assert driver_connection is not None, "a connection in a transaction has its driver's one"
    copy_in = f"COPY jobs ({_JOB_COLUMNS}) FROM STDIN"
    with driver_connection.cursor() as cursor, cursor.copy(copy_in) as copy:
        for request in requests:
            copy.write_row(
                (
                    job_id(batch_id, request.line),
                    batch_id,
                    request.line,
                    request.custom_id,
                    request.model,
                    request.priority,
                    request.height,
                    request.width,
                    request.num_frames,
                    request.num_inference_steps,
                    work_of(request.shape, request.num_inference_steps),
                    json.dumps(request.to_json(), ensure_ascii=False),
                )
            )

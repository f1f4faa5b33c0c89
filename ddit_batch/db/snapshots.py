"""Snapshots from Postgres: what is under way, and of what waits the front and the short ones.

Every part of a snapshot is a few short scans of indexes, however many jobs wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Executable,
    Row,
    Select,
    Text,
    and_,
    cast,
    func,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import Session

from ddit_batch.backlog import Kind
from ddit_batch.db.leases import LIVE_WORKER_STATES
from ddit_batch.db.models import Batch, Job, Plan, Segment, Worker
from ddit_batch.db.plans import is_open_or_formed
from ddit_batch.db.store_health import read_store_state
from ddit_batch.job import (
    HELD_STATES,
    WAITING_STATE,
    Incarnation,
    JobId,
    JobState,
    Phase,
    Shape,
    WorkerName,
    worker_of_queue,
)
from ddit_batch.protocol import PROTOCOL
from ddit_batch.snapshot import BatchView, JobView, Snapshot, Whereabouts, WorkerView

CANCELS_AT_ONCE = 256
"""Waiting jobs that one snapshot shows only because they are to be cancelled."""
SHORTEST = 4
"""Jobs of a batch, model and waiting state that are shown for being short, at least: if that is too
much for all batches, the oldest have it."""


def read_snapshot(
    session: Session, *, window: int, backlog: Sequence[Kind], may_lose_workers: bool
) -> Snapshot:
    """See ``SchedulerStore.snapshot``."""
    now_s = float(session.execute(select(_epoch_s(func.clock_timestamp()))).scalar_one())
    workers = _read_workers(session)
    fronts = _fronts(window, workers)
    rows = session.execute(_jobs_where(_ids_in_view(fronts, backlog))).all()
    waiting_to_decode = session.execute(
        select(func.count()).where(
            Job.state == JobState.DENOISED, Job.dispatched_at.is_not(None) | ~Job.paused
        )
    ).scalar_one()
    return Snapshot(
        now_s=now_s,
        jobs=_job_views(rows, workers),
        workers=workers,
        waiting_to_decode=waiting_to_decode,
        may_lose_workers=may_lose_workers,
        batches=_batch_views(rows),
        store=read_store_state(session),
    )


def _epoch_s(column: Any) -> ColumnElement[Any]:
    """A time of the database as seconds: the clock of snapshots."""
    return func.extract("epoch", column)


def _read_workers(session: Session) -> tuple[WorkerView, ...]:
    expired = Worker.lease_expires_at < func.clock_timestamp()
    rows = session.execute(select(Worker, expired).where(Worker.state.in_(LIVE_WORKER_STATES)))
    return tuple(
        WorkerView(
            name=WorkerName(worker.name),
            incarnation=Incarnation(worker.incarnation),
            phase=Phase(worker.phase),
            host=worker.host,
            node=worker.node,
            models=frozenset(worker.models),
            # who would not understand what it is sent is sent nothing, as one that leaves
            draining=worker.state == "draining"
            or worker.hung_since is not None
            or worker.protocol != PROTOCOL,
            lease_expired=lease_expired,
        )
        for worker, lease_expired in rows
    )


def _fronts(window: int, workers: Sequence[WorkerView]) -> dict[str, int]:
    """How many waiting jobs of each state are shown of each model that workers serve."""
    able = [worker for worker in workers if not worker.draining]
    models = frozenset(model for worker in able for model in worker.models)
    return {
        model: window * max(1, sum(w.phase is Phase.DIT and model in w.models for w in able))
        for model in sorted(models)
    }


def _ids_in_view(fronts: dict[str, int], backlog: Sequence[Kind]) -> Select[tuple[str]]:
    """The jobs that a snapshot shows; each part is one short scan of one index, or a few."""
    parts = [
        select(Job.id).where(Job.dispatched_at.is_not(None)),
        select(Job.id)
        .where(
            Job.cancel_requested_at.is_not(None),
            Job.finished_at.is_(None),
            Job.dispatched_at.is_(None),
        )
        .limit(CANCELS_AT_ONCE),
        *(
            select(Job.id)
            .where(
                Job.state == state,
                Job.model == model,
                Job.dispatched_at.is_(None),
                ~Job.paused,
            )
            .order_by(Job.priority.desc(), Job.seq)
            .limit(front)
            for state in WAITING_STATE.values()
            for model, front in fronts.items()
        ),
        *_shortest(fronts, backlog),
    ]
    return select(union_all(*(select(part.subquery().c.id) for part in parts)).subquery().c.id)


def _shortest(fronts: dict[str, int], backlog: Sequence[Kind]) -> list[Select[tuple[str]]]:
    """Of each batch and model the waiting jobs with the least work, in all no more than a front."""
    oldest_first = sorted((kind for kind in backlog if kind.waits), key=lambda kind: kind.seq)
    pairs = tuple({(kind.batch_id, kind.model): None for kind in oldest_first})
    pairs = tuple(pair for pair in pairs if fronts.get(pair[1]))
    if not pairs:
        return []
    states = (JobState.QUEUED, JobState.ENCODED)
    room = max(fronts.values()) // len(states)
    each = max(SHORTEST, room // len(pairs))
    shown = pairs[: max(1, room // each)]
    batches, models = ([pair[i] for pair in shown] for i in range(2))
    unnested = func.unnest(cast(batches, ARRAY(Text)), cast(models, ARRAY(Text)))
    pair = unnested.table_valued("batch_id", "model", name="pair").render_derived()
    parts = []
    for state in states:
        short = (
            select(Job.id)
            .where(
                Job.batch_id == pair.c.batch_id,
                Job.model == pair.c.model,
                Job.state == state,
                Job.dispatched_at.is_(None),
                ~Job.paused,
            )
            .order_by(Job.priority.desc(), Job.work, Job.seq)
            .limit(each)
            .lateral()
        )
        parts.append(select(short.c.id).select_from(pair.join(short, true())))
    return parts


def _jobs_where(ids: Select[tuple[str]]) -> Executable:
    """The rows of jobs with what is to be known of their batches, newest segments and plans."""
    newest = (
        select(Segment.workers, Segment.from_step, Segment.ended_at, Segment.plan_epoch)
        .where(Segment.job_id == Job.id, Job.state != JobState.QUEUED)
        .order_by(Segment.id.desc())
        .limit(1)
        .lateral()
    )
    plan = (
        select(Plan.workers, Plan.epoch)
        .where(
            Plan.job_id == Job.id,
            Plan.attempt == Job.attempt,
            Job.dispatched_at.is_not(None),
            Job.state.in_((JobState.ENCODED, JobState.DENOISING)),
            is_open_or_formed(),
        )
        .order_by(Plan.epoch.desc())
        .limit(1)
        .lateral()
    )
    cancelled = Job.cancel_requested_at.is_not(None) | Batch.cancel_requested_at.is_not(None)
    return (
        select(
            Job.id,
            Job.batch_id,
            Job.state,
            Job.priority,
            Job.seq,
            Job.model,
            Job.height,
            Job.width,
            Job.num_frames,
            Job.steps,
            Job.step,
            Job.attempt,
            Job.dop,
            Job.queue,
            Job.holder,
            Job.worker_losses,
            Job.timeouts,
            Job.dispatched_at.is_not(None).label("dispatched"),
            cancelled.label("cancelled"),
            Job.paused,
            _epoch_s(Batch.created_at).label("arrived_s"),
            Batch.share,
            _epoch_s(Batch.deadline).label("deadline_s"),
            newest.c.workers,
            newest.c.from_step,
            and_(newest.c.workers.is_not(None), newest.c.ended_at.is_(None)).label("at_work"),
            newest.c.plan_epoch,
            plan.c.workers.label("plan_workers"),
            plan.c.epoch.label("newest_epoch"),
        )
        .join(Batch, Batch.id == Job.batch_id)
        .outerjoin(newest, true())
        .outerjoin(plan, true())
        .where(Job.id.in_(ids))
    )


def _job_views(rows: Sequence[Row[Any]], workers: Sequence[WorkerView]) -> tuple[JobView, ...]:
    live = frozenset(worker.name for worker in workers)
    return tuple(_job_view(row, live) for row in rows)


def _job_view(row: Row[Any], live: frozenset[WorkerName]) -> JobView:
    state = JobState(row.state)
    unclaimed = row.dispatched and state not in HELD_STATES
    last_group = () if row.at_work or unclaimed else row.workers or ()
    return JobView(
        job_id=JobId(row.id),
        batch_id=row.batch_id,
        state=state,
        priority=row.priority,
        seq=row.seq,
        model=row.model,
        shape=Shape(row.height, row.width, row.num_frames),
        steps=row.steps,
        step=row.step,
        attempt=row.attempt,
        dop=row.dop,
        message=Whereabouts.SENT if unclaimed else Whereabouts.NONE,
        group=_group(row, state, unclaimed=unclaimed),
        holder=Incarnation(row.holder) if row.holder is not None else None,
        worker_losses=row.worker_losses,
        timeouts=row.timeouts,
        cancel_requested=row.cancelled,
        paused=row.paused,
        arrived_s=float(row.arrived_s),
        granted_step=row.from_step if row.at_work else 0,
        pending=_pending(row, state),
        last_group=tuple(WorkerName(name) for name in last_group if name in live),
    )


def _group(row: Row[Any], state: JobState, *, unclaimed: bool) -> tuple[WorkerName, ...]:
    """A running job's workers; of a sent one those of its plan, or the one that it was sent to."""
    if state is JobState.DENOISING:
        return tuple(map(WorkerName, row.workers if row.at_work else ()))
    if not unclaimed or row.queue is None:
        return ()
    leader = worker_of_queue(row.queue)
    return tuple(map(WorkerName, row.plan_workers or (leader,))) if leader else ()


def _pending(row: Row[Any], state: JobState) -> tuple[WorkerName, ...] | None:
    """The workers of a running job's plan that has not taken effect yet."""
    if state is not JobState.DENOISING or row.newest_epoch is None:
        return None
    is_new = row.newest_epoch > row.plan_epoch
    return tuple(map(WorkerName, row.plan_workers)) if is_new else None


def _batch_views(rows: Sequence[Row[Any]]) -> tuple[BatchView, ...]:
    """The batches of *rows* that differ from the defaults, in order of id."""
    found = {
        row.batch_id: BatchView(
            batch_id=row.batch_id,
            share=row.share,
            deadline_s=None if row.deadline_s is None else float(row.deadline_s),
        )
        for row in rows
        if row.share != 1.0 or row.deadline_s is not None
    }
    return tuple(found[batch] for batch in sorted(found))

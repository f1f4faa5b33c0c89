"""What the scheduler reads and writes. Every write checks that its term still leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    func,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.orm import Session, defer

from ddit_batch.db.decision_log import DecisionLog
from ddit_batch.db.leases import LIVE_WORKER_STATES
from ddit_batch.db.models import Batch, Job, Leadership, Segment, Worker
from ddit_batch.db.moves import (
    SUPERSEDED,
    Belief,
    as_believed,
    end_attempt,
    move,
    next_number,
    open_attempt,
)
from ddit_batch.errors import LeadershipLost, StateConflict
from ddit_batch.job import (
    HELD_STATES,
    PHASE_OF,
    WAITING_STATE,
    Incarnation,
    JobId,
    JobState,
    Phase,
    Shape,
    WorkerName,
    worker_of_queue,
)
from ddit_batch.lifecycle import Trigger
from ddit_batch.snapshot import JobView, Progress, Snapshot, Whereabouts, WorkerView

CANCELS_AT_ONCE = 256
"""Waiting jobs that one snapshot shows only because they are to be cancelled."""


class SchedulerStore:
    """The database as the leading scheduler of one *term* sees it."""

    def __init__(self, engine: Engine, *, term: int) -> None:
        self._engine = engine
        self._term = term

    def snapshot(self, *, window: int, may_lose_workers: bool) -> Snapshot:
        """The world now: all jobs under way or cancelled, and the front of those that wait.

        The front are the first *window* jobs of each waiting state and model, for each DiT worker
        that serves the model. Models that no worker serves hold nobody up: they are left out.
        """
        with Session(self._engine) as session:
            now_s = float(session.execute(select(_epoch_s(func.clock_timestamp()))).scalar_one())
            workers = _read_workers(session)
            jobs = _read_jobs(session, window, workers)
            waiting_to_decode = session.execute(
                select(func.count()).where(Job.state == JobState.DENOISED)
            ).scalar_one()
        return Snapshot(
            now_s=now_s,
            jobs=jobs,
            workers=workers,
            waiting_to_decode=waiting_to_decode,
            may_lose_workers=may_lose_workers,
        )

    def lose_worker(self, incarnation: Incarnation) -> bool:
        """Declare the incarnation lost, if its lease is still expired. False: it was renewed."""
        with self._leading() as connection:
            lost = connection.execute(
                update(Worker)
                .where(
                    Worker.incarnation == incarnation,
                    Worker.state.in_(LIVE_WORKER_STATES),
                    Worker.lease_expires_at < func.clock_timestamp(),
                )
                .values(state="lost", ended_at=func.clock_timestamp())
            )
            return lost.rowcount == 1

    def rescue(self, job: JobView) -> None:
        """Take the job back from a holder that is no longer live, one phase back.

        Raises:
            StateConflict: The holder is live after all, or the job has moved on.
        """
        with self._leading() as connection:
            _check_gone(connection, job)
            move(
                connection,
                _belief(job),
                Trigger.WORKER_LOST,
                by=job.holder,
                changes={"worker_losses": Job.worker_losses + 1, "dop": 0},
            )

    def give_up(self, job: JobView) -> None:
        """Fail a job that has outlived too many workers.

        Raises:
            StateConflict: The holder is live after all, or the job has moved on.
        """
        losses = job.worker_losses + 1
        message = (
            f"{losses} workers died while they worked on this job, the last in {job.state}: "
            "it probably kills them (too large a shape for the memory?); "
            "try it with a smaller shape, and see the workers' logs"
        )
        with self._leading() as connection:
            _check_gone(connection, job)
            move(
                connection,
                _belief(job),
                Trigger.FAIL,
                by=job.holder,
                detail={"code": "worker_lost", "message": message},
                changes={
                    "worker_losses": losses,
                    "dop": 0,
                    "failure_code": "worker_lost",
                    "failure_message": message,
                },
            )

    def cancel(self, job: JobView) -> None:
        """End a cancelled job that nobody holds.

        Raises:
            StateConflict: A worker has claimed it meanwhile; it will be told.
        """
        with self._leading() as connection:
            move(connection, _belief(job), Trigger.CANCEL)

    def withdraw(self, job: JobView) -> None:
        """Make void the message of the live attempt; a late claim of it is refused.

        Raises:
            StateConflict: It has been claimed meanwhile.
        """
        with self._leading() as connection:
            _update_waiting(connection, job, {"queue": None, "dispatched_at": None}, sent=True)
            end_attempt(connection, job.job_id, outcome=SUPERSEDED)

    def open_attempt(self, job: JobView, queue: str) -> tuple[int, int]:
        """Record a new attempt at the phase that the job waits for, about to be sent to *queue*.

        Returns its number, and the number that the VAE attempt behind a DiT attempt will have.

        Raises:
            StateConflict: The job has moved on.
        """
        with self._leading() as connection:
            phase = PHASE_OF[job.state]
            number = next_number(connection, job.job_id, phase)
            _update_waiting(
                connection,
                job,
                {"attempt": number, "queue": queue, "dispatched_at": func.clock_timestamp()},
                sent=False,
            )
            open_attempt(connection, job.job_id, phase, queue)
            return number, next_number(connection, job.job_id, Phase.VAE)

    def resent(self, job: JobView) -> int:
        """Note that the live attempt's message is about to be sent again.

        Returns the number that the VAE attempt behind a DiT attempt will have.

        Raises:
            StateConflict: It has been claimed meanwhile, or the job has moved on.
        """
        with self._leading() as connection:
            _update_waiting(connection, job, {"dispatched_at": func.clock_timestamp()}, sent=True)
            return next_number(connection, job.job_id, Phase.VAE)

    def record_progress(self, reports: Mapping[JobId, Progress]) -> frozenset[JobId]:
        """Store the steps done. Returns the jobs that those attempts do not denoise any more."""
        if not reports:
            return frozenset()
        statement = text(
            "UPDATE jobs SET step = least(greatest(p.step, jobs.step), steps), step_s = p.step_s "
            "FROM unnest(CAST(:ids AS text[]), CAST(:attempts AS int[]), CAST(:steps AS int[]), "
            "            CAST(:seconds AS float8[])) AS p (id, attempt, step, step_s) "
            "WHERE jobs.id = p.id AND jobs.attempt = p.attempt AND jobs.state = 'denoising' "
            "RETURNING jobs.id"
        )
        with self._leading() as connection:
            # Progress that a crash of Postgres takes back is reported again by the next step.
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            current = connection.execute(
                statement,
                {
                    "ids": list(reports),
                    "attempts": [report.attempt for report in reports.values()],
                    "steps": [report.step for report in reports.values()],
                    "seconds": [report.step_s for report in reports.values()],
                },
            )
            return frozenset(reports) - frozenset(current.scalars())

    def publish_limits(self, *, look_ahead: int, decode_backlog: int) -> None:
        """Say by which limits this term decides, so that the views can explain a wait by them."""
        with self._leading() as connection:
            connection.execute(
                update(Leadership).values(look_ahead=look_ahead, decode_backlog=decode_backlog)
            )

    def decision_log(self) -> DecisionLog:
        """The log of the decisions of this term."""
        return DecisionLog(self._engine, term=self._term)

    @contextmanager
    def _leading(self) -> Iterator[Connection]:
        """A transaction that commits only while this term leads."""
        with self._engine.begin() as connection:
            term = connection.execute(
                select(Leadership.term).with_for_update(read=True)
            ).scalar_one()
            if term != self._term:
                raise LeadershipLost(f"term {self._term} is over: the scheduler of {term} leads")
            yield connection


def begin_term(engine: Engine, *, holder: str) -> int:
    """Take the lead: raise the term, so that no earlier leader can write. Returns the new term."""
    with engine.begin() as connection:
        return connection.execute(
            update(Leadership)
            .values(term=Leadership.term + 1, holder=holder, since=func.clock_timestamp())
            .returning(Leadership.term)
        ).scalar_one()


def _belief(job: JobView) -> Belief:
    return Belief(job_id=job.job_id, state=job.state, attempt=job.attempt, holder=job.holder)


def _update_waiting(
    connection: Connection, job: JobView, values: Mapping[str, object], *, sent: bool
) -> None:
    """Change the row of a job that waits as *job* says, with a message out or not (*sent*)."""
    dispatched = Job.dispatched_at.is_not(None) if sent else Job.dispatched_at.is_(None)
    updated = connection.execute(
        update(Job).where(*as_believed(_belief(job)), dispatched).values(**values)
    )
    if updated.rowcount != 1:
        raise StateConflict(
            f"job {job.job_id} does not wait as {job.state} at attempt {job.attempt} any more"
        )


def _check_gone(connection: Connection, job: JobView) -> None:
    state = connection.execute(
        select(Worker.state).where(Worker.incarnation == job.holder)
    ).scalar_one_or_none()
    if state in LIVE_WORKER_STATES:
        raise StateConflict(f"worker {job.holder} is {state}, so job {job.job_id} stays with it")


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
            draining=worker.state == "draining",
            lease_expired=lease_expired,
        )
        for worker, lease_expired in rows
    )


def _read_jobs(
    session: Session, window: int, workers: tuple[WorkerView, ...]
) -> tuple[JobView, ...]:
    names = {worker.incarnation: worker.name for worker in workers}
    cancelled = Job.cancel_requested_at.is_not(None) | Batch.cancel_requested_at.is_not(None)
    rows = session.execute(
        select(Job, cancelled, _epoch_s(Batch.created_at), Segment.from_step)
        .outerjoin(Segment, (Segment.job_id == Job.id) & Segment.ended_at.is_(None))
        .join(Batch, Batch.id == Job.batch_id)
        .where(Job.id.in_(_ids_in_view(window, workers)))
        .options(defer(Job.request))
    )
    return tuple(
        _job_view(
            job,
            names,
            cancel_requested=cancel_requested,
            arrived_s=float(arrived_s),
            granted_step=granted_step or 0,
        )
        for job, cancel_requested, arrived_s, granted_step in rows
    )


def _ids_in_view(window: int, workers: tuple[WorkerView, ...]) -> Select[tuple[str]]:
    """The jobs that a snapshot shows; each part is one short scan of one index."""
    able = [worker for worker in workers if not worker.draining]
    models = frozenset(model for worker in able for model in worker.models)
    fronts = {
        model: window * max(1, sum(w.phase is Phase.DIT and model in w.models for w in able))
        for model in sorted(models)
    }
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
            .where(Job.state == state, Job.model == model, Job.dispatched_at.is_(None))
            .order_by(Job.priority.desc(), Job.seq)
            .limit(front)
            for state in WAITING_STATE.values()
            for model, front in fronts.items()
        ),
    ]
    return select(union_all(*(select(part.subquery().c.id) for part in parts)).subquery().c.id)


def _job_view(
    job: Job,
    names: Mapping[Incarnation, WorkerName],
    *,
    cancel_requested: bool,
    arrived_s: float,
    granted_step: int,
) -> JobView:
    state = JobState(job.state)
    unclaimed = job.dispatched_at is not None and state not in HELD_STATES
    leader = None
    if state is JobState.DENOISING:
        leader = names.get(Incarnation(job.holder or 0))
    elif unclaimed and job.queue is not None:
        leader = worker_of_queue(job.queue)
    return JobView(
        job_id=JobId(job.id),
        batch_id=job.batch_id,
        state=state,
        priority=job.priority,
        seq=job.seq,
        model=job.model,
        shape=Shape(job.height, job.width, job.num_frames),
        steps=job.steps,
        step=job.step,
        attempt=job.attempt,
        dop=job.dop,
        message=Whereabouts.SENT if unclaimed else Whereabouts.NONE,
        group=(leader,) if leader else (),
        holder=Incarnation(job.holder) if job.holder is not None else None,
        worker_losses=job.worker_losses,
        cancel_requested=cancel_requested,
        arrived_s=arrived_s,
        granted_step=granted_step,
    )

"""What the scheduler reads and writes. Every write checks that its term still leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine, func, select, text, update
from sqlalchemy.orm import Session

from ddit_batch import __version__
from ddit_batch.backlog import Kind
from ddit_batch.causes import Cause
from ddit_batch.db.decision_log import DecisionLog
from ddit_batch.db.leases import LIVE_WORKER_STATES
from ddit_batch.db.models import Job, Worker
from ddit_batch.db.moves import (
    SUPERSEDED,
    Belief,
    as_believed,
    end_attempt,
    move,
    next_number,
    open_attempt,
)
from ddit_batch.db.planning import OpenPlan, check_free, plan_group, withdraw_plan
from ddit_batch.db.service_models import Leadership
from ddit_batch.db.snapshots import read_snapshot
from ddit_batch.errors import LeadershipLost, StateConflict
from ddit_batch.job import PHASE_OF, Incarnation, JobId, Phase, WorkerName
from ddit_batch.lifecycle import Trigger
from ddit_batch.protocol import PROTOCOL
from ddit_batch.snapshot import JobView, Progress, Snapshot

ENDS_AT_ONCE = 1000
"""Batches whose estimated ends are written at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a running job's progress means by the costs that its scheduler goes by."""

    starvation_s: float | None = None
    eta_s: float | None = None
    """Seconds until its video is complete; None: there is nothing to go by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What is to be published of an attempt: its message, and calls for its group."""

    attempt: int
    vae_attempt: int
    """The number that the VAE attempt behind a DiT attempt will have."""
    plan: OpenPlan | None
    """Of a DiT attempt on several workers."""


_UNKNOWN = Standing()
_NOTHING: Mapping[JobId, Standing] = {}


class SchedulerStore:
    """The database as the leading scheduler of one *term* sees it."""

    def __init__(self, engine: Engine, *, term: int) -> None:
        self._engine = engine
        self._term = term

    def snapshot(
        self, *, window: int, may_lose_workers: bool, backlog: Sequence[Kind] = ()
    ) -> Snapshot:
        """The world now: all jobs under way or cancelled, and the front of those that wait.

        The front are the first *window* jobs of each waiting state and model, for each DiT worker
        that serves the model; and of the batches in *backlog*, which is what a look at all that is
        left has shown, those with the least work, as many again in all. Models that no worker
        serves hold nobody up: they are left out.

        Of ``batches`` the work is not told, and nothing of ``recent``: who looks at the backlog
        knows.
        """
        with Session(self._engine) as session:
            return read_snapshot(
                session, window=window, backlog=backlog, may_lose_workers=may_lose_workers
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
        with self._leading() as connection:
            _check_gone(connection, job)
            message = (
                f"{losses} workers died while they worked on this job, the last in {job.state}: "
                f"{_name_of(connection, job.holder)}; it probably kills them (too large a shape "
                "for the memory?): try it with a smaller shape, and see the workers' logs"
            )
            move(
                connection,
                _belief(job),
                Trigger.FAIL,
                by=job.holder,
                detail={"code": Cause.WORKER_LOST, "message": message},
                changes={
                    "worker_losses": losses,
                    "dop": 0,
                    "failure_code": Cause.WORKER_LOST,
                    "failure_message": message,
                },
            )

    def take_away(self, job: JobView, *, for_good: bool) -> None:
        """Take the job from a holder that lives and hangs, and give that no more work for now.

        The job goes back one phase, or *for_good* fails. The holder gets work again when it has
        said that it is through with the job.

        Raises:
            StateConflict: The job has moved on.
        """
        with self._leading() as connection:
            name = _name_of(connection, job.holder)
            message = (
                f"{name} did not go on with it for {job.silent_s:.0f} s in {job.state}, the "
                f"{job.timeouts + 1}. time that a worker hung with this job: see its log"
            )
            move(
                connection,
                _belief(job),
                Trigger.FAIL if for_good else Trigger.TIMED_OUT,
                by=job.holder,
                detail={"code": Cause.TIMEOUT, "message": message},
                changes={
                    "timeouts": Job.timeouts + 1,
                    "dop": 0,
                    "failure_code": Cause.TIMEOUT,
                    "failure_message": message,
                },
            )
            connection.execute(
                update(Worker)
                .where(Worker.incarnation == job.holder, Worker.state.in_(LIVE_WORKER_STATES))
                .values(hung_since=func.clock_timestamp())
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

    def open_attempt(self, job: JobView, queue: str, group: tuple[WorkerName, ...] = ()) -> Sending:
        """Record a new attempt at the phase that the job waits for, about to be sent to *queue*.

        If *group* names several workers, the leader first, the attempt has a plan from the start.

        Raises:
            StateConflict: The job has moved on; a worker of *group* is another job's, or several
                are named and one is not live.
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
            check_free(connection, job.job_id, group)
            return _sending(connection, replace(job, attempt=number, group=group))

    def resent(self, job: JobView) -> Sending:
        """Note that the live attempt's message is about to be sent again.

        A plan for a group of which one has begun a new life is made anew.

        Raises:
            StateConflict: It has been claimed meanwhile, the job has moved on, or a worker of its
                group is not live.
        """
        with self._leading() as connection:
            _update_waiting(connection, job, {"dispatched_at": func.clock_timestamp()}, sent=True)
            return _sending(connection, job)

    def open_plan(self, job: JobView, group: tuple[WorkerName, ...]) -> OpenPlan:
        """Have a running job go over to *group* at a step boundary; () has it given back.

        Said again, it finds the pending plan. Another pending plan is replaced.

        Raises:
            StateConflict: The job has moved on; a formed plan of it has not taken effect yet; a
                worker is not live, or another job has it or was promised it.
        """
        with self._leading() as connection:
            return plan_group(connection, _belief(job), group, present=job.group)

    def withdraw_plan(self, job: JobView) -> int:
        """Have a running job stay as it is. Returns the plan epoch of its present group.

        Raises:
            StateConflict: The job has moved on, or a formed plan of it has not taken effect yet.
        """
        with self._leading() as connection:
            return withdraw_plan(connection, _belief(job), present=job.group)

    def record_progress(
        self, reports: Mapping[JobId, Progress], standing: Mapping[JobId, Standing] = _NOTHING
    ) -> frozenset[JobId]:
        """Store the steps done, and where known what they say of how the jobs stand.

        Returns the jobs that those attempts do not denoise any more.
        """
        if not reports:
            return frozenset()
        statement = text(
            "UPDATE jobs SET step = least(greatest(p.step, jobs.step), steps), step_s = p.step_s, "
            "    starvation_s = coalesce(p.starvation_s, 0), "
            "    eta_at = clock_timestamp() + make_interval(secs => p.eta_s) "
            "FROM unnest(CAST(:ids AS text[]), CAST(:attempts AS int[]), CAST(:steps AS int[]), "
            "            CAST(:seconds AS float8[]), CAST(:starvation_s AS float8[]), "
            "            CAST(:eta_s AS float8[])) "
            "    AS p (id, attempt, step, step_s, starvation_s, eta_s) "
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
                    "starvation_s": [standing.get(job, _UNKNOWN).starvation_s for job in reports],
                    "eta_s": [standing.get(job, _UNKNOWN).eta_s for job in reports],
                },
            )
            return frozenset(reports) - frozenset(current.scalars())

    def record_ends(self, ends_s: Mapping[str, float]) -> None:
        """Say when batches will be done: seconds from now, for those of which it can be told.

        Rows that say nearly so already are left alone, and so are batches that come late among
        many: nobody looks at so many estimates.
        """
        statement = text(
            "UPDATE batches SET eta_at = clock_timestamp() + make_interval(secs => p.end_s) "
            "FROM unnest(CAST(:ids AS text[]), CAST(:ends_s AS float8[])) AS p (id, end_s) "
            "WHERE batches.id = p.id AND (eta_at IS NULL OR "
            "    abs(extract(epoch FROM eta_at - clock_timestamp()) - p.end_s) "
            "    > greatest(0.5, 0.01 * p.end_s))"
        )
        first = sorted(ends_s.items(), key=lambda end: (end[1], end[0]))[:ENDS_AT_ONCE]
        if not first:
            return
        with self._leading() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            connection.execute(
                statement, {"ids": [b for b, _ in first], "ends_s": [s for _, s in first]}
            )

    def publish_limits(self, *, look_ahead: int, decode_backlog: int) -> None:
        """Say by what this term decides and speaks, so that the views can explain by it."""
        with self._leading() as connection:
            connection.execute(
                update(Leadership).values(
                    look_ahead=look_ahead,
                    decode_backlog=decode_backlog,
                    protocol=PROTOCOL,
                    version=__version__,
                )
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


def _sending(connection: Connection, job: JobView) -> Sending:
    """What to publish of the live attempt of a job whose workers are its group."""
    plan = None
    if len(job.group) > 1:
        plan = plan_group(connection, _belief(job), job.group, present=())
    vae_attempt = next_number(connection, job.job_id, Phase.VAE)
    return Sending(attempt=job.attempt, vae_attempt=vae_attempt, plan=plan)


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


def _name_of(connection: Connection, incarnation: Incarnation | None) -> str:
    return str(
        connection.execute(
            select(Worker.name).where(Worker.incarnation == incarnation)
        ).scalar_one_or_none()
    )

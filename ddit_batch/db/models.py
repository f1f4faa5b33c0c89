"""The schema as SQLAlchemy sees it. Migrations create it; a test holds the two together.

The constraints state the invariants of ``design``: a state is one of the lifecycle's, a job is held
exactly while it is worked on, a state whose input is a handoff has that handoff, a job has at most
one live attempt and one open segment, a worker name has at most one live incarnation.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ddit_batch.job import HELD_STATES, JobState, Phase


def one_of(column: str, words: object) -> str:
    """The condition that *column* is one of *words*."""
    return f"{column} IN ({', '.join(repr(str(w)) for w in words)})"  # type: ignore[attr-defined]  # any iterable of words


_HELD = one_of("state", sorted(HELD_STATES))
_NEEDS_EMBEDDINGS = one_of("state", (JobState.ENCODED, JobState.DENOISING))
_NEEDS_LATENTS = one_of("state", (JobState.DENOISED, JobState.DECODING))
_WAITING = one_of("state", (JobState.QUEUED, JobState.ENCODED, JobState.DENOISED))
_BEFORE_DIT = one_of("state", (JobState.QUEUED, JobState.ENCODING, JobState.ENCODED))
_MAY_BE_SENT = f"{_WAITING} AND dispatched_at IS NULL AND NOT paused"
_LIVE_WORKER = "state IN ('online', 'draining')"


class PlanOutcome(StrEnum):
    """What became of a plan; while it is pending, nothing has."""

    FORMED = "formed"
    """Its group stands: the leader takes it at the next step boundary, and nobody can take the
    plan back."""
    REPLACED = "replaced"
    """The scheduler has made another plan."""
    WITHDRAWN = "withdrawn"
    """The scheduler wants the job to stay as it is."""
    NOT_FORMED = "not_formed"
    """Not all its workers were ready in time; the leader goes on as it was."""
    ATTEMPT_ENDED = "attempt_ended"
    """The attempt ended first."""


class Base(DeclarativeBase):
    """All tables; times are aware UTC."""

    type_annotation_map = {  # noqa: RUF012 -- SQLAlchemy's own convention
        datetime: DateTime(timezone=True),
        str: Text(),
        float: Double(),
        dict[str, Any]: JSONB(),
        list[str]: ARRAY(Text()),
    }


class Batch(Base):
    """One submitted file."""

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("content_hash", "repeat", name="batches_content_once"),
        CheckConstraint("share > 0 AND share < 'Infinity'", name="batches_share"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    content_hash: Mapped[str]
    """Of requests, models and options: the same file submitted again is the same batch."""
    repeat: Mapped[int] = mapped_column(server_default="0")
    """Told apart from an earlier batch of the same content on purpose."""
    name: Mapped[str]
    out_url: Mapped[str | None]
    """Where finished videos appear under the user's names, besides the artifact store."""
    total: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    cancel_requested_at: Mapped[datetime | None]
    share: Mapped[float] = mapped_column(server_default=text("1"))
    """Its weight against other batches."""
    deadline: Mapped[datetime | None]
    """When its user wants all of it."""
    paused_at: Mapped[datetime | None]
    """Since when nothing of it is sent or goes on; null: it is not paused."""
    eta_at: Mapped[datetime | None]
    """When the scheduler thinks that the last video is complete; kept up to date while it leads."""


class Worker(Base):
    """One life of one worker process."""

    __tablename__ = "workers"
    __table_args__ = (
        CheckConstraint(one_of("phase", Phase), name="workers_phase"),
        CheckConstraint("state IN ('online', 'draining', 'stopped', 'lost')", name="workers_state"),
        CheckConstraint(f"({_LIVE_WORKER}) = (ended_at IS NULL)", name="workers_end"),
        Index("workers_live_name", "name", unique=True, postgresql_where=text(_LIVE_WORKER)),
    )

    incarnation: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str]
    phase: Mapped[str]
    host: Mapped[str]
    node: Mapped[str]
    """Groups stay inside a node."""
    device: Mapped[str]
    pid: Mapped[int]
    models: Mapped[list[str]]
    version: Mapped[str]
    protocol: Mapped[int] = mapped_column(server_default=text("0"))
    """What it understands (``protocol.py``); 0: it is from before there was one."""
    state: Mapped[str]
    hung_since: Mapped[datetime | None]
    """When an attempt was taken from it because it did not go on; null once it has answered."""
    registered_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lease_expires_at: Mapped[datetime]
    drain_requested_at: Mapped[datetime | None]
    """When a user asked it to leave; it finds out when it next renews its lease."""
    ended_at: Mapped[datetime | None]


class Job(Base):
    """A request with a state. The columns after ``state`` say how far it is and who has it."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("batch_id", "custom_id", name="jobs_custom_id"),
        UniqueConstraint("batch_id", "line", name="jobs_line"),
        CheckConstraint(one_of("state", JobState), name="jobs_state"),
        CheckConstraint(f"({_HELD}) = (holder IS NOT NULL)", name="jobs_held_while_worked_on"),
        CheckConstraint(f"NOT {_HELD} OR dispatched_at IS NOT NULL", name="jobs_held_dispatched"),
        CheckConstraint(
            f"NOT {_NEEDS_EMBEDDINGS} OR embeddings_key IS NOT NULL", name="jobs_embeddings"
        ),
        CheckConstraint(f"NOT {_NEEDS_LATENTS} OR latents_key IS NOT NULL", name="jobs_latents"),
        CheckConstraint("state <> 'succeeded' OR artifact_key IS NOT NULL", name="jobs_artifact"),
        CheckConstraint("state <> 'failed' OR failure_code IS NOT NULL", name="jobs_cause"),
        CheckConstraint("step BETWEEN 0 AND steps", name="jobs_step"),
        CheckConstraint("checkpoint_step IS NULL OR checkpoint_key IS NOT NULL", name="jobs_ckpt"),
        # The scheduler's window: the first waiting jobs of a state and model, in order.
        Index(
            "jobs_waiting",
            "state",
            "model",
            text("priority DESC"),
            "seq",
            postgresql_where=text(_MAY_BE_SENT),
        ),
        Index("jobs_dispatched", "id", postgresql_where=text("dispatched_at IS NOT NULL")),
        Index(
            "jobs_to_cancel",
            "id",
            postgresql_where=text("cancel_requested_at IS NOT NULL AND finished_at IS NULL"),
        ),
        Index("jobs_batch_state", "batch_id", "state"),
        # The scheduler's window again, shortest first, and its sums over all that wait.
        Index(
            "jobs_shortest",
            "batch_id",
            "state",
            "model",
            text("priority DESC"),
            "work",
            "seq",
            postgresql_include=["height", "width", "num_frames", "steps"],
            postgresql_where=text(_MAY_BE_SENT),
        ),
        Index("jobs_succeeded", "finished_at", postgresql_where=text("state = 'succeeded'")),
        Index(
            "jobs_to_deliver",
            "finished_at",
            postgresql_where=text("state = 'succeeded' AND delivered_at IS NULL"),
        ),
        # The views' estimates: the steps ahead of a job, and the last job of a batch.
        Index(
            "jobs_to_denoise",
            "model",
            text("priority DESC"),
            "seq",
            postgresql_include=["steps"],
            postgresql_where=text(f"{_BEFORE_DIT} AND NOT paused"),
        ),
        Index(
            "jobs_last_in_order",
            "batch_id",
            "priority",
            text("seq DESC"),
            postgresql_where=text(f"{_BEFORE_DIT} AND NOT paused"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    """Order of arrival over all batches."""
    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"))
    line: Mapped[int]
    custom_id: Mapped[str]
    model: Mapped[str]
    priority: Mapped[int]
    height: Mapped[int]
    width: Mapped[int]
    num_frames: Mapped[int]
    steps: Mapped[int]
    work: Mapped[int] = mapped_column(BigInteger)
    """What is left of it, as pixels x frames x steps (``job.work_of``), when it last waited: set at
    submission, and by the move that has it wait again. Not while it runs: an index has it."""
    request: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    state: Mapped[str] = mapped_column(server_default="queued")
    state_since: Mapped[datetime] = mapped_column(server_default=func.now())
    attempt: Mapped[int] = mapped_column(server_default="0")
    """The newest attempt at the phase that the state waits for or is in: the fencing number."""
    queue: Mapped[str | None]
    dispatched_at: Mapped[datetime | None]
    """When the live attempt's message was sent; null while no attempt is live."""
    holder: Mapped[int | None] = mapped_column(ForeignKey("workers.incarnation"))
    step: Mapped[int] = mapped_column(server_default="0")
    """Denoising steps done, as last reported."""
    step_s: Mapped[float | None]
    """Seconds of a recent step."""
    dop: Mapped[int] = mapped_column(server_default="0")
    starvation_s: Mapped[float] = mapped_column(server_default=text("0"))
    """Starvation time while it is denoised, else 0."""
    eta_at: Mapped[datetime | None]
    """When the scheduler thinks that its video is complete; null while it is neither denoised nor
    beyond."""
    embeddings_key: Mapped[str | None]
    checkpoint_key: Mapped[str | None]
    checkpoint_step: Mapped[int | None]
    older_checkpoint_key: Mapped[str | None]
    """The checkpoint before, kept in case the newest cannot be read."""
    older_checkpoint_step: Mapped[int | None]
    latents_key: Mapped[str | None]
    artifact_key: Mapped[str | None]
    manifest_key: Mapped[str | None]
    failures: Mapped[int] = mapped_column(server_default="0")
    """Attempts that ended with a cause of their own."""
    worker_losses: Mapped[int] = mapped_column(server_default="0")
    """Attempts that ended because their worker was lost."""
    store_failures: Mapped[int] = mapped_column(server_default="0")
    """Attempts that ended because the artifact store failed while it did not for others."""
    timeouts: Mapped[int] = mapped_column(server_default="0")
    """Attempts that were taken from their worker because it did not go on."""
    failure_code: Mapped[str | None]
    failure_message: Mapped[str | None]
    cancel_requested_at: Mapped[datetime | None]
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether its batch is: here too, for the indexes that find what may be sent."""
    finished_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    """When its files were made under the user's names, if the batch says where; null: due."""


class JobEvent(Base):
    """One state change of one job, written in the same transaction."""

    __tablename__ = "job_events"
    __table_args__ = (Index("job_events_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    trigger: Mapped[str]
    from_state: Mapped[str]
    to_state: Mapped[str]
    attempt: Mapped[int]
    incarnation: Mapped[int | None] = mapped_column(BigInteger)
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))


class Attempt(Base):
    """One try at one phase of one job, from its dispatch to its end."""

    __tablename__ = "attempts"
    __table_args__ = (
        CheckConstraint(one_of("phase", Phase), name="attempts_phase"),
        CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="attempts_outcome"),
        Index("attempts_live", "job_id", unique=True, postgresql_where=text("ended_at IS NULL")),
        Index("attempts_finished", "incarnation", postgresql_where=text("outcome = 'finish'")),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    phase: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    queue: Mapped[str]
    dispatched_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    incarnation: Mapped[int | None] = mapped_column(ForeignKey("workers.incarnation"))
    claimed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    """The trigger that ended it, or ``superseded`` for a message that nobody claimed."""


class Segment(Base):
    """Consecutive steps of one job on one SP group: the unit of allocation history."""

    __tablename__ = "segments"
    __table_args__ = (
        CheckConstraint("dop = cardinality(workers)", name="segments_dop"),
        CheckConstraint("to_step IS NULL OR to_step >= from_step", name="segments_steps"),
        CheckConstraint("(ended_at IS NULL) = (to_step IS NULL)", name="segments_end"),
        Index("segments_open", "job_id", unique=True, postgresql_where=text("ended_at IS NULL")),
        Index("segments_job", "job_id", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    plan_epoch: Mapped[int] = mapped_column(BigInteger)
    """The plan that made its group; 0: the leader alone, as it claimed the job."""
    dop: Mapped[int]
    workers: Mapped[list[str]]
    """Names, the leader's first."""
    from_step: Mapped[int]
    to_step: Mapped[int | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None]
    reason: Mapped[str]
    """Why it began: ``start``, ``resume``, ``older_checkpoint`` or ``checkpoint_lost`` for the
    first of an attempt; ``grow``, ``shrink``, ``change`` or ``group_broken`` for the others."""


class Plan(Base):
    """The target group of one running, or just sent, job; ``epoch`` is the plan epoch.

    Pending from the scheduler's decision until its leader has formed the group, or somebody has
    given it up. A formed plan takes effect at the next step boundary: the segment that begins there
    names it. One without workers asks for the job back.
    """

    __tablename__ = "plans"
    __table_args__ = (
        CheckConstraint(one_of("outcome", PlanOutcome), name="plans_outcome"),
        CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="plans_end"),
        CheckConstraint("cardinality(workers) = cardinality(incarnations)", name="plans_members"),
        Index("plans_pending", "job_id", unique=True, postgresql_where=text("outcome IS NULL")),
        Index("plans_job", "job_id", "epoch"),
    )

    epoch: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    """Of the DiT phase."""
    workers: Mapped[list[str]]
    """Names, the leader's first."""
    incarnations: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    """Their lives that are meant, in the same order."""
    made_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None]
    """When it was no longer pending."""
    outcome: Mapped[str | None]
    """A ``PlanOutcome``; null while it is pending."""

"""The tables beside jobs and workers: who leads, what it has decided, what is wrong with what."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from ddit_batch.db.models import Base, one_of
from ddit_batch.job import Phase


class Leadership(Base):
    """Which scheduler leads: one row. The term rises with every take-over."""

    __tablename__ = "leadership"
    __table_args__ = (CheckConstraint("id = 1", name="leadership_one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    term: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    look_ahead: Mapped[int | None]
    """The limits by which it decides, for the views to explain a wait by; null: never said."""
    decode_backlog: Mapped[int | None]
    protocol: Mapped[int | None]
    """What it speaks (``protocol.py``); null: never said."""
    version: Mapped[str | None]
    """Its release."""


class Decision(Base):
    """One decision of the scheduler, of the last ones: see ``decision_record.py``."""

    __tablename__ = "decisions"
    __table_args__ = (Index("decisions_at", "at"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime]
    """On the clock of its snapshot, which is the database's."""
    term: Mapped[int] = mapped_column(BigInteger)
    policy: Mapped[str]
    jobs: Mapped[int]
    """Jobs, workers and commands in it: for people, who cannot read the record itself."""
    workers: Mapped[int]
    commands: Mapped[int]
    size_bytes: Mapped[int]
    """Of ``record``: the log is bounded in bytes, and the sum should not read them."""
    record: Mapped[bytes]
    """Compressed JSON."""


class StoreHealth(Base):
    """Whether the artifact store takes what is written to it: one row."""

    __tablename__ = "store_health"
    __table_args__ = (CheckConstraint("id = 1", name="store_health_one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    failing_since: Mapped[datetime | None]
    """When a worker has first reported that it failed; null: it does not."""
    probe_after: Mapped[datetime | None]
    """When a job may be sent to find out whether it still fails."""
    failures: Mapped[int] = mapped_column(server_default="0")
    """Reports since then."""
    phase: Mapped[str | None]
    """Of the last report."""
    message: Mapped[str | None]


class ModelProblem(Base):
    """A worker that could not load a model, the last time that it started."""

    __tablename__ = "model_problems"
    __table_args__ = (CheckConstraint(one_of("phase", Phase), name="model_problems_phase"),)

    worker: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    phase: Mapped[str]
    message: Mapped[str]
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

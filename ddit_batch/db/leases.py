"""The life of a worker in the database: incarnation, lease, end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine, func, insert, select, text, update

from ddit_batch.db.engine import take_turns
from ddit_batch.db.models import Worker
from ddit_batch.db.moves import wake_scheduler
from ddit_batch.job import Incarnation, Phase, WorkerName
from ddit_batch.protocol import PROTOCOL

LIVE_WORKER_STATES = ("online", "draining")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIdentity:
    """What a worker says of itself when it registers."""

    name: WorkerName
    phase: Phase
    host: str
    node: str
    """Groups stay inside a node."""
    device: str
    pid: int
    models: tuple[str, ...]
    version: str
    protocol: int = PROTOCOL
    """What it understands: see ``protocol.py``."""


class LeaseStore:
    """Registers workers and keeps their leases, on the database's clock."""

    def __init__(self, engine: Engine, *, lease_s: float) -> None:
        self._engine = engine
        self._lease = timedelta(seconds=lease_s)

    def register(self, identity: WorkerIdentity) -> Incarnation:
        """Begin a new incarnation. A live one of the same name is thereby lost."""
        with self._engine.begin() as connection:
            take_turns(connection, identity.name)
            connection.execute(
                update(Worker)
                .where(Worker.name == identity.name, Worker.state.in_(LIVE_WORKER_STATES))
                .values(state="lost", ended_at=func.clock_timestamp())
            )
            incarnation = connection.execute(
                insert(Worker)
                .values(
                    name=identity.name,
                    phase=identity.phase,
                    host=identity.host,
                    node=identity.node,
                    device=identity.device,
                    pid=identity.pid,
                    models=list(identity.models),
                    version=identity.version,
                    protocol=identity.protocol,
                    state="online",
                    lease_expires_at=func.clock_timestamp() + self._lease,
                )
                .returning(Worker.incarnation)
            ).scalar_one()
            wake_scheduler(connection, f"{identity.name} registered")
        return Incarnation(incarnation)

    def renew(self, incarnation: Incarnation) -> bool:
        """Extend the lease. False: this incarnation has been declared lost; begin a new one."""
        with self._engine.begin() as connection:
            # A lease that a crash of Postgres takes back is renewed half a second later.
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            renewed = connection.execute(
                update(Worker)
                .where(Worker.incarnation == incarnation, Worker.state.in_(LIVE_WORKER_STATES))
                .values(lease_expires_at=func.clock_timestamp() + self._lease)
            )
        return renewed.rowcount == 1

    def is_drain_requested(self, incarnation: Incarnation) -> bool:
        """Whether a user has asked this incarnation to leave."""
        with self._engine.connect() as connection:
            asked_at = connection.execute(
                select(Worker.drain_requested_at).where(Worker.incarnation == incarnation)
            ).scalar_one_or_none()
        return asked_at is not None

    def drain(self, incarnation: Incarnation) -> None:
        """Say that this worker takes no new work; it finishes or gives back what it holds."""
        self._set_state(incarnation, "draining")

    def stopped(self, incarnation: Incarnation) -> None:
        """Say that this worker ended in order, holding nothing."""
        self._set_state(incarnation, "stopped")

    def _set_state(self, incarnation: Incarnation, state: str) -> None:
        ended_at = func.clock_timestamp() if state == "stopped" else None
        with self._engine.begin() as connection:
            connection.execute(
                update(Worker)
                .where(Worker.incarnation == incarnation, Worker.state.in_(LIVE_WORKER_STATES))
                .values(state=state, ended_at=ended_at)
            )
            wake_scheduler(connection, f"worker {incarnation} {state}")

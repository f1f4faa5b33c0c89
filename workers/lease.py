"""Keeps this process's lease alive, and knows when it is not.

A worker is alive while it renews its lease in Postgres. Its own monotonic clock tells it when the
lease must have run out even if nobody could tell it so; from then on it must not go on with a job
until a renewal has succeeded, because the job may have been given to somebody else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from ddit_batch.db.leases import LeaseStore, WorkerIdentity
from ddit_batch.job import Incarnation

logger = logging.getLogger(__name__)

_POLL_S = 0.05


class Lease:
    """The lease of this process, renewed by a thread of its own."""

    def __init__(
        self, store: LeaseStore, identity: WorkerIdentity, *, lease_s: float, heartbeat_s: float
    ) -> None:
        self._store = store
        self._identity = identity
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._stopping = threading.Event()
        self._draining = threading.Event()
        self._renounced = threading.Event()
        self._on_drain: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._renewed = time.monotonic()
        self._incarnation = store.register(identity)

    @property
    def incarnation(self) -> Incarnation:
        """The incarnation that this process is now; changes when one has been declared lost."""
        return self._incarnation

    def start(self) -> None:
        """Begin to renew."""
        logger.info("registered", extra={"action": "registered", "incarnation": self._incarnation})
        self._thread.start()

    def drain(self) -> None:
        """Have the scheduler told, soon, that this worker takes no new work.

        Only sets a flag: fit for a signal handler.
        """
        self._draining.set()

    def when_asked_to_drain(self, act: Callable[[], None]) -> None:
        """Have *act* called, once and in the lease's thread, when a user asks this one to leave."""
        self._on_drain = act

    def renounce(self) -> None:
        """Begin a new incarnation soon: what this one holds could not be put in order."""
        self._renounced.set()

    def stop(self) -> None:
        """Stop to renew, and say that this incarnation has ended in order."""
        self._stopping.set()
        self._thread.join(timeout=2 * self._heartbeat_s + 1)
        try:
            self._store.stopped(self._incarnation)
        except SQLAlchemyError:
            logger.warning("database away: the lease will run out by itself")

    def holds(self, incarnation: Incarnation) -> bool:
        """Whether *incarnation* may go on: waits while that is not known.

        False once it has been declared lost; its jobs are somebody else's. While the database is
        away and the lease has run out by our own clock, this waits for it to come back.
        """
        while self._incarnation == incarnation:
            if time.monotonic() - self._renewed < self._lease_s or self._stopping.is_set():
                return True
            time.sleep(_POLL_S)
        return False

    def _keep(self) -> None:
        while not self._stopping.wait(self._heartbeat_s):
            now = time.monotonic()
            try:
                self._heed_drain()
                if self._renounced.is_set() or not self._store.renew(self._incarnation):
                    self._begin_anew()
                self._renewed = now
                if self._draining.is_set():
                    self._store.drain(self._incarnation)
            except SQLAlchemyError:
                logger.warning("lease not renewed: database away", extra={"action": "lease_late"})

    def _heed_drain(self) -> None:
        """Before a new incarnation begins, which nobody has asked to leave."""
        act = self._on_drain
        if act is not None and self._store.is_drain_requested(self._incarnation):
            self._on_drain = None
            act()

    def _begin_anew(self) -> None:
        lost = self._incarnation
        self._incarnation = self._store.register(self._identity)
        self._renounced.clear()
        logger.warning(
            "began a new incarnation",
            extra={"action": "reborn", "lost": lost, "incarnation": self._incarnation},
        )

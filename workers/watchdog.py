"""Notices that the attempt at work was taken away, and ends a process that cannot let go of it.

A worker that hangs keeps its lease: a thread of its own renews it. So the scheduler takes the job
away when it does not go on, and gives the worker nothing until it has answered. If what it hangs in
never returns, this thread ends the process, and whoever started it starts it again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often the database is asked whether the attempt at work still counts."""
EXIT_CODE = 70
"""What the process ends with: the software's own fault, in the words of sysexits.h."""


class Watchdog:
    """Watches over the attempt of one worker process, from a thread of its own."""

    def __init__(
        self,
        claims: ClaimStore,
        *,
        grace_s: float,
        look_s: float = LOOK_S,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._claims = claims
        self._grace_s = grace_s
        self._look_s = look_s
        self._end_process = end_process
        self._lock = threading.Lock()
        self._watched: Claim | None = None
        self._taken_s: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(timeout=2 * self._look_s)

    @contextmanager
    def watching(self, claim: Claim) -> Iterator[None]:
        """The attempt of *claim* is at work for the length of the block."""
        with self._lock:
            self._watched, self._taken_s = claim, None
        try:
            yield
        finally:
            with self._lock:
                self._watched = None

    def has_lost(self, claim: Claim) -> bool:
        """Whether the scheduler is known to have taken the attempt away."""
        with self._lock:
            return self._watched == claim and self._taken_s is not None

    def _keep(self) -> None:
        while not self._stopping.wait(self._look_s):
            with self._lock:
                claim = self._watched
            if claim is not None:
                self._look(claim)

    def _look(self, claim: Claim) -> None:
        try:
            if not self._claims.was_taken(claim):
                return
        except SQLAlchemyError as exc:
            logger.debug("database away: %s", exc)
            return
        ids = {"job_id": claim.job_id, "phase": claim.phase, "attempt": claim.attempt}
        with self._lock:
            if self._watched != claim:
                return
            if self._taken_s is None:
                self._taken_s = time.monotonic()
                logger.warning("the attempt was taken away", extra={"action": "taken_away", **ids})
            hangs_s = time.monotonic() - self._taken_s
        if hangs_s > self._grace_s:
            logger.critical(
                "the work has not returned %.0f s after it was taken away: this process ends",
                hangs_s,
                extra={"action": "hangs", **ids},
            )
            self._end_process(EXIT_CODE)

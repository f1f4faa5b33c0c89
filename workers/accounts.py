"""Writes which workers have had a job from which step on: its segments, off the step path.

A step must not wait for a commit. So the step loop hands over what has changed, and a thread writes
it; whoever ends the attempt waits for that thread first, since ending closes the last segment.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.engine import persist
from ddit_batch.errors import StateConflict
from ddit_batch.job import WorkerName
from workers.attempt import OUTAGE_S

logger = logging.getLogger(__name__)


class Accounts:
    """The segments of one attempt."""

    def __init__(self, claims: ClaimStore, claim: Claim) -> None:
        self._claims = claims
        self._claim = claim
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="accounts")
        self._written: list[Future[None]] = []
        self._lost = threading.Event()

    @property
    def claim_lost(self) -> bool:
        """Whether a write has found that the job is somebody else's now."""
        return self._lost.is_set()

    def changed(self, *, epoch: int, workers: Sequence[WorkerName], step: int, reason: str) -> None:
        """From *step* on, which begins now, *workers* denoise the job, the leader first."""
        since_s = time.monotonic()

        def write() -> None:
            known = persist(
                lambda: self._claims.change_group(
                    self._claim,
                    epoch=epoch,
                    workers=tuple(workers),
                    step=step,
                    reason=reason,
                    ago_s=time.monotonic() - since_s,
                ),
                give_up_s=OUTAGE_S,
                what=f"segment of {self._claim.job_id}",
            )
            if not known:
                self._lost.set()

        self._written.append(self._thread.submit(write))

    def settle(self) -> None:
        """Wait until everything is written.

        Raises:
            StateConflict: The job is somebody else's now.
            SQLAlchemyError: The database stayed away.
        """
        for written in self._written:
            written.result()
        self._written.clear()
        if self.claim_lost:
            raise StateConflict(f"job {self._claim.job_id} was taken from this worker")

    def close(self) -> None:
        """End the thread, once it has written what it was given."""
        self._thread.shutdown(wait=False)

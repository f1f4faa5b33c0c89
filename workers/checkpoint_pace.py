"""When a checkpoint is offered, and when the step loop waits for one: what a lost worker may cost.

A checkpoint is written while the loop goes on, so that whoever offers one every so many steps loses
nearly twice as many in the worst case: those since the last offer, and those during the write
before. To lose *at_most* N, one is offered twice in N steps, and a step that would be the N+1st
without a checkpoint waits for the write under way. On a store that takes less than half of N steps
for a write, that never happens.
"""

from __future__ import annotations

import logging
import threading
import time

from ddit_batch.job import JobId
from ddit_batch.phases import checkpoint
from ddit_batch.phases.checkpoint import CheckpointWriter
from ddit_batch.phases.models.base import DenoisingState

logger = logging.getLogger(__name__)

_LOOK_S = 0.1
"""How soon a loop that waits heeds a request to stop."""


def steps_between(at_most: int) -> int:
    """How many steps after one checkpoint the next is offered."""
    return max(1, at_most // 2)


def must_be_written(step: int, at_most: int) -> int:
    """The step whose checkpoint must exist before the step after *step* is taken."""
    return step + 1 - at_most


class CheckpointPace:
    """The checkpoints of one attempt, as its step loop sees them.

    It waits no longer than *patience_s* for one write, and not at all for a store that fails or for
    a loop that is to stop: a job can do without its checkpoint.
    """

    def __init__(
        self,
        writer: CheckpointWriter,
        job_id: JobId,
        *,
        at_most: int,
        patience_s: float,
        stop: threading.Event,
    ) -> None:
        self._writer = writer
        self._job_id = job_id
        self._at_most = at_most
        self._patience_s = patience_s
        self._stop = stop
        self._begun_at: int | None = None
        """The step that this attempt begins with: it exists, as a checkpoint or as the start."""
        self._offered_at = -1
        self._given_up: int | None = None
        """The newest checkpoint when a wait took too long: the write after it is not waited for."""

    def at_boundary(self, state: DenoisingState) -> None:
        """Offer a checkpoint if it is time, and wait for one if too much would be at stake."""
        if self._begun_at is None:
            self._begun_at = state.step
            return
        if state.is_done:
            return
        if state.step % steps_between(self._at_most) == 0 and state.step > self._offered_at:
            self._writer.offer(checkpoint.take(state))
            self._offered_at = state.step
        needed = must_be_written(state.step, self._at_most)
        if needed > self._begun_at:
            self._wait(needed)

    def _wait(self, needed: int) -> None:
        if self._writer.written_step >= needed or self._writer.written_step == self._given_up:
            return
        begun_s = time.monotonic()
        while not self._writer.wait_for(needed, timeout_s=_LOOK_S):
            if self._stop.is_set():
                return
            if time.monotonic() - begun_s > self._patience_s:
                self._given_up = self._writer.written_step
                logger.warning(
                    "goes on without a checkpoint of step %d: it was waited for %.1f s",
                    needed,
                    time.monotonic() - begun_s,
                    extra={"action": "checkpoint_late", "job_id": self._job_id},
                )
                return

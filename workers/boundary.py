"""What a leader does at a step boundary."""

from __future__ import annotations

import logging
import time

from redis import RedisError

from ddit_batch.db.claim import Claim
from ddit_batch.errors import StateConflict
from ddit_batch.messages import Letter
from ddit_batch.phases.dit import Verdict
from ddit_batch.phases.models.base import Denoiser, DenoisingState
from ddit_batch.snapshot import Instruction, Progress
from workers.checkpoint_pace import CheckpointPace
from workers.checkpoints import JobCheckpoints
from workers.crew import Crew
from workers.runtime import Runtime

logger = logging.getLogger(__name__)

_BROKER_PAUSE_S = 1.0
"""After the broker was found away, steps go on without it for this long."""


class StepBoundary:
    """Called by the step loop with the state and the seconds of the last step."""

    def __init__(
        self,
        runtime: Runtime[Denoiser],
        claim: Claim,
        checkpoints: JobCheckpoints,
        pace: CheckpointPace,
        crew: Crew,
    ) -> None:
        self._runtime = runtime
        self._claim = claim
        self._checkpoints = checkpoints
        self._pace = pace
        self._crew = crew
        self._broker_from = 0.0
        self.state: DenoisingState | None = None
        """The newest that it was called with: what a broken group goes on from."""

    def __call__(self, state: DenoisingState, step_s: float | None) -> Verdict:
        """Report, checkpoint, say how to go on, and see to it that the group does the same.

        Raises:
            StateConflict: The job is somebody else's now.
            GroupBroken: A member is gone or hangs.
        """
        self.state = state
        lost = (
            self._checkpoints.claim_lost
            or self._crew.claim_lost
            or self._runtime.watchdog.has_lost(self._claim)
        )
        if lost or not self._runtime.lease.holds(self._claim.incarnation):
            raise StateConflict(f"job {self._claim.job_id} was taken from this worker")
        verdict = self._verdict(self._talk(state, step_s))
        if verdict is Verdict.CONTINUE:
            self._pace.at_boundary(state)
        if verdict is not Verdict.CONTINUE or state.is_done:
            self._crew.end()
        else:
            self._crew.step_from(state)
        return verdict

    def _verdict(self, letter: Letter | None) -> Verdict:
        if letter is not None and letter.instruction is Instruction.CANCEL:
            return Verdict.CANCEL
        told = letter is not None and letter.instruction is Instruction.RELEASE
        return (
            Verdict.RELEASE if told or self._runtime.stop_requested.is_set() else Verdict.CONTINUE
        )

    def _talk(self, state: DenoisingState, step_s: float | None) -> Letter | None:
        """Report progress and read the mailbox. A broker that is away means no change."""
        if time.monotonic() < self._broker_from:
            return None
        job_id, attempt = self._claim.job_id, self._claim.attempt
        try:
            if step_s is not None:
                progress = Progress(attempt=attempt, step=state.step, step_s=step_s)
                self._runtime.control.report(job_id, progress)
            letter = self._runtime.control.read_letter(job_id)
        except RedisError as exc:
            logger.warning("broker away: %s", exc, extra={"action": "broker_away"})
            self._broker_from = time.monotonic() + _BROKER_PAUSE_S
            return None
        return letter if letter is not None and letter.attempt == attempt else None

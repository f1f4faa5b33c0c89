"""What the holder of a job writes: its claim, its checkpoints, and one of several ends.

Every method is one transaction that may be repeated after a lost answer: a repeated claim or
finish by the same incarnation finds its own success. ``StateConflict`` means that the caller has
lost the job and must stop without touching it again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, func, select, text, update

from ddit_batch.causes import Cause
from ddit_batch.db.checkpoints import CHECKPOINT_COLUMNS, go_back, newest
from ddit_batch.db.claim import Claim, read_claim
from ddit_batch.db.models import Attempt, Batch, Job, Worker
from ddit_batch.db.moves import Belief, as_believed, move, open_attempt, wake_scheduler
from ddit_batch.db.segments import change_segment, open_segment
from ddit_batch.db.store_health import is_failing, report_failing, report_working
from ddit_batch.errors import StateConflict
from ddit_batch.job import (
    WAITING_STATE,
    WORKING_STATE,
    Incarnation,
    JobId,
    JobState,
    Phase,
    WorkerName,
)
from ddit_batch.lifecycle import Trigger

_TAKEN = frozenset({Trigger.WORKER_LOST, Trigger.TIMED_OUT, Trigger.FAIL})
"""How an attempt ends that the scheduler ends; the last is the holder's own as well."""


class ClaimStore:
    """Jobs as their holders see them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def claim(self, job_id: JobId, phase: Phase, attempt: int, incarnation: Incarnation) -> Claim:
        """Take the job's *phase* as *attempt*.

        Raises:
            StateConflict: The message is late or a duplicate, or this worker has been declared
                lost; the job is none of the caller's business.
        """
        with self._engine.begin() as connection:
            if not _already_holds(connection, job_id, phase, attempt, incarnation):
                _check_online(connection, incarnation)
                move(
                    connection,
                    Belief(job_id=job_id, state=WAITING_STATE[phase], attempt=attempt),
                    Trigger.CLAIM,
                    by=incarnation,
                    changes={"holder": incarnation, "dop": 1 if phase is Phase.DIT else 0},
                )
                connection.execute(
                    update(Attempt)
                    .where(Attempt.job_id == job_id, Attempt.ended_at.is_(None))
                    .values(incarnation=incarnation, claimed_at=func.clock_timestamp())
                )
                if phase is Phase.DIT:
                    open_segment(connection, job_id, attempt, incarnation)
            return read_claim(connection, job_id, phase, attempt, incarnation)

    def finish_encode(self, claim: Claim, *, embeddings_key: str, found: bool = False) -> None:
        """The embeddings are in the store under *embeddings_key*; *found* there, or written."""
        with self._engine.begin() as connection:
            _finish(connection, claim, {"embeddings_key": embeddings_key})
            if not found:
                report_working(connection, Phase.ENCODE)

    def finish_dit(self, claim: Claim, *, latents_key: str, vae_queue: str) -> None:
        """The latents are in the store, and Celery is about to send the VAE message.

        That message's attempt is recorded here, so that the scheduler can send it again if it
        never arrives. Its number is the one that the chain was published with: nothing else opens
        VAE attempts while the job is ``denoising``.
        """
        steps = claim.request.num_inference_steps
        with self._engine.begin() as connection:
            if _finish(connection, claim, {"latents_key": latents_key, "step": steps, "dop": 0}):
                number = open_attempt(connection, claim.job_id, Phase.VAE, vae_queue)
                connection.execute(
                    update(Job)
                    .where(Job.id == claim.job_id)
                    .values(attempt=number, queue=vae_queue, dispatched_at=func.clock_timestamp())
                )
            report_working(connection, Phase.DIT)

    def finish_vae(self, claim: Claim, *, artifact_key: str, manifest_key: str) -> None:
        """The artifact is complete: the job has succeeded. Its delivery is due, if there is one."""
        changes = {"artifact_key": artifact_key, "manifest_key": manifest_key}
        nothing_due = func.clock_timestamp() if claim.out_url is None else None
        with self._engine.begin() as connection:
            _finish(connection, claim, {**changes, "delivered_at": nothing_due})
            report_working(connection, Phase.VAE)

    def give_back(
        self, claim: Claim, *, reason: str, checkpoint: tuple[str, int] | None = None
    ) -> None:
        """Return the job to waiting, with its newest checkpoint ``(key, step)`` if there is one."""
        changes: dict[str, Any] = {"dop": 0}
        if checkpoint is not None:
            key, step = checkpoint
            changes |= {**newest(key, step), "step": step}
        with self._engine.begin() as connection:
            move(
                connection,
                claim.belief,
                Trigger.GIVE_BACK,
                by=claim.incarnation,
                detail={"reason": reason},
                changes=changes,
            )

    def save_checkpoint(self, claim: Claim, *, key: str, step: int) -> bool:
        """Name *key* as the job's newest checkpoint; the one before stays named as the older one.

        False: the claim is lost.
        """
        with self._engine.begin() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            saved = connection.execute(
                update(Job).where(*as_believed(claim.belief)).values(newest(key, step))
            )
            if saved.rowcount == 1:
                report_working(connection, Phase.DIT)
        return saved.rowcount == 1

    def forget_checkpoint(self, claim: Claim, *, key: str) -> str | None:
        """The job's newest checkpoint, *key*, cannot be read: this attempt goes back to the older.

        Returns the key of that one; None: there is none, and the attempt starts over from step 0.

        Raises:
            StateConflict: The claim is lost.
        """
        with self._engine.begin() as connection:
            return go_back(connection, claim.belief, key)

    def was_taken(self, claim: Claim) -> bool:
        """Whether the scheduler has taken the job from its holder, who need not know it yet."""
        with self._engine.connect() as connection:
            outcome = connection.execute(
                select(Attempt.outcome).where(
                    Attempt.job_id == claim.job_id,
                    Attempt.phase == claim.phase,
                    Attempt.number == claim.attempt,
                )
            ).scalar_one_or_none()
        return outcome in _TAKEN

    def answered(self, incarnation: Incarnation) -> None:
        """A worker that was thought to hang is through with the job that was taken from it."""
        with self._engine.begin() as connection:
            answered = connection.execute(
                update(Worker)
                .where(Worker.incarnation == incarnation, Worker.hung_since.is_not(None))
                .values(hung_since=None)
            )
            if answered.rowcount:
                wake_scheduler(connection, f"worker {incarnation} has answered")

    def change_group(
        self,
        claim: Claim,
        *,
        epoch: int,
        workers: tuple[WorkerName, ...],
        step: int,
        reason: str,
        ago_s: float = 0.0,
    ) -> bool:
        """Account that *workers* have denoised the job since *step*, by the plan *epoch*.

        The open segment ends there and another begins, *ago_s* seconds before now. If it began at
        this very step it is written anew in place and keeps its reason, unless its group broke:
        what a broken group cost is no time of those who go on. A plan that was made for the group
        that broke, formed or not, is ended as not formed. False: the claim is lost.
        """
        with self._engine.begin() as connection:
            held = connection.execute(
                update(Job)
                .where(*as_believed(claim.belief))
                .values(dop=len(workers), step=func.greatest(Job.step, step))
            )
            if held.rowcount != 1:
                return False
            change_segment(
                connection,
                claim.job_id,
                claim.attempt,
                epoch=epoch,
                workers=workers,
                step=step,
                reason=reason,
                ago_s=ago_s,
            )
            wake_scheduler(connection, f"{claim.job_id} {reason}")
        return True

    def is_cancel_requested(self, claim: Claim) -> bool:
        """Whether a user wants the claimed job, or its whole batch, to end."""
        asked = Job.cancel_requested_at.is_not(None) | Batch.cancel_requested_at.is_not(None)
        query = select(asked).join(Batch, Batch.id == Job.batch_id)
        with self._engine.connect() as connection:
            found = connection.execute(query.where(*as_believed(claim.belief)))
            return bool(found.scalar_one_or_none())

    def cancelled(self, claim: Claim) -> None:
        """Confirm that the work on a cancelled job has stopped."""
        with self._engine.begin() as connection:
            move(
                connection,
                claim.belief,
                Trigger.CANCEL,
                by=claim.incarnation,
                changes={"dop": 0},
            )

    def fail(
        self, claim: Claim, *, code: str, message: str, retryable: bool, max_failures: int
    ) -> JobState:
        """Record that the attempt failed with a cause of its own.

        Returns the job's new state: waiting for another attempt, or ``failed`` when the cause
        cannot be mended by one or *max_failures* attempts have failed.
        """
        again = retryable and claim.failures + 1 < max_failures
        with self._engine.begin() as connection:
            return move(
                connection,
                claim.belief,
                Trigger.ATTEMPT_FAILED if again else Trigger.FAIL,
                by=claim.incarnation,
                detail={"code": code, "message": message},
                changes={
                    "failures": Job.failures + 1,
                    "failure_code": code,
                    "failure_message": message,
                    "dop": 0,
                },
            )

    def storage_failed(self, claim: Claim, *, message: str, max_store_failures: int) -> JobState:
        """The store has failed the attempt, and nothing new is sent until it works again.

        That is not the job's fault, and counts only if it works for others: *max_store_failures* of
        such attempts end the job. Returns the job's new state.
        """
        with self._engine.begin() as connection:
            counts = not is_failing(connection)
            again = not counts or claim.store_failures + 1 < max_store_failures
            state = move(
                connection,
                claim.belief,
                Trigger.ATTEMPT_FAILED if again else Trigger.FAIL,
                by=claim.incarnation,
                detail={"code": Cause.STORAGE_FAILED, "message": message},
                changes={
                    "store_failures": Job.store_failures + int(counts),
                    "failure_code": Cause.STORAGE_FAILED,
                    "failure_message": message,
                    "dop": 0,
                },
            )
            report_failing(connection, claim.phase, message)
        return state

    def checkpoint_failed(self, claim: Claim, *, message: str) -> None:
        """The store did not take a checkpoint: the job goes on, but no new one should begin."""
        with self._engine.begin() as connection:
            report_failing(connection, claim.phase, message)
            wake_scheduler(connection, f"{claim.job_id} has no checkpoint")

    def handoff_lost(self, claim: Claim, *, message: str, max_failures: int) -> JobState:
        """The phase's input is missing or unreadable: the phase before must run again.

        Counts as a failed attempt, so that a store that keeps losing what it is given ends the job
        with that cause. Returns the job's new state.
        """
        again = claim.failures + 1 < max_failures
        with self._engine.begin() as connection:
            return move(
                connection,
                claim.belief,
                Trigger.HANDOFF_LOST if again else Trigger.FAIL,
                by=claim.incarnation,
                detail={"code": Cause.HANDOFF_LOST, "message": message},
                changes={
                    "failures": Job.failures + 1,
                    "failure_code": Cause.HANDOFF_LOST,
                    "failure_message": message,
                    "dop": 0,
                    "step": 0,
                    **dict.fromkeys(CHECKPOINT_COLUMNS),
                },
            )


def _finish(connection: Connection, claim: Claim, changes: dict[str, Any]) -> bool:
    """Finish the claimed phase. False: this very attempt had finished it before."""
    try:
        with connection.begin_nested():
            move(connection, claim.belief, Trigger.FINISH, by=claim.incarnation, changes=changes)
    except StateConflict:
        outcome = connection.execute(
            select(Attempt.outcome).where(
                Attempt.job_id == claim.job_id,
                Attempt.phase == claim.phase,
                Attempt.number == claim.attempt,
                Attempt.incarnation == claim.incarnation,
            )
        ).scalar_one_or_none()
        if outcome != Trigger.FINISH:
            raise
        return False
    return True


def _already_holds(
    connection: Connection, job_id: JobId, phase: Phase, attempt: int, incarnation: Incarnation
) -> bool:
    held = Belief(job_id=job_id, state=WORKING_STATE[phase], attempt=attempt, holder=incarnation)
    return connection.execute(select(Job.id).where(*as_believed(held))).first() is not None


def _check_online(connection: Connection, incarnation: Incarnation) -> None:
    """Hold the worker's row, so that it cannot be declared lost between this check and commit."""
    state = connection.execute(
        select(Worker.state).where(Worker.incarnation == incarnation).with_for_update(read=True)
    ).scalar_one_or_none()
    if state != "online":
        raise StateConflict(f"worker incarnation {incarnation} is {state}, so it claims nothing")

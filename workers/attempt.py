"""The frame around every task: claim the job, do the work, record how it ended.

A task that returns lets Celery publish the next link of its chain; every other end raises, so that
nothing follows: ``Ignore`` when it was not this attempt's to finish, the cause itself when it
failed. Flower shows either.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from celery import current_task
from celery.exceptions import Ignore
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import SQLAlchemyError

from ddit_batch.causes import Cause
from ddit_batch.db.claim import Claim
from ddit_batch.db.engine import persist
from ddit_batch.errors import (
    ArtifactError,
    ConfigError,
    DditError,
    GroupBroken,
    OutOfMemory,
    PhaseError,
    RetryablePhaseError,
    StateConflict,
    StorageFailed,
)
from ddit_batch.job import JobId, Phase
from ddit_batch.messages import Address
from ddit_batch.phases.device import fitting, free_memory
from workers.runtime import Runtime

logger = logging.getLogger(__name__)

_Runtime = TypeVar("_Runtime", bound=Runtime[Any])

_LONGEST_MESSAGE = 2000
"""Characters of a failure's message; the rest is in the worker's log."""

OUTAGE_S = 120.0
"""How long a worker waits for Postgres to come back before it lets an attempt go."""

Work = Callable[[_Runtime, Claim], None]


class StoppedOnPurpose(DditError):  # noqa: N818 -- an end, not an error
    """The attempt ended in order before its phase was done; the database knows."""


def perform(runtime: _Runtime, phase: Phase, whom: Address, work: Work[_Runtime]) -> None:
    """Run *work* on the job, if it is still this message's to do.

    Raises:
        Ignore: Late, duplicate, fenced or given back: nothing must follow.
        Exception: The attempt failed, and that is recorded.
    """
    with runtime.busy:
        claim = _claim(runtime, phase, whom.job_id, whom.attempt)
        _see_to_its_end(runtime, claim, work)


def _claim(runtime: Runtime[Any], phase: Phase, job_id: JobId, attempt: int) -> Claim:
    ids: dict[str, object] = {"job_id": job_id, "phase": phase, "attempt": attempt}
    try:
        claim = persist(
            lambda: runtime.claims.claim(job_id, phase, attempt, runtime.lease.incarnation),
            give_up_s=OUTAGE_S,
            what=f"claim {job_id}",
        )
    except StateConflict as exc:
        logger.info("not claimed: %s", exc, extra={"action": "not_claimed", **ids})
        tell_flower()
        raise Ignore from exc
    ids["incarnation"] = claim.incarnation
    logger.info("claimed", extra={"action": "claimed", **ids})
    return claim


def _see_to_its_end(runtime: _Runtime, claim: Claim, work: Work[_Runtime]) -> None:
    ids = {
        "job_id": claim.job_id,
        "phase": claim.phase,
        "attempt": claim.attempt,
        "incarnation": claim.incarnation,
    }
    try:
        with (
            runtime.watchdog.watching(claim),
            fitting(f"the {claim.phase} phase of a video of {claim.request.shape}"),
        ):
            work(runtime, claim)
    except StoppedOnPurpose as exc:
        logger.info("stopped: %s", exc, extra={"action": "stopped", **ids})
        tell_flower(exc)
        raise Ignore from exc
    except StateConflict as exc:
        logger.warning("fenced: %s", exc, extra={"action": "fenced", **ids})
        tell_flower(exc)
        _say_answered(runtime, claim)
        raise Ignore from exc
    except Exception as exc:
        logger.exception("attempt failed", extra={"action": "attempt_failed", **ids})
        _record_failure(runtime, claim, exc)
        if isinstance(exc, OutOfMemory):
            traceback.clear_frames(exc.__traceback__)  # of the attempt, which has ended
            free_memory()
        raise
    logger.info("finished", extra={"action": "finished", **ids})


def tell_flower(why: DditError | None = None) -> None:
    """Have this task shown as IGNORED: Celery sends no event for that, and it would seem to run.

    Without a reason if it may be a duplicate, whose first copy goes by the same id.
    """
    if current_task:
        try:
            current_task.send_event("task-ignored", **({"exception": str(why)} if why else {}))
        except (BrokerError, OSError) as exc:
            logger.debug("broker away, Flower not told: %s", exc)


def _record_failure(runtime: Runtime[Any], claim: Claim, exc: Exception) -> None:
    """Move the job on as the cause demands; if it is not ours any more, leave it."""

    def record() -> None:
        message = _message(exc)
        if isinstance(exc, ArtifactError) and claim.phase is not Phase.ENCODE:
            runtime.claims.handoff_lost(
                claim, message=message, max_failures=runtime.settings.max_failures
            )
        elif isinstance(exc, StorageFailed):
            runtime.claims.storage_failed(
                claim, message=message, max_store_failures=runtime.settings.max_store_failures
            )
        else:
            runtime.claims.fail(
                claim,
                code=_cause(exc),
                message=message,
                retryable=_is_retryable(exc),
                max_failures=runtime.settings.max_failures,
            )

    try:
        persist(record, give_up_s=OUTAGE_S, what=f"failure of {claim.job_id}")
    except StateConflict:
        logger.warning("fenced before the failure was recorded", extra={"job_id": claim.job_id})
        _say_answered(runtime, claim)
    except SQLAlchemyError:
        # Nobody knows that this attempt has ended: let the scheduler find its holder gone.
        logger.exception("failure not recorded", extra={"job_id": claim.job_id})
        runtime.lease.renounce()


def _say_answered(runtime: Runtime[Any], claim: Claim) -> None:
    """If the job was taken away because this worker did not go on: it can be given others again."""
    try:
        persist(
            lambda: runtime.claims.answered(claim.incarnation),
            give_up_s=OUTAGE_S,
            what="say that this worker has answered",
        )
    except SQLAlchemyError:
        logger.exception("not said that this worker has answered")
        runtime.lease.renounce()


def _is_retryable(exc: Exception) -> bool:
    """What we do not know may pass; what we named as final does not."""
    return isinstance(exc, RetryablePhaseError) or not isinstance(exc, (PhaseError, ConfigError))


def _message(exc: Exception) -> str:
    """What *exc* says, in one line of a bearable length: its user is no reader of tracebacks."""
    return " ".join(str(exc).split())[:_LONGEST_MESSAGE] or type(exc).__name__


def _cause(exc: Exception) -> Cause:
    """The cause of an attempt that *exc* has ended."""
    for kind, cause in _CAUSES:
        if isinstance(exc, kind):
            return cause
    return Cause.UNEXPECTED_ERROR


_CAUSES: tuple[tuple[type[DditError], Cause], ...] = (
    (OutOfMemory, Cause.OUT_OF_MEMORY),
    (ConfigError, Cause.MODEL_UNAVAILABLE),
    (StorageFailed, Cause.STORAGE_FAILED),
    (ArtifactError, Cause.HANDOFF_LOST),
    (GroupBroken, Cause.GROUP_BROKEN),
    (PhaseError, Cause.PHASE_FAILED),
)
"""The first that fits; what is in none of these classes we do not know."""

"""How an attempt ends whose job is not wanted any more: confirmed, and its files away."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from ddit_batch.db.claim import Claim
from ddit_batch.db.engine import persist
from ddit_batch.errors import DditError
from workers.attempt import OUTAGE_S, StoppedOnPurpose
from workers.runtime import Runtime

logger = logging.getLogger(__name__)


def stop_if_cancelled(runtime: Runtime[Any], claim: Claim) -> None:
    """Between the parts of a phase that has no steps: end here if the job is not wanted.

    Asks the database, not the mailbox: nothing else tells that it is still wanted, and a part takes
    long enough for that.

    Raises:
        StoppedOnPurpose: It has been cancelled.
        StateConflict: It is somebody else's by now.
    """
    asked = persist(
        lambda: runtime.claims.is_cancel_requested(claim),
        give_up_s=OUTAGE_S,
        what="look for a cancel",
    )
    if asked:
        confirm_cancel(runtime, claim, f"cancelled in {claim.phase}", claim.latents_key)


def confirm_cancel(
    runtime: Runtime[Any], claim: Claim, what: str, *unneeded: str | None
) -> NoReturn:
    """Say that the work has stopped, and delete what nothing will read any more.

    Raises:
        StoppedOnPurpose: Always.
        StateConflict: The job is somebody else's by now; nothing was deleted.
    """
    persist(lambda: runtime.claims.cancelled(claim), give_up_s=OUTAGE_S, what="confirm a cancel")
    for key in filter(None, unneeded):
        try:
            runtime.store.delete(key)
        except DditError as exc:
            logger.warning("a file of a cancelled job stays, until `ddit gc`: %s", exc)
    raise StoppedOnPurpose(what)

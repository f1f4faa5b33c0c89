"""Makes the files under the user's names, and in the end also those that another worker has not.

A job has succeeded once its commit names the artifact; the user's files come after that. A worker
that dies in between, or whose user's folder is full, leaves a success without files: every VAE
worker looks for such ones now and then, and makes them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from ddit_batch.artifact import ArtifactStore
from ddit_batch.db.deliveries import Delivery, DeliveryStore
from ddit_batch.delivery import deliver
from ddit_batch.errors import DditError
from ddit_batch.job import JobId

logger = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often each VAE worker looks for what is missing."""
GRACE_S = 2.0
"""So long a success is its own worker's to deliver: two at once do no harm, but double the work."""
AGAIN_S = 30.0
"""How long a delivery that failed is left alone: what refused it seldom heals within moments."""
_AT_ONCE = 16


class Deliverer:
    """Delivers for one VAE worker process."""

    def __init__(
        self,
        deliveries: DeliveryStore,
        store: ArtifactStore,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliveries = deliveries
        self._store = store
        self._clock = clock
        self._refused: dict[JobId, float] = {}
        """By job, until when it is left alone."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="deliveries", daemon=True)

    def start(self) -> None:
        """Begin to look for what is missing."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, unless it is at work for a storage that is slow."""
        self._stopping.set()
        self._thread.join(timeout=LOOK_S)

    def make(self, delivery: Delivery, *, anew: bool = False) -> bool:
        """Make the files of one job, and tidy up behind it. The job has succeeded in any case.

        *anew*: because another worker may have died over it.

        False: something refused them, and the log says what.
        """
        try:
            deliver(
                self._store,
                delivery.out_url,
                custom_id=delivery.custom_id,
                artifact_key=delivery.artifact_key,
                manifest_key=delivery.manifest_key,
                anew=anew,
            )
            self._deliveries.made(delivery)
        except (DditError, SQLAlchemyError) as exc:
            logger.warning(
                "succeeded, but its files were not delivered: %s",
                exc,
                extra={"action": "delivery_failed", "job_id": delivery.job_id},
            )
            return False
        self.tidy(delivery.job_id, delivery.latents_key)
        return True

    def tidy(self, job_id: JobId, latents_key: str | None) -> None:
        """Delete what a job that has succeeded, and is delivered if it is to be, needs no more."""
        if latents_key is None:
            return
        try:
            self._store.delete(latents_key)
        except DditError as exc:
            logger.warning("the latents of %s are left behind: %s", job_id, exc)

    def catch_up(self) -> None:
        """Make what is due and was not refused a moment ago."""
        now_s = self._clock()
        self._refused = {job: until_s for job, until_s in self._refused.items() if until_s > now_s}
        due = self._deliveries.due(older_s=GRACE_S, limit=_AT_ONCE + len(self._refused))
        for delivery in due:
            if self._stopping.is_set():
                return
            if delivery.job_id not in self._refused and not self.make(delivery, anew=True):
                self._refused[delivery.job_id] = self._clock() + AGAIN_S

    def _keep(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.catch_up()
            except SQLAlchemyError as exc:
                logger.debug("database away: %s", exc)

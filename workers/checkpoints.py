"""Where checkpoints go: to the store, then named in Postgres, then all but the newest two away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from ddit_batch import artifact_keys
from ddit_batch.db.claim import Claim
from ddit_batch.db.engine import persist
from ddit_batch.errors import ArtifactError, DditError, StorageFailed
from ddit_batch.phases.models.base import Denoiser
from workers.attempt import OUTAGE_S
from workers.runtime import Runtime

logger = logging.getLogger(__name__)

_KEPT = 2
"""Of a job's checkpoints, for the newest may be damaged."""


class JobCheckpoints:
    """The checkpoints of one attempt. ``write`` runs in the checkpoint writer's thread."""

    def __init__(self, runtime: Runtime[Denoiser], claim: Claim) -> None:
        self._runtime = runtime
        self._claim = claim
        self._keys = [key for key in (claim.older_checkpoint_key, claim.checkpoint_key) if key]
        self._lock = threading.Lock()
        self._newest: tuple[str, int] | None = None
        self._lost = threading.Event()

    @property
    def newest(self) -> tuple[str, int] | None:
        """Key and step of the newest checkpoint that this attempt has written; None before it."""
        with self._lock:
            return self._newest

    @property
    def keys(self) -> tuple[str, ...]:
        """Where the job's checkpoints are, whoever wrote them; the newest last."""
        with self._lock:
            return tuple(self._keys)

    @property
    def claim_lost(self) -> bool:
        """Whether a write has found that the job is somebody else's now."""
        return self._lost.is_set()

    def write(self, data: bytes, step: int) -> None:
        """Store *data* and name it as the job's checkpoint.

        Raises:
            StorageFailed: It could not be stored. The job goes on without it.
        """
        key = artifact_keys.checkpoint_key(self._claim.job_id, self._claim.attempt, step)
        try:
            self._runtime.store.put(key, data)
        except StorageFailed as exc:
            message = str(exc)
            persist(
                lambda: self._runtime.claims.checkpoint_failed(self._claim, message=message),
                give_up_s=OUTAGE_S,
                what="report a failing store",
            )
            raise
        named = persist(
            lambda: self._runtime.claims.save_checkpoint(self._claim, key=key, step=step),
            give_up_s=OUTAGE_S,
            what=f"checkpoint of {self._claim.job_id}",
        )
        if not named:
            self._lost.set()
            return
        with self._lock:
            if key not in self._keys:
                self._keys.append(key)
            old, self._keys = self._keys[:-_KEPT], self._keys[-_KEPT:]
            self._newest = (key, step)
        self._delete(old)

    def lost(self, key: str, why: ArtifactError) -> str | None:
        """The newest checkpoint, *key*, cannot be read: the key of the one before.

        None: there is none, and the job starts over.

        Raises:
            StateConflict: The claim is lost.
        """
        older = persist(
            lambda: self._runtime.claims.forget_checkpoint(self._claim, key=key),
            give_up_s=OUTAGE_S,
            what="forget a checkpoint",
        )
        logger.warning(
            "%s: %s",
            "starts over" if older is None else "goes back to the checkpoint before",
            why,
            extra={"action": "checkpoint_lost", "job_id": self._claim.job_id},
        )
        self._keys.remove(key)
        self._delete([key])
        return older

    def forget(self) -> None:
        """Delete what checkpoints there are: the phase is done."""
        self._delete(self.keys)

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                self._runtime.store.delete(key)
            except DditError as exc:
                logger.warning("an old checkpoint stays: %s", exc)

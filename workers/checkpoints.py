"""Where checkpoints go: into the store, then named in Postgres, then the old one away."""

from __future__ import annotations

import logging
import threading

from ddit_batch import artifact_keys
from ddit_batch.db.claims import Claim
from ddit_batch.db.engine import persist
from ddit_batch.errors import DditError
from ddit_batch.phases.models.base import Denoiser
from workers.attempt import OUTAGE_S
from workers.runtime import Runtime

logger = logging.getLogger(__name__)


class JobCheckpoints:
    """The checkpoints of one attempt. ``write`` runs in the checkpoint writer's thread."""

    def __init__(self, runtime: Runtime[Denoiser], claim: Claim) -> None:
        self._runtime = runtime
        self._claim = claim
        self._key = claim.checkpoint_key
        self._lock = threading.Lock()
        self._newest: tuple[str, int] | None = None
        self._lost = threading.Event()

    @property
    def newest(self) -> tuple[str, int] | None:
        """Key and step of the newest checkpoint that this attempt has written; None before it."""
        with self._lock:
            return self._newest

    @property
    def key(self) -> str | None:
        """Where the job's newest checkpoint is, whoever wrote it; None if it has none."""
        with self._lock:
            return self._key

    @property
    def claim_lost(self) -> bool:
        """Whether a write has found that the job is somebody else's now."""
        return self._lost.is_set()

    def write(self, data: bytes, step: int) -> None:
        """Store *data* and name it as the job's checkpoint."""
        key = artifact_keys.checkpoint_key(self._claim.job_id, self._claim.attempt, step)
        self._runtime.store.put(key, data)
        named = persist(
            lambda: self._runtime.claims.save_checkpoint(self._claim, key=key, step=step),
            give_up_s=OUTAGE_S,
            what=f"checkpoint of {self._claim.job_id}",
        )
        if not named:
            self._lost.set()
            return
        with self._lock:
            old, self._key = self._key, key
            self._newest = (key, step)
        if old is not None and old != key:
            self._runtime.store.delete(old)

    def forget(self) -> None:
        """Delete the newest checkpoint: the phase is done."""
        if self._key is not None:
            try:
                self._runtime.store.delete(self._key)
            except DditError as exc:
                logger.warning("an old checkpoint stays: %s", exc)

"""The artifact store as workers use it: one that fails is tried again for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ddit_batch.artifact import ArtifactStore
from ddit_batch.errors import StorageFailed

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_PAUSE_S = (0.1, 2.0)
"""First and longest pause between two tries."""


class PatientStore(ArtifactStore):
    """An artifact store whose reads and writes are repeated for *patience_s* when they fail.

    What is missing is no failure, and is not waited for. Deleting is not repeated: what stays is
    only in the way.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        super().__init__(url)
        self._patience_s = patience_s

    def put(self, key: str, data: bytes) -> None:
        """As ``ArtifactStore.put``."""
        self._patiently(lambda: super(PatientStore, self).put(key, data))

    def get(self, key: str) -> bytes:
        """As ``ArtifactStore.get``."""
        return self._patiently(lambda: super(PatientStore, self).get(key))

    def exists(self, key: str) -> bool:
        """As ``ArtifactStore.exists``."""
        return self._patiently(lambda: super(PatientStore, self).exists(key))

    def _patiently(self, call: Callable[[], _T]) -> _T:
        deadline_s = time.monotonic() + self._patience_s
        pause_s, longest_s = _PAUSE_S
        while True:
            try:
                return call()
            except StorageFailed as exc:
                if time.monotonic() + pause_s > deadline_s:
                    raise
                logger.warning("will try again: %s", exc, extra={"action": "store_retry"})
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

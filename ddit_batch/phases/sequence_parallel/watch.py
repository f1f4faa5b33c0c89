"""Noticing that a member of a group is gone while a collective on a GPU would wait for it.

gloo notices by itself: the death of a process closes its connections. NCCL inside one machine talks
through memory, where a dead peer is only silent, until the group's timeout. So on a GPU each member
also listens to each other member over gloo: nothing is ever said but a goodbye, and a connection
that breaks tells of a death within milliseconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from ddit_batch.phases.sequence_parallel.mesh import Axis

logger = logging.getLogger(__name__)

_ALWAYS = timedelta(days=365)
_TAG = 0


class PeerWatch:
    """Listens until every other member has said goodbye or is gone.

    *on_loss* is called once with the rank of the first one that is missed, in a thread of the
    watch: whether it died or left makes no difference to a step that is being taken with it.
    """

    def __init__(self, axis: Axis, on_loss: Callable[[int], None]) -> None:
        self._axis = axis
        self._on_loss = on_loss
        self._lost = threading.Lock()
        self._is_closing = False
        for rank in self._others():
            threading.Thread(
                target=self._listen, args=(rank,), name=f"watch-rank-{rank}", daemon=True
            ).start()

    def close(self) -> None:
        """Say goodbye to the others, and miss nobody from now on."""
        self._is_closing = True
        for rank in self._others():
            try:
                self._process_group().send([torch.zeros(1)], rank, _TAG).wait()
            except RuntimeError:  # gone already
                logger.debug("rank %s is gone before the goodbye", rank)

    def _listen(self, rank: int) -> None:
        try:
            self._process_group().recv([torch.zeros(1)], rank, _TAG).wait(_ALWAYS)
        except RuntimeError as exc:
            logger.debug("rank %s is gone: %s", rank, exc)
        if not self._is_closing and self._lost.acquire(blocking=False):
            self._on_loss(rank)

    def _others(self) -> list[int]:
        return [rank for rank in range(self._axis.size) if rank != self._axis.rank]

    def _process_group(self) -> dist.ProcessGroup:
        process_group = self._axis.process_group
        assert process_group is not None
        return process_group

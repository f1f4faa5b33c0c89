"""Noticing that a member of a group is gone while a collective on a GPU would wait for it.

gloo notices by itself: the death of a process closes its connections. NCCL inside one machine talks
through memory, where a dead peer is only silent, until the group's timeout. So on a GPU each member
also listens to each other member over gloo: nothing is ever said but a goodbye, and a connection
that breaks tells of a death within milliseconds. Who leaves in order, after the leader's word, is
not missed: others may still be ending the step before that word. Who breaks off says so.
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
_IN_ORDER, _BROKEN_OFF = 0.0, 1.0


class PeerWatch:
    """Listens until every other member has said goodbye or is gone.

    *on_loss* is called once with the rank of the first one that died or broke off, in a thread of
    the watch: either way a step that is being taken with it will not end.
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

    def close(self, *, abort: bool = False) -> None:
        """Say goodbye to the others, and miss nobody from now on; *abort* in the midst of work."""
        self._is_closing = True
        goodbye = torch.tensor([_BROKEN_OFF if abort else _IN_ORDER])
        for rank in self._others():
            try:
                self._process_group().send([goodbye], rank, _TAG).wait()
            except RuntimeError:  # gone already
                logger.debug("rank %s is gone before the goodbye", rank)

    def _listen(self, rank: int) -> None:
        goodbye = torch.tensor([_BROKEN_OFF])
        try:
            self._process_group().recv([goodbye], rank, _TAG).wait(_ALWAYS)
        except RuntimeError as exc:
            logger.debug("rank %s is gone: %s", rank, exc)
        if goodbye.item() == _IN_ORDER:
            return
        if not self._is_closing and self._lost.acquire(blocking=False):
            self._on_loss(rank)

    def _others(self) -> list[int]:
        return [rank for rank in range(self._axis.size) if rank != self._axis.rank]

    def _process_group(self) -> dist.ProcessGroup:
        process_group = self._axis.process_group
        assert process_group is not None
        return process_group

"""The groups that this worker could use again: forming one anew costs NCCL tenths of a second.

A group is known by its members' incarnations, so one with a member that died is never asked for
again and leaves by age. Members compare what they have before they use it (``rendezvous.py``).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from torch.distributed.distributed_c10d import Store

from ddit_batch.phases.sequence_parallel.group import SPGroup

KEPT = 8
"""Groups kept besides the one in use. On a GPU each has buffers of some tens of megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cached:
    """A group and the name that all members know it by."""

    name: str
    group: SPGroup
    store: Store
    """That it was formed over: torch keeps what is C++ in it alive, not what is Python."""


class GroupCache:
    """Formed groups, the least recently wanted first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[Hashable, Cached] = OrderedDict()
        self._in_use: SPGroup | None = None

    def get(self, key: Hashable) -> Cached | None:
        """The group of these members, if there is one."""
        with self._lock:
            if key in self._groups:
                self._groups.move_to_end(key)
            return self._groups.get(key)

    def keep(self, key: Hashable, cached: Cached) -> None:
        """Have a group for later; the oldest may have to go for it."""
        with self._lock:
            self._groups[key] = cached
            old = [k for k, cached in self._groups.items() if cached.group is not self._in_use]
            gone = [self._groups.pop(k).group for k in old[: max(0, len(old) - KEPT)]]
        for other in gone:
            other.close()

    def use(self, group: SPGroup | None) -> None:
        """The task thread steps in *group* from now on: it does not leave by age."""
        with self._lock:
            self._in_use = group

    def forget(self, group: SPGroup) -> None:
        """*group* is broken, or its members do not all have it: close it for good."""
        with self._lock:
            for key in [k for k, cached in self._groups.items() if cached.group is group]:
                del self._groups[key]
        group.close(abort=True)

    def clear(self) -> None:
        """Close all; others may be waiting for us in the one in use, and must not for long."""
        with self._lock:
            gone = [cached.group for cached in self._groups.values()]
            self._groups.clear()
            in_use = self._in_use
        for group in gone:
            group.close(abort=group is in_use)

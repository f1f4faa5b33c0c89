"""What is to happen in a simulation, in the order of time.

The key of an event is (time, kind, sequence), so ties are defined.
"""

from __future__ import annotations

import heapq
from enum import IntEnum

from ddit_batch.simulator.record import Record


class Kind(IntEnum):
    """What happens at an instant, in the order in which it is applied."""

    BOUNDARY = 0
    DENOISED = 1
    DECODED = 2
    ENCODED = 3
    LOST = 4
    BACK = 5


class Events:
    """Those that are still to come. The subject of one is a job or the number of a worker."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Kind, int, Record | int, int]] = []
        self._sequence = 0

    def __bool__(self) -> bool:
        return bool(self._heap)

    @property
    def next_s(self) -> float:
        """When the next one is; there is one."""
        return self._heap[0][0]

    def push(self, at_s: float, kind: Kind, subject: Record | int) -> None:
        """Let something happen at *at_s*: void if its job has another version by then."""
        self._sequence += 1
        version = subject.version if isinstance(subject, Record) else 0
        heapq.heappush(self._heap, (at_s, kind, self._sequence, subject, version))

    def pop(self) -> tuple[Kind, Record | int, int]:
        """Take the next one, with the version of the job that it was meant for."""
        _, kind, _, subject, version = heapq.heappop(self._heap)
        return kind, subject, version

"""What a simulated driver remembers of the time before now: the source of ``Snapshot.recent``."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from itertools import islice

from ddit_batch.job import JobId
from ddit_batch.recent import recent, slow_s, spans
from ddit_batch.simulator.record import Record
from ddit_batch.snapshot import Recent

LOOKS_A_SPAN = 200
"""The live driver asks its database now and then, not at every decision; so does this one."""


class Recently:
    """Arrivals and ends of late, in GPU-seconds at dop 1 and in seconds."""

    def __init__(self, *, workers: int) -> None:
        self._workers = workers
        self._arrived_s: deque[float] = deque()
        """When jobs came in; of the latency span, which is the longer one ..."""
        self._arrived_work_s: deque[float] = deque()
        """... and how much work each was."""
        self._jobs = 0
        self._all_work_s = 0.0
        self._unfinished: dict[JobId, Record] = {}
        self._ended: deque[tuple[float, float]] = deque()
        """When, and after how long; of the latency span."""
        self._latencies_s: list[float] = []
        self._seen = Recent()
        self._look_again_s = 0.0

    def arrived(self, record: Record, now_s: float) -> None:
        """A job has come in."""
        work_s = _work_s(record)
        self._unfinished[record.arrival.job_id] = record
        self._jobs += 1
        self._all_work_s += work_s
        self._arrived_s.append(now_s)
        self._arrived_work_s.append(work_s)

    def found(self, record: Record) -> None:
        """A job is there from the start, and came in at an unknown time before."""
        self._unfinished[record.arrival.job_id] = record
        self._jobs += 1
        self._all_work_s += _work_s(record)

    def ended(self, record: Record, now_s: float) -> None:
        """A job is done."""
        latency_s = now_s - record.arrival.arrived_s
        del self._unfinished[record.arrival.job_id]
        self._ended.append((now_s, latency_s))
        insort(self._latencies_s, latency_s)

    def look(self, now_s: float) -> Recent:
        """How it is now, or was a moment ago."""
        if now_s < self._look_again_s or not self._jobs:
            return self._seen
        span = spans(self._all_work_s / self._jobs, self._workers)
        self._look_again_s = now_s + span.load_s / LOOKS_A_SPAN
        self._forget(now_s - span.latency_s)
        old_s = now_s - span.load_s
        older = (r for r in self._unfinished.values() if r.arrival.arrived_s < old_s)
        self._seen = recent(
            span=span,
            workers=self._workers,
            arrived_s=sum(islice(self._arrived_work_s, bisect_left(self._arrived_s, old_s), None)),
            backlog_s=sum(map(_work_s, older)),
            arrived_long_s=sum(self._arrived_work_s),
            slow_s=slow_s(self._latencies_s),
        )
        return self._seen

    def _forget(self, before_s: float) -> None:
        """Let go of what was before the longer span."""
        while self._arrived_s and self._arrived_s[0] < before_s:
            self._arrived_s.popleft()
            self._arrived_work_s.popleft()
        while self._ended and self._ended[0][0] < before_s:
            _, latency_s = self._ended.popleft()
            del self._latencies_s[bisect_left(self._latencies_s, latency_s)]


def _work_s(record: Record) -> float:
    """GPU-seconds at dop 1 from the record's last known step to its end."""
    cost = record.cost
    return (record.arrival.steps - record.step) * cost.step_s[0] + cost.decode_s

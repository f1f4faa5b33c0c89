"""The jobs that wait for workers, kept in order, and the window of them that a decision sees."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import islice

from ddit_batch.simulator.record import Record
from ddit_batch.snapshot import JobView


class Waiting:
    """Waiting jobs in order of priority and arrival, and again by GPU-seconds left."""

    def __init__(self, *, window: int, window_shortest: int) -> None:
        self._window = window
        self._shortest = window_shortest
        self._keys: list[tuple[int, int]] = []
        self._views: list[JobView] = []
        self._by_work: list[tuple[float, int, JobView]] = []

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, record: Record, now_s: float) -> None:
        """Let *record* wait; it must not change while it does."""
        at = bisect_left(self._keys, record.key)
        view = record.view(now_s)
        self._keys.insert(at, record.key)
        self._views.insert(at, view)
        if self._shortest:
            insort(self._by_work, (*_work_key(record), view))

    def remove(self, record: Record) -> None:
        """Let *record* wait no longer."""
        at = bisect_left(self._keys, record.key)
        del self._keys[at]
        del self._views[at]
        if self._shortest:
            del self._by_work[bisect_left(self._by_work, _work_key(record), key=_first_two)]

    def seen(self) -> list[JobView]:
        """The jobs in the window."""
        seen = self._views[: self._window]
        if self._shortest and len(self._views) > self._window:
            first = {view.seq for view in seen}
            others = (view for _, seq, view in self._by_work if seq not in first)
            seen += islice(others, self._shortest)
        return seen


def _work_key(record: Record) -> tuple[float, int]:
    cost = record.cost
    area_s = min(dop * step_s for dop, step_s in zip(cost.dops, cost.step_s, strict=True))
    return (record.arrival.steps - record.step) * area_s, record.seq


def _first_two(entry: tuple[float, int, JobView]) -> tuple[float, int]:
    return entry[:2]

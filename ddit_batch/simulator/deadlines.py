"""What batches with a deadline still need, as decisions are told: ``BatchView.work_s``.

Jobs that wait are added up once, when they begin and when they end to wait, so that a decision
looks only at those that are under way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ddit_batch.job import JobState
from ddit_batch.simulator.record import Record
from ddit_batch.snapshot import BatchView


class Deadlines:
    """The batches of a workload, those with a deadline with their work."""

    def __init__(self, batches: tuple[BatchView, ...]) -> None:
        self._batches = batches
        self._waiting_s = {b.batch_id: 0.0 for b in batches if b.deadline_s is not None}

    def waits(self, record: Record) -> None:
        """A job begins to wait for its DiT phase."""
        if record.arrival.batch_id in self._waiting_s:
            self._waiting_s[record.arrival.batch_id] += _work_s(record, record.step)

    def waits_no_more(self, record: Record) -> None:
        """It has been given workers; its steps are those with which it waited."""
        if record.arrival.batch_id in self._waiting_s:
            self._waiting_s[record.arrival.batch_id] -= _work_s(record, record.step)

    def views(self, active: Iterable[Record], now_s: float) -> tuple[BatchView, ...]:
        """The batches as a decision at *now_s* sees them; *active* are jobs under way."""
        if not self._waiting_s:
            return self._batches
        work_s = dict(self._waiting_s)
        for record in active:
            if record.arrival.batch_id in work_s:
                denoising = record.state is JobState.DENOISING
                step = record.steps_done(now_s) if denoising else record.step
                work_s[record.arrival.batch_id] += _work_s(record, step)
        return tuple(
            replace(batch, work_s=max(0.0, work_s[batch.batch_id]))
            if batch.batch_id in work_s
            else batch
            for batch in self._batches
        )


def _work_s(record: Record, step: int) -> float:
    """GPU-seconds at dop 1 from *step* on, the decode included."""
    return (record.arrival.steps - step) * record.cost.at(1) + record.cost.decode_s

"""What arrives, and when: the workloads of simulations.

Pure. Times are seconds from an origin of the workload's own choice.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddit_batch.job import JobId, Shape
from ddit_batch.snapshot import BatchView


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One job, as far as its costs and its place in the order depend on it."""

    job_id: JobId
    batch_id: str
    arrived_s: float
    model: str
    shape: Shape
    steps: int
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Jobs in the order of their arrival."""

    arrivals: tuple[Arrival, ...]
    batches: tuple[BatchView, ...] = ()
    """The batches that differ from the defaults of ``BatchView``."""

    @property
    def models(self) -> frozenset[str]:
        """Every model that a job asks for."""
        return frozenset(arrival.model for arrival in self.arrivals)

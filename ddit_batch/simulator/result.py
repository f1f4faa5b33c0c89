"""What a simulation leaves behind: for each job its times, for each group its segments."""

from __future__ import annotations

from dataclasses import dataclass

from ddit_batch.job import JobId, Phase, WorkerName
from ddit_batch.simulator.workload import Arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one group did for one job without a change: some steps, or its decode."""

    job_id: JobId
    phase: Phase
    """``dit`` or ``vae``."""
    workers: tuple[WorkerName, ...]
    """The leader first."""
    begun_s: float
    ended_s: float
    overhead_s: float
    """Of that, seconds in which the group started or resized, and did no step."""
    from_step: int
    to_step: int
    """Completed ones; a fault takes away what is newer than the checkpoint."""

    @property
    def dop(self) -> int:
        """How many workers it had."""
        return len(self.workers)

    @property
    def gpu_s(self) -> float:
        """GPU-seconds: workers times seconds."""
        return len(self.workers) * (self.ended_s - self.begun_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """What became of one job."""

    arrival: Arrival
    started_s: float
    """When it was first given workers."""
    finished_s: float
    gpu_s: float
    """GPU-seconds that its groups were held for."""
    starvation_s: float
    """Seconds lost to steps at a dop slower than the optimal dop B: the starvation time of
    the DDiT paper (arXiv 2506.13497), summed over all segments and never reset."""
    resizes: int
    """Changes of its group between its first step and its last, those through a wait included."""

    @property
    def latency_s(self) -> float:
        """From its arrival to the end of its decode."""
        return self.finished_s - self.arrival.arrived_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One workload under one policy."""

    policy: str
    gpus: int
    jobs: tuple[JobOutcome, ...]
    """In order of arrival."""
    segments: tuple[Segment, ...]
    """In the order in which they ended."""
    decisions: int
    """How often the core was asked."""

    @property
    def begun_s(self) -> float:
        """The first arrival."""
        return min(job.arrival.arrived_s for job in self.jobs)

    @property
    def makespan_s(self) -> float:
        """From the first arrival to the end of the last job."""
        return max(job.finished_s for job in self.jobs) - self.begun_s

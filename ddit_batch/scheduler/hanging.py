"""When a worker that lives is held to hang, and how long each has been silent.

``longest_silence_s`` is pure and the core's; ``Silences`` is the live driver's memory of one term.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ddit_batch.cost_model import CostModel, Live
from ddit_batch.job import JobId, JobState
from ddit_batch.snapshot import JobView, Progress, Snapshot

_NOTICED_S = 1.0
"""Shorter silences are not worth a new view of the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HangLimits:
    """How long a worker may show no sign of going on with its job, in seconds."""

    steps: float = 10.0
    """As long as so many steps, ..."""
    floor_s: float = 30.0
    """... but at least so long."""
    group_s: float = 30.0
    """On top of that in a group: its members wait so long for one that hangs, then go on."""
    phase_s: float = 1800.0
    """For an encode or VAE phase, and for a step if none of its kind was ever timed here."""


def longest_silence_s(job: JobView, costs: CostModel, limits: HangLimits) -> float:
    """How long the worker that holds *job* may be silent.

    A profile alone is no reason to take a job away: the device may be another, and slower by far.
    Steps that were timed here are.
    """
    if job.state is not JobState.DENOISING:
        return limits.phase_s
    in_group_s = limits.group_s if job.dop > 1 else 0.0
    step_s = max(_timed_s(job, costs), job.said_step_s or 0.0)
    if not step_s:
        return max(limits.phase_s, limits.floor_s) + in_group_s
    return max(limits.steps * step_s, limits.floor_s) + in_group_s


def _timed_s(job: JobView, costs: CostModel) -> float:
    """Seconds of a step of *job* as live steps tell; 0 if none do."""
    cost = costs.cost(job.model, job.shape)
    dop = cost.widest(max(job.dop, 1))
    is_timed = cost.live and cost.live[cost.dops.index(dop)] is not Live.NONE
    return cost.at(dop) if is_timed else 0.0


class Silences:
    """Since when each held job has shown the same sign: its attempt, step and group."""

    def __init__(self) -> None:
        self._since: dict[JobId, tuple[object, float]] = {}

    def noticed(
        self, snapshot: Snapshot, reports: Mapping[JobId, Progress], *, now_s: float, is_blind: bool
    ) -> Snapshot:
        """*snapshot* with the silence of each job, as *reports* break it.

        Who *is_blind* (the broker is away, or nobody looked for a while) has heard nothing, and
        begins anew.
        """
        since: dict[JobId, tuple[object, float]] = {}
        jobs = []
        for job in snapshot.jobs:
            if job.held:
                report = _of_attempt(reports.get(job.job_id), job.attempt)
                sign = (job.attempt, job.state, report and report.step, job.group)
                before, begun_s = self._since.get(job.job_id, (None, now_s))
                begun_s = now_s if is_blind or sign != before else begun_s
                since[job.job_id] = (sign, begun_s)
                if now_s - begun_s >= _NOTICED_S:
                    said_step_s = None if report is None else report.step_s
                    silent_s = now_s - begun_s
                    jobs.append(replace(job, silent_s=silent_s, said_step_s=said_step_s))
                    continue
            jobs.append(job)
        self._since = since
        return replace(snapshot, jobs=tuple(jobs))


def _of_attempt(report: Progress | None, attempt: int) -> Progress | None:
    return report if report is not None and report.attempt == attempt else None

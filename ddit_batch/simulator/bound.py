"""What nobody can beat: lower bounds on mean latency and makespan of a workload on N GPUs.

They hold for every policy, one that knows the future included, and whatever changes cost. What is
used of a job j (all of it true of any schedule in the simulator's model):

- it cannot be worked on before its *release* r_j: its arrival and its encode;
- a step at dop k takes t(k) seconds of k GPUs, and k is legal and fits into a node; so each step
  costs at least ``a = min k t(k)`` GPU-seconds and takes at least ``h = min t(k)`` seconds, also
  per fraction of a step; the decode costs at least, and takes, its seconds on one GPU;
- steps come one after the other, then the decode; groups stand still or work, never faster.

**Makespan.** Jobs released at or after a time r must do all their area after r, so somebody is not
done before r + (their area) / N. And no job is done before its release plus its height.

**Mean.** For each job choose a point in its work, a fraction p of its steps. Let D_j be when a
schedule S reaches it, and C_j when S ends the job. What is behind the point takes at least its
height H_j = (1 - p) steps h + decode, so C_j >= D_j + H_j. Up to its point the job has had at least
A_j = p steps a GPU-seconds, after r_j and before D_j. Think of one machine that does N GPU-seconds
a second, and let it do at each instant what S's GPUs do for the parts up to the points, until each
has had A_j: it never does more than N a second, works on no job before its release, and is done
with part j no later than D_j. So the D_j are at least the completion times of *some* preemptive
schedule of parts A_j with releases r_j on that machine, and among those shortest remaining first
(SRPT) has the least sum (Schrage, 1968; sharing the machine is a limit of preempting it). So

    sum C_j >= SRPT(A, r, N) + sum H_j        for every choice of points,

and a point may also lie at the very end, the decode counted as area: A_j = steps a + decode, H = 0.
At p = 0 this is the height bound, at the very end the squashed area bound; between the two it is
the idea of Turek et al. ("Scheduling parallelizable tasks to minimize average response time", SPAA
1994), here with release dates and for work that can be resized. And what holds for all jobs holds
for any part of them alone, since leaving the others out only makes room: so the jobs are cut into
the busy periods of the SRPT schedule of whole areas, each takes the best of a grid of points, and
the bounds are added up.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from ddit_batch.cost_model import CostModel
from ddit_batch.simulator.workload import Workload
from ddit_batch.simulator.world import Cluster

POINTS = tuple(n / 10 for n in range(11))
"""Fractions of the steps that are tried, besides the very end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What no policy can go below."""

    mean_latency_s: float
    makespan_s: float
    """From the first arrival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What the bounds use of a job. Seconds, and GPU-seconds."""

    arrived_s: float
    release_s: float
    steps_gpu_s: float
    steps_s: float
    decode_s: float
    decode_gpu_s: float
    """0 where VAE workers decode."""

    @property
    def area_s(self) -> float:
        """The least GPU-seconds of all its work."""
        return self.steps_gpu_s + self.decode_gpu_s


def bound(workload: Workload, costs: CostModel, cluster: Cluster, *, first: int = 0) -> Bound:
    """The bounds for *workload* on *cluster*.

    Args:
        workload: At least one job.
        costs: Of its jobs.
        cluster: How many GPUs, and how many of them a node.
        first: Jobs that come before this one, in order of arrival, do not count in the mean.
    """
    jobs = [_job(workload, number, costs, cluster) for number in range(len(workload.arrivals))]
    counted = jobs[first:]
    periods = _busy_periods(counted, cluster.gpus)
    total_s = sum(_best_sum(period, cluster.gpus) for period in periods)
    before_s = sum(job.arrived_s for job in counted)
    return Bound(
        mean_latency_s=(total_s - before_s) / len(counted),
        makespan_s=_last_end(jobs, cluster.gpus) - min(job.arrived_s for job in jobs),
    )


def _job(workload: Workload, number: int, costs: CostModel, cluster: Cluster) -> _Job:
    arrival = workload.arrivals[number]
    cost = costs.cost(arrival.model, arrival.shape)
    fitting = [
        (dop, step_s)
        for dop, step_s in zip(cost.dops, cost.step_s, strict=True)
        if dop <= cluster.widest
    ]
    return _Job(
        arrived_s=arrival.arrived_s,
        release_s=arrival.arrived_s + cost.encode_s,
        steps_gpu_s=arrival.steps * min(dop * step_s for dop, step_s in fitting),
        steps_s=arrival.steps * min(step_s for _, step_s in fitting),
        decode_s=cost.decode_s,
        decode_gpu_s=0.0 if cluster.vae_workers else cost.decode_s,
    )


def _last_end(jobs: Sequence[_Job], gpus: int) -> float:
    """A time before which not all jobs can be done."""
    last_s = max(job.release_s + job.steps_s + job.decode_s for job in jobs)
    left_gpu_s = 0.0
    for job in sorted(jobs, key=lambda job: job.release_s, reverse=True):
        left_gpu_s += job.area_s
        last_s = max(last_s, job.release_s + left_gpu_s / gpus)
    return last_s


def _best_sum(jobs: Sequence[_Job], gpus: int) -> float:
    """The best bound on the sum of the times at which *jobs* end, over the points."""
    whole = srpt_sum([(job.release_s, job.area_s) for job in jobs], gpus)
    split = (
        srpt_sum([(job.release_s, point * job.steps_gpu_s) for job in jobs], gpus)
        + sum((1.0 - point) * job.steps_s + job.decode_s for job in jobs)
        for point in POINTS
    )
    return max(whole, *split)


def srpt_sum(parts: Sequence[tuple[float, float]], gpus: int) -> float:
    """The sum of completion times of *parts*, the one with the least left first, preemptively.

    *parts* are (release in seconds, GPU-seconds), done by one machine of *gpus* GPU-seconds a
    second.
    """
    return sum(end_s for end_s, _ in _srpt(parts, gpus))


def _srpt(parts: Sequence[tuple[float, float]], gpus: int) -> list[tuple[float, int]]:
    """When each part ends, with its number, in order of time."""
    order = sorted(range(len(parts)), key=lambda number: parts[number][0])
    ends: list[tuple[float, int]] = []
    left: list[tuple[float, int]] = []
    now_s, coming = 0.0, 0
    while left or coming < len(order):
        if not left:
            now_s = max(now_s, parts[order[coming]][0])
        while coming < len(order) and parts[order[coming]][0] <= now_s:
            heapq.heappush(left, (parts[order[coming]][1], order[coming]))
            coming += 1
        gpu_s, number = left[0]
        end_s = now_s + gpu_s / gpus
        next_s = parts[order[coming]][0] if coming < len(order) else end_s
        if end_s <= next_s:
            heapq.heappop(left)
            ends.append((end_s, number))
            now_s = end_s
        else:
            heapq.heapreplace(left, (gpu_s - (next_s - now_s) * gpus, number))
            now_s = next_s
    return ends


def _busy_periods(jobs: Sequence[_Job], gpus: int) -> list[list[_Job]]:
    """*jobs* by the stretches of time in which the machine of ``_srpt`` has work."""
    periods: list[list[_Job]] = []
    busy_until_s = float("-inf")
    for job in sorted(jobs, key=lambda job: job.release_s):
        if job.release_s >= busy_until_s:
            periods.append([])
            busy_until_s = job.release_s
        periods[-1].append(job)
        busy_until_s += job.area_s / gpus
    return periods

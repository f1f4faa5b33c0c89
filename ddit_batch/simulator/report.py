"""What is made of results: one summary for each policy, side by side, and the bound beneath them.

Pure: values in, values out. How they look on a terminal is the command's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil, floor

from ddit_batch.cost_model import CostModel
from ddit_batch.simulator.bound import Bound
from ddit_batch.simulator.result import JobOutcome, Result
from ddit_batch.simulator.world import Cluster

LESS_IS_BETTER = frozenset(
    {
        "mean_latency_s",
        "p50_latency_s",
        "p95_latency_s",
        "p99_latency_s",
        "max_latency_s",
        "makespan_s",
        "gpu_s",
    }
)
"""What is compared with the first policy: how many times better, the first policy's by its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One policy in numbers. Latencies, starvation and the index are over the counted jobs."""

    policy: str
    mean_latency_s: float
    p50_latency_s: float
    p95_latency_s: float
    p99_latency_s: float
    max_latency_s: float
    makespan_s: float
    """From the first arrival to the end of the last job."""
    utilisation: float
    """Share of the GPUs' time until then in which a group held them."""
    gpu_s: float
    """GPU-seconds that groups held, idle members while one decodes included."""
    starvation_s: float
    """Mean seconds that a job lost to steps slower than at its optimal dop."""
    resizes: int
    """Changes of groups, of all jobs."""
    jain: float
    """How evenly batches are served: Jain's index of their speeds, 1 if all are equal. The speed of
    a batch is the mean of its jobs' shortest possible latency by the latency that they had."""

    def ratios(self, first: Summary) -> dict[str, float]:
        """How many times better than *first*, by field; above 1 is better."""
        return {
            name: getattr(first, name) / getattr(self, name)
            for name in (field.name for field in fields(self))
            if name in LESS_IS_BETTER and getattr(self, name) > 0
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Several policies on one workload."""

    jobs: int
    counted: int
    """Without the warm-up."""
    summaries: tuple[Summary, ...]
    bound: Bound

    def to_json(self) -> dict[str, object]:
        """A JSON object."""
        first = self.summaries[0]
        return {
            "jobs": self.jobs,
            "counted": self.counted,
            "policies": [
                {
                    **{field.name: getattr(one, field.name) for field in fields(one)},
                    "better_than_first": one.ratios(first),
                }
                for one in self.summaries
            ],
            "bound": {
                "mean_latency_s": self.bound.mean_latency_s,
                "makespan_s": self.bound.makespan_s,
            },
        }


def warm_up_jobs(jobs: int, share: float) -> int:
    """How many of *jobs*, in order of arrival, are left out as warm-up; at least one is not."""
    return min(floor(jobs * share), jobs - 1)


def summarise(result: Result, costs: CostModel, cluster: Cluster, *, first: int = 0) -> Summary:
    """*result* in numbers; jobs before the *first* in order of arrival do not count."""
    counted = result.jobs[first:]
    latencies = sorted(job.latency_s for job in counted)
    gpu_s = sum(job.gpu_s for job in result.jobs)
    return Summary(
        policy=result.policy,
        mean_latency_s=sum(latencies) / len(latencies),
        p50_latency_s=percentile(latencies, 50),
        p95_latency_s=percentile(latencies, 95),
        p99_latency_s=percentile(latencies, 99),
        max_latency_s=latencies[-1],
        makespan_s=result.makespan_s,
        utilisation=gpu_s / (result.gpus * result.makespan_s),
        gpu_s=gpu_s,
        starvation_s=sum(job.starvation_s for job in counted) / len(counted),
        resizes=sum(job.resizes for job in result.jobs),
        jain=_jain(_speeds(counted, costs, cluster)),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below which *percent* of the *ordered* ones lie, on the line between neighbours."""
    at = (len(ordered) - 1) * percent / 100
    below, above = ordered[floor(at)], ordered[ceil(at)]
    return below + (above - below) * (at - floor(at))


def _speeds(jobs: Sequence[JobOutcome], costs: CostModel, cluster: Cluster) -> list[float]:
    """The speed of each batch; see ``Summary.jain``."""
    of_batch: dict[str, list[float]] = defaultdict(list)
    for job in jobs:
        arrival = job.arrival
        cost = costs.cost(arrival.model, arrival.shape)
        step_s = min(cost.at(dop) for dop in cost.dops if dop <= cluster.widest)
        least_s = cost.encode_s + arrival.steps * step_s + cost.decode_s
        of_batch[arrival.batch_id].append(least_s / job.latency_s)
    return [sum(speeds) / len(speeds) for speeds in of_batch.values()]


def _jain(values: Sequence[float]) -> float:
    """Jain's fairness index: (sum x)^2 / (n sum x^2). Jain, Chiu, Hawe, 1984 (DEC-TR-301)."""
    return sum(values) ** 2 / (len(values) * sum(value**2 for value in values))

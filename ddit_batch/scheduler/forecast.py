"""When batches will be done: the estimate behind ``batches.eta_at``.

Pure. A few jobs are simulated, by the very policy and core that will decide about them; of many,
the work flows like water through the workers, which is as good where a job is a small part of its
batch and costs nothing. Neither knows what will be submitted later, or which worker will die.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ddit_batch.backlog import Kind, Work, ends_by_shares, ends_in_order, is_known
from ddit_batch.cost_model import CostModel
from ddit_batch.errors import ConfigError
from ddit_batch.job import JobId
from ddit_batch.policy.base import Policy
from ddit_batch.simulator import Arrival, Cluster, Workload, simulate
from ddit_batch.snapshot import BatchView, WorkerView

SIMULATED_JOBS = 64
"""So many jobs take about 30 ms to simulate; more are estimated."""
SHARING = ("elastic",)
"""Policies that serve all batches at once, by their shares. The others go by order of arrival."""


def batch_ends(
    left: Sequence[Kind],
    work: Work,
    policy: Policy,
    workers: Sequence[WorkerView],
    shares: Mapping[str, float],
) -> dict[str, float]:
    """Seconds until the last video of each batch is complete.

    *workers* are those that may be given DiT work. A batch is left out if one of its models has no
    worker, or costs that are but a guess.
    """
    crews = {
        model: frozenset(worker.name for worker in workers if model in worker.models)
        for model in {kind.model for kind in left}
    }
    served = [kind for kind in left if crews[kind.model]]
    ends_s = _simulated(served, work, policy, workers, shares)
    if ends_s is None:
        shares_out = policy.name.partition(":")[0] in SHARING
        ends_s = (
            ends_by_shares(served, work, crews, shares)
            if shares_out
            else ends_in_order(served, work, crews)
        )
    unknown = {
        kind.batch_id
        for kind in left
        if not crews[kind.model] or not is_known(work.costs.cost(kind.model, kind.shape))
    }
    return {batch: end_s for batch, end_s in ends_s.items() if batch not in unknown}


def _simulated(
    left: Sequence[Kind],
    work: Work,
    policy: Policy,
    workers: Sequence[WorkerView],
    shares: Mapping[str, float],
) -> dict[str, float] | None:
    """The same by simulation; None where there are too many jobs, or workers that differ."""
    if not left or sum(kind.jobs for kind in left) > SIMULATED_JOBS:
        return None
    if not all(worker.models.issuperset(kind.model for kind in left) for worker in workers):
        return None
    after_s = {
        kind: 0.0 if work.decodes else work.costs.cost(kind.model, kind.shape).decode_s
        for kind in left
    }
    arrivals, kind_of = _arrivals(left)
    ends_s: dict[str, float] = defaultdict(float)
    for kind in left:
        ends_s[kind.batch_id] = max(ends_s[kind.batch_id], after_s[kind])
    if arrivals:
        workload = Workload(
            arrivals=arrivals,
            batches=tuple(BatchView(batch_id=b, share=s) for b, s in sorted(shares.items())),
        )
        nodes = Counter(worker.node for worker in workers)
        cluster = Cluster(gpus=len(workers), gpus_per_node=max(nodes.values()))
        try:
            result = simulate(workload, _without_others(left, work), policy, cluster)
        except ConfigError:  # the policy wants other workers than these
            return None
        for job in result.jobs:
            kind = kind_of[job.arrival.job_id]
            end_s = job.finished_s + after_s[kind]
            ends_s[kind.batch_id] = max(ends_s[kind.batch_id], end_s)
    return dict(ends_s)


def _arrivals(left: Sequence[Kind]) -> tuple[tuple[Arrival, ...], dict[JobId, Kind]]:
    """A job for each that has steps left, all there from the start, in the order of arrival."""
    kind_of: dict[JobId, Kind] = {}
    for kind in sorted(left, key=lambda kind: kind.seq):
        for _ in range(kind.jobs if kind.steps_left else 0):
            kind_of[JobId(f"j{len(kind_of):06d}")] = kind
    arrivals = tuple(
        Arrival(
            job_id=job_id,
            batch_id=kind.batch_id,
            arrived_s=0.0,
            model=kind.model,
            shape=kind.shape,
            steps=kind.steps_left,
            priority=kind.priority,
        )
        for job_id, kind in kind_of.items()
    )
    return arrivals, kind_of


def _without_others(left: Sequence[Kind], work: Work) -> CostModel:
    """The costs without what other workers do: encoding, and decoding where DiT workers do not."""
    table = {}
    for kind in left:
        cost = work.costs.cost(kind.model, kind.shape)
        decode_s = cost.decode_s if work.decodes else 0.0
        table[kind.model, kind.shape] = replace(cost, encode_s=0.0, decode_s=decode_s)
    return CostModel(table=table)

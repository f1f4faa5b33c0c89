"""When batches will be done: the estimate behind ``batches.eta_at``.

Pure. A few jobs are simulated from where they are, by the very policy and core that will decide
about them; of many, the work flows like water through the workers, which is as good where a job is
a small part of its batch and costs nothing. Neither knows what will be submitted later, or which
worker will die.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ddit_batch.backlog import Kind, Work, ends_by_shares, ends_in_order, is_known
from ddit_batch.errors import ConfigError
from ddit_batch.policy.base import Policy, dit_workers
from ddit_batch.simulator.forecast import forecast
from ddit_batch.snapshot import Snapshot

SIMULATED_JOBS = 64
"""So many jobs take some 10 to 100 ms to simulate; more are estimated."""
SHARING = ("elastic",)
"""Policies that serve all batches at once, by their shares. The others go by order of arrival."""


def batch_ends(
    left: Sequence[Kind],
    work: Work,
    policy: Policy,
    snapshot: Snapshot,
    shares: Mapping[str, float],
) -> dict[str, float]:
    """Seconds until the last video of each batch is complete.

    *left* are all unfinished jobs, of which *snapshot* has some in view. A batch is left out if one
    of its models has no worker, or costs that are but a guess.
    """
    workers = dit_workers(snapshot)
    crews = {
        model: frozenset(worker.name for worker in workers if model in worker.models)
        for model in {kind.model for kind in left}
    }
    served = [kind for kind in left if crews[kind.model]]
    ends_s = _simulated(sum(kind.jobs for kind in left), work, policy, snapshot)
    if ends_s is None:
        sharing = policy.name.partition(":")[0] in SHARING
        ends_s = (
            ends_by_shares(served, work, crews, shares)
            if sharing
            else ends_in_order(served, work, crews)
        )
    unknown = {
        kind.batch_id
        for kind in left
        if not crews[kind.model] or not is_known(work.costs.cost(kind.model, kind.shape))
    }
    return {batch: end_s for batch, end_s in ends_s.items() if batch not in unknown}


def _simulated(
    jobs: int, work: Work, policy: Policy, snapshot: Snapshot
) -> dict[str, float] | None:
    """The same by simulation; None if there are too many *jobs*, or not all of them in view."""
    if not len(snapshot.jobs) == jobs <= SIMULATED_JOBS:
        return None
    try:
        done_s = forecast(snapshot, work.costs, policy)
    except ConfigError:  # the policy wants other workers than these
        return None
    ends_s: dict[str, float] = defaultdict(float)
    for job in snapshot.jobs:
        if job.job_id in done_s:
            end_s = done_s[job.job_id] - snapshot.now_s
            ends_s[job.batch_id] = max(ends_s[job.batch_id], end_s)
    return dict(ends_s)

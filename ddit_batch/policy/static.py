"""``static``: dop k for every job, first come first served, nothing ever resized.

The rule: a job keeps its group until its DiT phase ends, and where DiT workers decode until it is
decoded, as in monolithic systems; waiting jobs are taken in order (priority, then arrival), each as
soon as k workers of one node that serve its model are idle. If k is not legal for its shape, the
largest legal dop below it stands for k. A job that does not get its workers holds up those behind
it that could use the same workers: that is what first come first served means; one that could not
get them if all were idle holds nobody up. A group that has lost a worker is given back.

Source: what engines without step-boundary resizing do; "SDoP" among the baselines of the DDiT paper
(arXiv 2506.13497), at k = 1, 2 and 4. First come first served is inferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddit_batch.cost_model import CostModel
from ddit_batch.policy.base import Decisions, dit_workers
from ddit_batch.policy.fixed import Wish, fixed_groups, most_on_a_node
from ddit_batch.snapshot import JobView, Snapshot, order_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """The policy; *dop* is its k."""

    costs: CostModel
    dop: int = 1

    @property
    def name(self) -> str:
        """The spec by which settings choose it."""
        return f"static:dop={self.dop}"

    def plan(self, snapshot: Snapshot) -> Decisions:
        """Keep every group, then fill idle workers in order."""
        able = dit_workers(snapshot)

        def wish(job: JobView) -> Wish | None:
            dop = self.costs.cost(job.model, job.shape).widest(self.dop)
            crew = [worker for worker in able if job.model in worker.models]
            if most_on_a_node(crew) < dop:
                return None
            return Wish(dop)

        return fixed_groups(snapshot, self.costs, wish)

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """Priority, then arrival."""
        del snapshot
        return sorted(jobs, key=order_key)

    def explain(self, snapshot: Snapshot, job: JobView) -> tuple[str, ...]:
        """The k of the job, and what holds it up: for ``ddit explain``."""
        dop = self.costs.cost(job.model, job.shape).widest(self.dop)
        less = "" if dop == self.dop else f" ({self.dop} is not legal for it)"
        workers = "1 worker" if dop == 1 else f"{dop} workers of one node"
        rule = f"static gives it {workers}{less}, and never changes that."
        if job.group:
            return (rule,)
        crew = [worker for worker in dit_workers(snapshot) if job.model in worker.models]
        most = most_on_a_node(crew)
        if most < dop:
            return (rule, f"No node has so many that serve {job.model}: {most} at most.")
        return (rule, "First come first served: who is before it, of those that wait, comes first.")

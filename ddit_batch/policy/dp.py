"""``dp``: a job takes what is idle when it starts, up to its optimal dop, and keeps that.

The rule: waiting jobs are taken in order (priority, then arrival) as soon as a worker is idle, each
with min(B, idle) of them, rounded down to a legal dop. The dop is fixed at the start; the whole
group is held until the video is decoded, as monolithic systems do. A group that has lost a worker
is given back, and its job starts again.

Source: "DP" among the baselines of the DDiT paper (arXiv 2506.13497), as a secondary note tells it:
no isolation, a request may run degraded on a smaller free group, no promotion, no decoupling of DiT
and VAE. Rounding down and first come first served are inferred. Ties: arrival is unique; which
workers a job gets is told in ``placement.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddit_batch.cost_model import CostModel
from ddit_batch.policy.base import Decisions, unplaced
from ddit_batch.policy.placement import start_up_to, unchanged
from ddit_batch.snapshot import JobView, Snapshot, order_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Dp:
    """The policy."""

    costs: CostModel

    @property
    def name(self) -> str:
        """The spec by which settings choose it."""
        return "dp"

    def plan(self, snapshot: Snapshot) -> Decisions:
        """Keep every group, then start what can start."""
        room = unchanged(snapshot, self.costs, whole=True)
        for job in unplaced(snapshot):
            if not room.idle:
                break
            cost = self.costs.cost(job.model, job.shape)
            start_up_to(room, job, cost.optimal_dop, cost)
        return room.groups

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """Priority, then arrival."""
        del snapshot
        return sorted(jobs, key=order_key)

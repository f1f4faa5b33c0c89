"""``dp``: a job takes a group up to its optimal dop when it starts, and keeps that.

The rule: waiting jobs are taken in order (priority, then arrival), each as soon as a group for it
is free, of B workers or degraded on fewer. The dop is fixed at the start; the whole group is held
until the video is decoded, as monolithic systems do. A group that has lost a worker is given back,
and its job starts again. What a free group is, ``groups`` says:

- ``idle``: any idle workers, min(B, idle) of them, rounded down to a legal dop;
- ``fixed``: the workers that serve a model are cut beforehand, node by node in order of name, into
  groups of the optimal dops of its shapes in turn (1, 2, 4, 1, 2, ...; what is left of a node is
  not used), and a job takes the largest free one that is not larger than its B.

Source: "DP" among the baselines of the DDiT paper (arXiv 2506.13497), as a secondary note tells it:
no isolation, a request may run degraded on a smaller free group, no promotion, no decoupling of DiT
and VAE. Whether groups are made up at the start or beforehand it does not say, so both readings are
here; ``idle``, the stronger one, is the default. First come first served, rounding down and how
workers are cut are ours. Ties: arrival is unique; of equal groups the first in order of name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, groupby

from ddit_batch.cost_model import CostModel
from ddit_batch.job import WorkerName
from ddit_batch.policy.base import Decisions, dit_workers, unplaced
from ddit_batch.policy.placement import start_up_to, unchanged
from ddit_batch.snapshot import JobView, Snapshot, WorkerView, order_key


class Groups(StrEnum):
    """Which groups a job may be given."""

    IDLE = "idle"
    """Any idle workers of one node."""
    FIXED = "fixed"
    """Those that were cut beforehand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dp:
    """The policy."""

    costs: CostModel
    groups: Groups = Groups.IDLE

    @property
    def name(self) -> str:
        """The spec by which settings choose it."""
        return "dp" if self.groups is Groups.IDLE else f"dp:groups={self.groups}"

    def plan(self, snapshot: Snapshot) -> Decisions:
        """Keep every group, then start what can start."""
        room = unchanged(snapshot, self.costs, whole=True)
        able = sorted(dit_workers(snapshot), key=lambda worker: (worker.node, worker.name))
        cuts: dict[str, list[frozenset[WorkerName]]] = {}
        for job in unplaced(snapshot):
            if not room.idle:
                break
            cost = self.costs.cost(job.model, job.shape)
            if self.groups is Groups.IDLE:
                start_up_to(room, job, cost.optimal_dop, cost)
                continue
            if job.model not in cuts:
                cuts[job.model] = self._cut(job, able)
            for group in cuts[job.model]:
                fits = len(group) in cost.dops and len(group) <= cost.optimal_dop
                if fits and room.start(job, len(group), group):
                    break
        return room.groups

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """Priority, then arrival."""
        del snapshot
        return sorted(jobs, key=order_key)

    def _cut(self, job: JobView, able: Sequence[WorkerView]) -> list[frozenset[WorkerName]]:
        """The fixed groups of the workers that serve a job's model, the largest first."""
        shapes = self.costs.shapes(job.model) or (job.shape,)
        sizes = sorted(self.costs.cost(job.model, shape).optimal_dop for shape in shapes)
        crew = [worker for worker in able if job.model in worker.models]
        groups = [
            group
            for _, node in groupby(crew, key=lambda worker: worker.node)
            for group in _groups([worker.name for worker in node], sizes)
        ]
        return sorted(groups, key=len, reverse=True)


def _groups(names: list[WorkerName], sizes: Sequence[int]) -> Iterator[frozenset[WorkerName]]:
    """*names* cut into groups of *sizes* in turn, until one does not fit any more.

    If not even the first fits, single workers: nobody shall wait for ever.
    """
    start = 0
    for size in cycle(sizes):
        if start + size > len(names):
            break
        yield frozenset(names[start : start + size])
        start += size
    if not start:
        yield from (frozenset({name}) for name in names)

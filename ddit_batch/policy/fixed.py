"""What policies have in common that give every job a group of a size known beforehand, for good.

``static`` and ``partitioned`` say which workers a job may have and how many of them; the rest is
here: groups are kept whole until the video is decoded, jobs start in order, and one that does not
get what it wants keeps those behind it from the workers that it could use, so it cannot starve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ddit_batch.cost_model import CostModel
from ddit_batch.job import Shape, WorkerName
from ddit_batch.policy.base import Decisions, unplaced
from ddit_batch.policy.placement import unchanged
from ddit_batch.snapshot import JobView, Snapshot, WorkerView


@dataclass(frozen=True, slots=True)
class Wish:
    """What a job wants: *dop* workers of one node, *among* some that could take it.

    ``among`` is None for all that serve its model.
    """

    dop: int
    among: frozenset[WorkerName] | None = None


def fixed_groups(
    snapshot: Snapshot, costs: CostModel, wish: Callable[[JobView], Wish | None]
) -> Decisions:
    """Keep every group, then start waiting jobs in order, each with what it wishes.

    *wish* depends on a job's model and shape only; None: it could not get it if all were idle.
    """
    room = unchanged(snapshot, costs, whole=True)
    wishes: dict[tuple[str, Shape], Wish | None] = {}
    for job in unplaced(snapshot):
        if not room.idle:
            break
        kind = (job.model, job.shape)
        if kind not in wishes:
            wishes[kind] = wish(job)
        wanted = wishes[kind]
        if wanted and not room.start(job, wanted.dop, wanted.among):
            room.withhold(room.serving(job.model) if wanted.among is None else wanted.among)
    return room.groups


def most_on_a_node(workers: Iterable[WorkerView]) -> int:
    """The size of the largest group that *workers* could form: groups stay inside a node."""
    return max(Counter(worker.node for worker in workers).values(), default=0)

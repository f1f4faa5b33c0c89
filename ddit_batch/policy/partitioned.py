"""``partitioned``: every class of shapes has workers of its own.

The rule: the shapes of a model that its profile holds, in order of pixels times frames, are its
classes; a shape that it does not hold belongs to the next larger one, or else to the largest. The
workers that serve the model, in order of node and name, are divided among its classes in proportion
to ``sizes`` (rounded down at each border, so the last class gets what is left); with fewer sizes
than shapes, neighbouring shapes form a class together. A class that is left without workers uses
those of the next larger one. Within its class a job has the dop that ``dops`` gives the class, or
the largest legal one below it that the class's workers could form; jobs start in order (priority,
then arrival), and the whole group is held until the video is decoded. A group that has lost a
worker is given back.

``sizes`` and ``dops`` are lists such as ``2/2/4``, or ``optimal``: the optimal dop B of each shape.

Source: the baselines of the DDiT paper (arXiv 2506.13497), as a secondary note tells them. SPCI,
static partition and cluster isolation: 8 GPUs as 2/2/4 for 144p/240p/360p at dop 1/2/4, here
``sizes=2/2/4,dops=1/2/4``. DPCI, the same with sizes that come from B, 1/2/4 with one GPU left
over, here ``sizes=optimal``: the odd one falls to the last class, which cannot use it. The
generalisation to other numbers, and first come first served, are ours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from ddit_batch.cost_model import CostModel
from ddit_batch.job import Shape
from ddit_batch.policy.base import Decisions, dit_workers
from ddit_batch.policy.fixed import Wish, fixed_groups, most_on_a_node
from ddit_batch.snapshot import JobView, Snapshot, WorkerView, order_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioned:
    """The policy; an empty tuple stands for ``optimal``."""

    costs: CostModel
    sizes: tuple[int, ...] = ()
    """How many workers each class has, relative to the others; the smallest shapes first."""
    dops: tuple[int, ...] = ()
    """The dop of each class; the last of them also stands for those that are missing."""

    @property
    def name(self) -> str:
        """The spec by which settings choose it."""
        sizes, dops = ("/".join(map(str, part)) for part in (self.sizes, self.dops))
        return f"partitioned:sizes={sizes or 'optimal'},dops={dops or 'optimal'}"

    def plan(self, snapshot: Snapshot) -> Decisions:
        """Keep every group, then fill idle workers of each class in order."""
        able = sorted(dit_workers(snapshot), key=lambda worker: (worker.node, worker.name))

        def wish(job: JobView) -> Wish | None:
            crew = [worker for worker in able if job.model in worker.models]
            if not crew:
                return None
            number, own = self._class(job, crew)
            cost = self.costs.cost(job.model, job.shape)
            dop = self.dops[min(number, len(self.dops) - 1)] if self.dops else cost.optimal_dop
            dop = cost.widest(min(dop, most_on_a_node(own)))
            return Wish(dop, frozenset(worker.name for worker in own))

        return fixed_groups(snapshot, self.costs, wish)

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """Priority, then arrival."""
        del snapshot
        return sorted(jobs, key=order_key)

    def _class(self, job: JobView, crew: Sequence[WorkerView]) -> tuple[int, Sequence[WorkerView]]:
        """The number of a job's class, and those of *crew* that are its own; at least one."""
        shapes = sorted(self.costs.shapes(job.model), key=_size) or [job.shape]
        optimal = tuple(self.costs.cost(job.model, shape).optimal_dop for shape in shapes)
        sizes = (self.sizes or optimal)[: len(shapes)]
        rank = min(bisect_left(shapes, _size(job.shape), key=_size), len(shapes) - 1)
        number = rank * len(sizes) // len(shapes)
        borders = [len(crew) * sum(sizes[:end]) // sum(sizes) for end in range(len(sizes) + 1)]
        start, end = borders[number], next(b for b in borders[number + 1 :] if b > borders[number])
        return number, crew[start:end]


def _size(shape: Shape) -> tuple[int, Shape]:
    """The order of shapes: by pixels times frames, which for one model is the order of tokens."""
    return shape.height * shape.width * shape.num_frames, shape

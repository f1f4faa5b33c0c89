"""``ddit``: the policy of the DDiT paper.

The rule, with B the optimal dop of a job's shape:

1. A waiting job starts as soon as a worker is idle, with min(B, idle) of them, rounded down to a
   legal dop; first come first served (priority, then arrival). Started with less than B it is
   *hungry*.
2. Idle workers promote hungry running jobs, the longest starved first (``starvation.py``), until
   their dop is B; the leader takes them in at its next step boundary.
3. Nobody gets more than B, nobody is shrunk, nobody is preempted. A group that has lost a worker
   goes on with the others, as many of them as are legal.
4. When DiT ends, all workers but the leader are free at once, and the leader decodes alone.

Source: arXiv 2506.13497, of which the full text was not at hand. Told by a secondary note: starting
with min(B, idle), promotion by starvation time, its formula, release at the end of DiT. Inferred:
rounding down, first come first served, that nothing is shrunk or preempted. Not known: whether
hungry jobs or waiting ones come first when workers fall idle. That is ``order``; both readings are
kept, because at high load they are far apart. ``promotion`` and ``decode`` switch rules 2 and 4
off, as the paper's ablations do; with both off this is ``dp``.

Ties: jobs that starved equally long in order of priority, then arrival, which is unique. Which
workers a job gets is told in ``placement.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ddit_batch.cost_model import Cost, CostModel
from ddit_batch.job import JobState
from ddit_batch.policy.base import Decisions, placed, unplaced
from ddit_batch.policy.placement import Placement, start_up_to, unchanged
from ddit_batch.policy.starvation import starvation_s
from ddit_batch.snapshot import JobView, Snapshot, order_key


class Order(StrEnum):
    """Who is given idle workers first."""

    HUNGRY_FIRST = "hungry-first"
    """Running jobs below B, then waiting ones."""
    WAITING_FIRST = "waiting-first"
    """Waiting jobs, then running ones below B."""


class Promotion(StrEnum):
    """Whether running jobs are given more workers."""

    ON = "on"
    """At step boundaries, until they have B: the paper's."""
    OFF = "off"
    """Never: the dop is fixed when a job starts."""


class Decode(StrEnum):
    """Who keeps a job when its DiT phase ends."""

    LEADER = "leader"
    """The leader alone, the others are free: the paper's."""
    GROUP = "group"
    """The whole group, idle but for its leader: what monolithic systems do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ddit:
    """The policy."""

    costs: CostModel
    order: Order = Order.HUNGRY_FIRST
    promotion: Promotion = Promotion.ON
    decode: Decode = Decode.LEADER

    @property
    def name(self) -> str:
        """The spec by which settings choose it."""
        words = [f"order={self.order}"]
        words += [f"promotion={self.promotion}"] if self.promotion is not Promotion.ON else []
        words += [f"decode={self.decode}"] if self.decode is not Decode.LEADER else []
        return f"ddit:{','.join(words)}"

    def plan(self, snapshot: Snapshot) -> Decisions:
        """Keep every group, decode, then promote and start in the chosen order."""
        room = unchanged(snapshot, self.costs, whole=self._whole)
        if self.order is Order.WAITING_FIRST:
            self._start(snapshot, room)
            self._promote(snapshot, room)
        else:
            self._promote(snapshot, room)
            self._start(snapshot, room)
        return room.groups

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """Priority, then arrival."""
        del snapshot
        return sorted(jobs, key=order_key)

    def explain(self, snapshot: Snapshot, job: JobView) -> tuple[str, ...]:
        """Its B, and its place among the hungry jobs: for ``ddit explain``."""
        best = self._cost(job).optimal_dop
        hungry = self._hungry(snapshot, unchanged(snapshot, self.costs, whole=self._whole))
        if job.state is not JobState.DENOISING:
            starts = (
                f"ddit starts it with its optimal dop {best}, or with the workers that are idle"
            )
            if self.promotion is Promotion.OFF or self.order is Order.WAITING_FIRST or not hungry:
                return (f"{starts}.",)
            count = "1 running job" if len(hungry) == 1 else f"{len(hungry)} running jobs"
            return (f"{starts}, after {count} below the optimal dop (order={self.order}).",)
        if job.dop >= best:
            return (f"ddit gives no job more than its optimal dop, which is {best}.",)
        if self.promotion is Promotion.OFF:
            return ("With promotion=off ddit never changes the dop of a running job.",)
        if job not in hungry:
            return ()
        rest = ", after waiting jobs" if self.order is Order.WAITING_FIRST else ""
        said = (
            f"ddit gives idle workers to jobs below their optimal dop, the longest starved first"
            f"{rest}: it is number {hungry.index(job) + 1} of {len(hungry)}."
        )
        return (said,)

    @property
    def _whole(self) -> bool:
        return self.decode is Decode.GROUP

    def _promote(self, snapshot: Snapshot, room: Placement) -> None:
        """Widen hungry jobs towards B, the longest starved first."""
        if self.promotion is Promotion.OFF or not room.idle:
            return
        for job in self._hungry(snapshot, room):
            cost = self._cost(job)
            dop = cost.widest(min(cost.optimal_dop, room.widest(job)))
            if dop > len(room.groups[job.job_id]):
                room.widen(job, dop)

    def _hungry(self, snapshot: Snapshot, room: Placement) -> list[JobView]:
        """The running jobs that may grow, the longest starved first."""
        hungry = [
            (-starvation_s(job, self._cost(job)), order_key(job), job)
            for job in placed(snapshot)
            if self._may_grow(job, room)
        ]
        return [job for _, _, job in sorted(hungry)]

    def _may_grow(self, job: JobView, room: Placement) -> bool:
        """Whether a job runs below B, and not on its way to a smaller group or its end."""
        group = room.groups.get(job.job_id, ())
        return (
            job.state is JobState.DENOISING
            and not job.cancel_requested
            and 0 < len(group) < self._cost(job).optimal_dop
            and set(job.group) <= set(group)
        )

    def _start(self, snapshot: Snapshot, room: Placement) -> None:
        """Start waiting jobs in order, each with up to B workers."""
        for job in unplaced(snapshot):
            if not room.idle:
                return
            cost = self._cost(job)
            start_up_to(room, job, cost.optimal_dop, cost)

    def _cost(self, job: JobView) -> Cost:
        return self.costs.cost(job.model, job.shape)

"""``elastic``: ours. Short jobs first, wide groups while workers are plenty, narrow ones in a rush.

The rule, at every decision, for all jobs that could be denoised now, running or waiting:

1. *Order.* Overdue jobs first, in order of arrival. Then by priority; then by turns, one job of
   each batch after the other (by its share), so that batches that want more than there is get equal
   GPU-seconds for equal shares, and a batch with a deadline the workers that it needs. Within a
   turn the shortest remaining first, where a job counts as shorter the later it is: its predicted
   latency over what is slow of late. All jobs of a batch are equally late, so inside a batch it is
   shortest remaining first, which is best for the mean and costs the end nothing.
2. *Width.* In that order each job takes the dop k that minimises ``w R(k) + p k R(k)``: its own
   remaining seconds at weight w, and its remaining GPU-seconds at price p. The weight rises with
   its lateness and with its size: a large job is the one that will be late, and splits best. The
   price is what a GPU-second costs others: the jobs behind it and those still to come, who are
   taken to be a few, and more the more jobs are at hand; over the number of workers, and times
   (1 - load)^-g, because a queue that is longer is so for longer. A late job behind counts hardly
   more than another (what helps it is to be wide itself), but one of the same batch in full. So a
   busy cluster runs at dop 1, where nothing is lost to communication, and an idle one at the
   fastest dop, and running jobs shrink and widen as the price moves. A job starts on the node with
   most workers that are in nobody's way, above all such as do nothing now, because others must be
   waited for until their step boundary; where none are, where the last in order has to make room.
3. *Rest.* What is left when all have been served goes back to running jobs that had it, then to
   the largest relative gain a worker, beyond the optimal dop B up to the fastest; where a node has
   workers that nobody there can use, a job from a crowded node is handed over.
4. A resize is not free: the present dop counts as a little better than it is, workers that join
   are charged with the wait for the boundary, and a gain of less than a few steps is none.
5. When DiT ends, all workers but the leader are free at once, and the leader decodes alone.

*The aging bound.* A job that has been here for ``patience`` times its own work (its seconds at dop
1) is overdue. From then on only overdue jobs that came earlier are given workers before it, and
they leave one to each overdue job behind them: so it is given workers by the next decision, unless
as many overdue jobs that came earlier as there are workers are still there. It has them at the next
step boundary of those who must let go, or after the decode of one who has just ended: within two
steps and a decode (``tests/simulator/test_aging.py``).

Sources. Order: shortest remaining processing time (Schrage 1968), weighted as Smith's rule has it.
Width: the trade of latency against work for jobs with sublinear speed-up, of which heSRPT (Berg,
Vesilo, Harchol-Balter 2020) is the exact answer for one batch of a single speed-up curve; the price
is ours. From the DDiT paper (arXiv 2506.13497): groups change at step boundaries, the DiT phase
gives its workers back before the decode, and lost time brings a job forward; its starvation time
looks backward from the last grant, our lateness at the whole latency, past and predicted. What was
tried, and the figures: ``docs/elastic.md``.

Ties end with the order of arrival, which is unique.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ddit_batch.cost_model import CostModel
from ddit_batch.job import JobId, JobState, WorkerName
from ddit_batch.policy.base import Decisions, to_decode
from ddit_batch.policy.elastic_dops import Shares
from ddit_batch.policy.elastic_rank import Ranked, rank
from ddit_batch.policy.elastic_tuning import Tuning
from ddit_batch.policy.elastic_words import WatchedShares, words
from ddit_batch.policy.least_cost import LeastCost
from ddit_batch.policy.placement import Placement
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts, order_key

# A member of an enum costs more to look up than to compare.
_DENOISING, _ENCODED = JobState.DENOISING, JobState.ENCODED
_NO_MESSAGE = Whereabouts.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """The policy."""

    costs: CostModel
    tuning: Tuning = field(default_factory=Tuning)
    least_cost: LeastCost = field(init=False, repr=False, compare=False)
    """Remembers answers, not decisions: it follows from ``tuning`` alone."""

    def __post_init__(self) -> None:
        tuning = self.tuning
        least_cost = LeastCost(keep=tuning.keep, idle_steps=0.5 * tuning.idle_step)
        object.__setattr__(self, "least_cost", least_cost)

    @property
    def name(self) -> str:
        """The spec by which settings choose it."""
        return "elastic"

    def plan(self, snapshot: Snapshot) -> Decisions:
        """Leave alone what cannot be changed, decode, then share the rest."""
        place, ranked = self.prepared(snapshot)
        rooms, load = place.idle_workers(), snapshot.recent.load
        shares = Shares(rooms, self.tuning, load, self.least_cost)
        self._place(place, shares, shares.give(ranked))
        return place.groups

    def explain(self, snapshot: Snapshot, job: JobView) -> tuple[str, ...]:
        """Its place in the order, the price, what its dops cost: for ``ddit explain``."""
        place, ranked = self.prepared(snapshot)
        if not is_movable(job):
            return ()
        rooms, load = place.idle_workers(), snapshot.recent.load
        shares = WatchedShares(rooms, self.tuning, load, self.least_cost, watched=job)
        shares.give(ranked)
        return words(job, snapshot, ranked, shares)

    def prepared(self, snapshot: Snapshot) -> tuple[Placement, list[Ranked]]:
        """What is left when all that cannot be changed has its workers, and for whom, in order."""
        place = Placement(snapshot)
        movable: list[JobView] = []
        fixed: list[JobView] = []
        for job in snapshot.jobs:
            if is_movable(job):
                movable.append(job)
            elif job.group:
                fixed.append(job)
        _hold(place, fixed)
        _decode(place, snapshot, movable)
        return place, rank(movable, snapshot, self.costs, self.tuning)

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """The order of rule 1."""
        return [entry.job for entry in rank(jobs, snapshot, self.costs, self.tuning)]

    def _place(self, place: Placement, shares: Shares, served: list[Ranked]) -> None:
        """Give names to counts: first what jobs keep, then what they are given.

        Jobs that can only have back what is their own choose first; then those that start, who gain
        most by workers that do nothing now.
        """
        names = shares.rooms.names
        own: list[Ranked] = []
        starting: list[Ranked] = []
        wider: list[Ranked] = []
        for entry in _keep_whole(place, served):
            kept = place.keep(entry.job, min(entry.current, entry.dop)) if entry.current else 0
            if not kept:
                starting.append(entry)
            elif kept != entry.dop:
                (wider if entry.most is None else own).append(entry)
        for entry in own:
            _widen(place, entry, names)
        for entry in starting:
            assert entry.room is not None
            place.start_in(entry.job, entry.dop, names[entry.room])
        for entry in wider:
            _widen(place, entry, names)


def _widen(place: Placement, entry: Ranked, names: Sequence[Sequence[WorkerName]]) -> None:
    """Let a job that has some of its workers have more of its room, as far as there are any."""
    assert entry.room is not None
    had, room = len(place.groups[entry.job.job_id]), names[entry.room]
    dop = entry.cost.widest(min(entry.dop, place.widest(entry.job, room)))
    if dop > had:
        place.widen(entry.job, dop, room)
    elif dop < had:
        place.narrow(entry.job, dop)


def _keep_whole(place: Placement, served: list[Ranked]) -> list[Ranked]:
    """Let running jobs that are to stay as they are do so: most of them, in most plans.

    Returns the others of those that are to have workers, in order.
    """
    staying: dict[JobId, tuple[WorkerName, ...]] = {}
    changing: list[Ranked] = []
    claimed: list[WorkerName] = []
    for entry in served:
        group, job = entry.group, entry.job
        if entry.dop == entry.current == len(group):
            staying[job.job_id] = group
        else:
            changing.append(entry)
            claimed += group
        if group is not job.group:
            claimed += [name for name in job.group if name not in group]
    return changing if place.keep_all(staying, claimed) else served


def is_movable(job: JobView) -> bool:
    """Whether a decision may change the job's workers: it is denoised, or waits to be."""
    state = job.state
    if state is _DENOISING:
        return bool(job.group) and not job.cancel_requested
    return (
        state is _ENCODED
        and not job.group
        and job.message is _NO_MESSAGE
        and not job.cancel_requested
    )


def _hold(place: Placement, fixed: list[JobView]) -> None:
    """Keep or withhold the workers of jobs that are not to be moved."""
    for job in sorted(fixed, key=order_key):
        kept = place.keep(job)
        if kept < len(job.group) or job.pending is not None:
            place.withhold((*job.group, *job.next_group))


def _decode(place: Placement, snapshot: Snapshot, movable: Sequence[JobView]) -> None:
    """Place denoised jobs: on idle workers, or on one that a wider group can spare.

    A leader is not taken away from its job: a worker is free sooner than that would pay.
    """
    waiting = to_decode(snapshot)
    if not waiting:
        return
    leaders = {job.group[0] for job in movable if job.group}
    busy = leaders.union(*(job.group + job.next_group for job in movable))
    for job in waiting:
        if not place.decode(job, whole=False, sparing=busy):
            place.decode(job, whole=False, sparing=leaders)

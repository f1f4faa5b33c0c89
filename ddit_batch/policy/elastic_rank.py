"""``elastic``, first half: what a job weighs, and who comes first.

Pure. The rule is told at the head of ``elastic.py``; this file is its order, ``elastic_dops.py``
its number of workers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from ddit_batch.cost_model import Cost, CostModel
from ddit_batch.policy.elastic_tuning import MIDDLE_LOAD, Tuning
from ddit_batch.policy.roster import Room
from ddit_batch.snapshot import BatchView, JobView, Recent, Snapshot

MAX_LOAD = 0.97
"""A load above this counts as this: the price of a worker has a pole at 1."""
MAX_LATENESS = 50.0
"""Likewise: a number that is raised to a power must end somewhere."""
LEAST_POWER = 0.02
"""Powers that change with the load become no less: a larger job is never the smaller one."""
SMALLEST = 0.01
"""Likewise: a job is never so small that its own seconds count for nothing."""
DEADLINE_MARGIN = 1.1
"""A batch with a deadline plans to need so much more than its work."""


class Ranked:
    """A job that could be denoised now, while one plan is made.

    A plain class and not a dataclass: a plan for a large window makes thousands of them.
    """

    __slots__ = (
        "cost",
        "current",
        "dop",
        "group",
        "is_overdue",
        "job",
        "left",
        "most",
        "room",
        "size",
        "soonest_s",
        "turn",
        "width_weight",
    )

    def __init__(self, job: JobView, cost: Cost, now_s: float) -> None:
        self.job = job
        self.cost = cost
        self.left = left = cost.left(job.steps - job.step)
        """Seconds to its end by dop; at dop 1 they are its work in GPU-seconds."""
        self.soonest_s = now_s - job.arrived_s + left.fastest_s
        """Its latency if it had its fastest dop from now on."""
        self.group = group = job.group if job.pending is None else job.pending
        """The workers that it has, or will have from its next step boundary."""
        self.current = len(group)
        """How many of them count."""
        self.width_weight: float
        """What a second of its own counts, beside one of the jobs behind it."""
        self.is_overdue = False
        """Whether the aging rule puts it first."""
        self.turn = 0.0
        """How many jobs of its batch come before it, over the batch's share."""
        self.size: float
        """The smallest of a turn comes first: the work left, less for a late job."""
        self.dop = 0
        """Workers that it is to have."""
        self.most: int | None = None
        """It cannot have more where it runs; None: nothing but the workers there limits it."""
        self.room: Room | None = None
        """Where it runs, or is to start."""

    def left_s(self, dop: int) -> float:
        """Seconds to its end at *dop*."""
        return self.left.at[dop]


def scarcity(load: float) -> float:
    """1 / (1 - load): how many seconds of all later waits a second of work now costs.

    Work that comes in delays what comes after it until the queue is empty once; a queue at load
    rho takes 1 / (1 - rho) times the work in it to get there.
    """
    return 1.0 / (1.0 - min(max(load, 0.0), MAX_LOAD))


def rank(
    jobs: Iterable[JobView], snapshot: Snapshot, costs: CostModel, tuning: Tuning
) -> list[Ranked]:
    """*jobs* in the order in which they should be given workers.

    The overdue ones by arrival, then the others by priority, turn, size and arrival.
    """
    now_s, patience = snapshot.now_s, tuning.patience
    known: dict[tuple[str, int], Cost] = {}
    """By model and the identity of the shape: quick to ask, and most jobs share a few shapes."""
    entries: list[Ranked] = []
    batches: dict[str, list[Ranked]] = defaultdict(list)
    overdue: list[Ranked] = []
    for job in jobs:
        kind = job.model, id(job.shape)
        cost = known.get(kind)
        if cost is None:
            cost = known[kind] = costs.cost(job.model, job.shape)
        entry = Ranked(job, cost, now_s)
        entries.append(entry)
        batches[job.batch_id].append(entry)
        # What is not late for the rest of its work is not late for the whole.
        if entry.soonest_s > patience * entry.left.work_s:
            whole_s = cost.left(job.steps).at[1]
            if now_s - job.arrived_s > patience * whole_s:
                entry.is_overdue = True
                overdue.append(entry)
    _weigh(batches, snapshot, tuning)
    _sort(entries)
    if 1 < len(batches) < len(entries):
        _take_turns(entries, snapshot)
        entries.sort(key=_turn)
        _sort_by_priority(entries)
    if not overdue:
        return entries
    overdue.sort(key=attrgetter("job.seq"))
    overdue.sort(key=attrgetter("job.arrived_s"))
    return overdue + [entry for entry in entries if not entry.is_overdue]


def _sort(entries: list[Ranked]) -> None:
    """By priority, then by size, then by arrival, which is unique: the order without turns.

    Sorting is stable; sorts by one attribute each are several times as fast as one by ``key``.
    """
    entries.sort(key=attrgetter("job.seq"))
    entries.sort(key=attrgetter("size"))
    _sort_by_priority(entries)


def _sort_by_priority(entries: list[Ranked]) -> None:
    if len(set(map(_priority, entries))) > 1:
        entries.sort(key=_priority, reverse=True)


_priority = attrgetter("job.priority")
_turn = attrgetter("turn")
_soonest_s = attrgetter("soonest_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """How size and lateness make the order, as busy as it is: see ``Tuning``."""

    size_power: float
    late_scale: float
    late_power: float


def _order_of(recent: Recent, tuning: Tuning) -> _Order:
    usual = 0.2 * scarcity(recent.usual_load)
    now = 0.2 * scarcity(recent.load)
    busier = min(recent.usual_load, MAX_LOAD) - MIDDLE_LOAD
    size_power = tuning.size_power + tuning.size_power_load * busier
    late_power = tuning.late_order_power + tuning.late_order_power_load * busier
    return _Order(
        size_power=max(size_power, LEAST_POWER),
        late_scale=tuning.late_order * usual**tuning.late_order_load * now**tuning.late_order_now,
        late_power=max(late_power, LEAST_POWER),
    )


def _weigh(batches: Mapping[str, Sequence[Ranked]], snapshot: Snapshot, tuning: Tuning) -> None:
    """Set the weights of all jobs, and with them their sizes."""
    slow_s, lateness = _lateness(batches.values(), snapshot.recent.slow_s)
    order = _order_of(snapshot.recent, tuning)
    slow_size = max(slow_s, 0.0) ** order.size_power
    known: dict[int, tuple[float, float, float]] = {}
    """By the identity of what is left, as most jobs share a few."""
    for entries, late in zip(batches.values(), lateness, strict=True):
        late_weight = 1.0 + tuning.late_width * late**tuning.late_width_power
        shorter = 1.0 + order.late_scale * late**order.late_power
        forward = tuning.late_forward * late * slow_size
        for entry in entries:
            left = entry.left
            sizes = known.get(id(left))
            if sizes is None:
                sizes = known[id(left)] = _sizes(left.work_s, slow_s, order.size_power, tuning)
            waiting, running, large = sizes
            entry.size = (running if entry.current else waiting) / shorter - forward
            entry.width_weight = late_weight * large


def _sizes(
    work_s: float, slow_s: float, power: float, tuning: Tuning
) -> tuple[float, float, float]:
    """How large *work_s* makes a job in the order, waiting and running, and for its width."""
    large = min(max(work_s / slow_s, SMALLEST), 1.0) if slow_s > 0.0 else 1.0
    running = max(work_s - tuning.hand_over_s, 0.0) ** power
    return work_s**power, running, large**tuning.large_width


def _lateness(
    batches: Collection[Sequence[Ranked]], slow_s: float | None
) -> tuple[float, list[float]]:
    """What is slow of late, and for each batch the latency that it is heading for, over that.

    One number for all its jobs, because its user wants the whole of it: among themselves they go by
    their size alone. Where nothing is known to be slow, twice what all are heading for is.
    """
    # fsum, because a sum of floats that depends on their order would let decisions do so.
    ends_s = [math.fsum(map(_soonest_s, entries)) / len(entries) for entries in batches]
    if slow_s is None:
        sizes = list(map(len, batches))
        each_s = (end_s for end_s, size in zip(ends_s, sizes, strict=True) for _ in range(size))
        slow_s = 2.0 * math.fsum(each_s) / max(sum(sizes), 1)
    if slow_s <= 0:
        return slow_s, [1.0] * len(ends_s)
    return slow_s, [min(max(end_s / slow_s, 0.0), MAX_LATENESS) for end_s in ends_s]


def _take_turns(entries: Iterable[Ranked], snapshot: Snapshot) -> None:
    """Set the turns: how many jobs of its batch come before each, over the batch's share.

    Jobs in order of their turn are one of each batch, then the next of each: equal numbers of
    workers for equal shares, and so equal GPU-seconds while all want them. A batch with a deadline
    has as many first turns as it needs workers to meet it.
    """
    views = {view.batch_id: view for view in snapshot.batches}
    shares: dict[str, float] = {}
    numbers: dict[str, int] = {}
    for entry in entries:
        batch_id = entry.job.batch_id
        number = numbers.get(batch_id)
        if number is None:
            view = views.get(batch_id) or BatchView(batch_id=batch_id)
            shares[batch_id] = view.share
            number = -needed_workers(view, snapshot.now_s)
        if number > 0:
            entry.turn = number / shares[batch_id]
        numbers[batch_id] = number + 1


def needed_workers(batch: BatchView, now_s: float) -> int:
    """Workers that the batch must have from now on to meet its deadline; 0 without one."""
    if batch.deadline_s is None:
        return 0
    time_left_s = max(batch.deadline_s - now_s, 1.0)
    return math.ceil(DEADLINE_MARGIN * batch.work_s / time_left_s)

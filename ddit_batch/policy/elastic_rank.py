"""``elastic``, first half: what a job weighs, and who comes first.

Pure. The rule is told at the head of ``elastic.py``; this file is its order, ``elastic_dops.py``
its number of workers.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NewType

from ddit_batch.cost_model import Cost, CostModel
from ddit_batch.snapshot import BatchView, JobView, Snapshot

MAX_LOAD = 0.97
"""A load above this counts as this: the price of a worker has a pole at 1."""
MAX_LATENESS = 50.0
"""Likewise: a number that is raised to a power must end somewhere."""
DEADLINE_MARGIN = 1.1
"""A batch with a deadline plans to need so much more than its work."""
_OVERDUE, _IN_TIME = 0, 1

Room = NewType("Room", int)
"""Workers among which a group may be formed: those of one node that serve the same models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The constants of ``elastic``: what they mean, and where the values come from.

    Found by random search over simulated Poisson arrivals at loads 0.5 to 0.95 on three published
    profiles (DDiT on 8 GPUs, HunyuanVideo on 8 and 32, CogVideoX1.5 on 32), on seeds that no figure
    of ours is reported for; ``docs/elastic.md`` tells what was tried.
    """

    price: float = 0.86
    """Seconds that a GPU-second costs those who wait, for each job behind and worker, at load 0."""
    price_power: float = 1.85
    """How it rises with the load: by ``(1 - load) ** -price_power``."""
    late_order: float = 2.82
    """How much a late job comes forward ..."""
    late_order_power: float = 3.2
    """... by this power of its lateness ..."""
    late_order_load: float = 1.7
    """... and by this power of 0.2 / (1 - usual load)."""
    late_width: float = 7.9
    """How much more a late job's own seconds count when its dop is chosen ..."""
    late_width_power: float = 3.9
    """... by this power of its lateness."""
    size_power: float = 0.63
    """Shortest remaining first by this power of the work left; 1 is the plain rule."""
    keep: float = 1.09
    """A running job's present dop counts as so much better than it is: resizing has a price."""
    idle_step: float = 2.35
    """Steps for which workers that join stand idle, waiting for the boundary, on average."""
    gain_power: float = 1.36
    """Idle workers go to the largest gain over this power of the time left."""
    min_gain_steps: float = 2.15
    """They go to nobody who would gain less than so many of its present steps."""
    hand_over_s: float = 1.0
    """What giving a job back and starting it again costs: a checkpoint, a message, a read. Running
    jobs count as so much shorter, so that none is preempted for less. Measured: 0.4 s from a
    release to the next job's first step (tiny model, 2 CPU cores, November 2026); larger models
    have larger states."""
    patience: float = 50.0
    """A job that has been here for so many times its own work is overdue."""


class Ranked:
    """A job that could be denoised now, while one plan is made.

    A plain class and not a dataclass: a plan for a large window makes thousands of them.
    """

    __slots__ = (
        "cost",
        "current",
        "dop",
        "job",
        "key",
        "most",
        "room",
        "size",
        "soonest_s",
        "steps_left",
        "width_weight",
        "work_s",
    )

    def __init__(self, job: JobView, cost: Cost, now_s: float) -> None:
        steps_left = job.steps - job.step
        self.job = job
        self.cost = cost
        self.steps_left = steps_left
        self.work_s = steps_left * cost.step_s[0] + cost.decode_s
        """GPU-seconds that it still needs at dop 1, its decode included."""
        self.soonest_s = now_s - job.arrived_s + steps_left * cost.fastest_s + cost.decode_s
        """Its latency if it had its fastest dop from now on."""
        self.current = len(job.group if job.pending is None else job.pending)
        """Workers that it has, or will have from its next step boundary."""
        self.width_weight = 1.0
        """What a second of its own counts, beside one of the jobs behind it."""
        self.size = 0.0
        """The smallest of a turn comes first: the work left, less for a late job."""
        self.key: tuple[float, ...] = ()
        """Its place in the order; the smallest comes first, and no two are equal."""
        self.dop = 0
        """Workers that it is to have."""
        self.most: int | None = None
        """It cannot have more where it runs; None: nothing but the workers there limits it."""
        self.room: Room | None = None
        """Where it runs, or is to start."""

    @property
    def is_overdue(self) -> bool:
        """Whether the aging rule puts it first."""
        return self.key[0] == _OVERDUE

    def left_s(self, dop: int) -> float:
        """Seconds to its end at *dop*."""
        return self.steps_left * self.cost.at(dop) + self.cost.decode_s


def scarcity(load: float) -> float:
    """1 / (1 - load): how many seconds of all later waits a second of work now costs.

    Work that comes in delays what comes after it until the queue is empty once; a queue at load
    rho takes 1 / (1 - rho) times the work in it to get there.
    """
    return 1.0 / (1.0 - min(max(load, 0.0), MAX_LOAD))


def rank(
    jobs: Iterable[JobView], snapshot: Snapshot, costs: CostModel, tuning: Tuning
) -> list[Ranked]:
    """*jobs* in the order in which they should be given workers."""
    now_s, cost_of = snapshot.now_s, costs.cost
    entries = [Ranked(job, cost_of(job.model, job.shape), now_s) for job in jobs]
    _weigh(entries, snapshot, tuning)
    turns = _turns(entries, snapshot)
    for entry in entries:
        job, cost = entry.job, entry.cost
        whole_s = job.steps * cost.step_s[0] + cost.decode_s
        if now_s - job.arrived_s > tuning.patience * whole_s:
            entry.key = (_OVERDUE, job.arrived_s, 0.0, entry.size, job.seq)
        else:
            turn = turns.get(job.seq, 0.0) if turns else 0.0
            entry.key = (_IN_TIME, -job.priority, turn, entry.size, job.seq)
    entries.sort(key=_key)
    return entries


_key = attrgetter("key")


def _weigh(entries: Sequence[Ranked], snapshot: Snapshot, tuning: Tuning) -> None:
    """Set the weights of all jobs, and with them their sizes."""
    lateness = _lateness(entries, snapshot.recent.slow_s)
    scarce = scarcity(snapshot.recent.usual_load)
    scale = tuning.late_order * (0.2 * scarce) ** tuning.late_order_load
    order_power, width_power = tuning.late_order_power, tuning.late_width_power
    for entry, late in zip(entries, lateness, strict=True):
        entry.width_weight = 1.0 + tuning.late_width * late**width_power
        saved_s = tuning.hand_over_s if entry.current else 0.0
        size = max(entry.work_s - saved_s, 0.0) ** tuning.size_power
        entry.size = size / (1.0 + scale * late**order_power)


def _lateness(entries: Sequence[Ranked], slow_s: float | None) -> list[float]:
    """For each job: the latency that its batch is heading for, over what is slow of late.

    One number for all jobs of a batch, whose user wants the whole of it: among themselves they go
    by their size alone.
    """
    ends_s = [entry.soonest_s for entry in entries]
    size = Counter(entry.job.batch_id for entry in entries)
    if len(size) < len(entries):
        of_batch: dict[str, list[float]] = defaultdict(list)
        for entry in entries:
            of_batch[entry.job.batch_id].append(entry.soonest_s)
        # fsum, because a sum of floats that depends on their order would let decisions do so.
        mean_s = {batch: math.fsum(found) / len(found) for batch, found in of_batch.items()}
        ends_s = [mean_s[entry.job.batch_id] for entry in entries]
    if slow_s is None:
        slow_s = 2.0 * math.fsum(ends_s) / max(len(ends_s), 1)
    if slow_s <= 0:
        return [1.0] * len(ends_s)
    return [min(max(end_s / slow_s, 0.0), MAX_LATENESS) for end_s in ends_s]


def _turns(entries: Sequence[Ranked], snapshot: Snapshot) -> dict[int, float]:
    """By ``seq``: how many jobs of its batch come before it, over the batch's share.

    Jobs in order of their turn are one of each batch, then the next of each: equal numbers of
    workers for equal shares, and so equal GPU-seconds while all want them. A batch with a deadline
    has as many first turns as it needs workers to meet it. Jobs that are left out have turn 0.
    """
    size = Counter(entry.job.batch_id for entry in entries)
    if len(size) <= 1:
        return {}
    views = {view.batch_id: view for view in snapshot.batches}
    members: dict[str, list[Ranked]] = defaultdict(list)
    for entry in entries:
        if size[entry.job.batch_id] > 1:
            members[entry.job.batch_id].append(entry)
    turns: dict[int, float] = {}
    for batch_id, jobs in members.items():
        view = views.get(batch_id, BatchView(batch_id=batch_id))
        first = needed_workers(view, snapshot.now_s)
        jobs.sort(key=lambda entry: (-entry.job.priority, entry.size, entry.job.seq))
        for number, entry in enumerate(jobs):
            turns[entry.job.seq] = max(0, number - first) / view.share
    return turns


def needed_workers(batch: BatchView, now_s: float) -> int:
    """Workers that the batch must have from now on to meet its deadline; 0 without one."""
    if batch.deadline_s is None:
        return 0
    time_left_s = max(batch.deadline_s - now_s, 1.0)
    return math.ceil(DEADLINE_MARGIN * batch.work_s / time_left_s)

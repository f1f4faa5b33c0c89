"""What ``elastic`` says of a job, for ``ddit explain``: place, price, dops, and what came of it.

Pure. The plan is made again, by the same code, with an eye on the job. Where the rule is told:
``elastic.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddit_batch.durations import shown_duration
from ddit_batch.policy.elastic_dops import Shares
from ddit_batch.policy.elastic_rank import Ranked, needed_workers
from ddit_batch.policy.elastic_tuning import Tuning
from ddit_batch.policy.least_cost import LeastCost
from ddit_batch.policy.roster import Rooms
from ddit_batch.snapshot import BatchView, JobView, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What a job's dop was chosen from when its turn came."""

    most: int
    """Workers that it could have then."""
    price: float
    """What one of its GPU-seconds cost those behind it and still to come, in weighted seconds."""
    dop: int
    """The dop of least cost."""


class WatchedShares(Shares):
    """The shares of one plan, which remember how one job's dop was chosen."""

    def __init__(
        self, rooms: Rooms, tuning: Tuning, load: float, least_cost: LeastCost, *, watched: JobView
    ) -> None:
        super().__init__(rooms, tuning, load, least_cost)
        self._watched = watched
        self.weighed: Weighed | None = None
        """None: nothing was left when its turn came."""

    def _best_dop(self, entry: Ranked, most: int, price: float) -> int:
        dop = super()._best_dop(entry, most, price)
        if entry.job.seq == self._watched.seq:
            self.weighed = Weighed(most=most, price=price, dop=dop)
        return dop

    def serving(self, model: str) -> int:
        """Workers of the plan that serve *model*, whoever they go to."""
        rooms = zip(self.rooms.sizes, self.rooms.serves, strict=True)
        return sum(size for size, models in rooms if model in models)

    def is_in_a_room_for(self, entry: Ranked, model: str) -> bool:
        """Whether a job is given workers that *model* could have had."""
        return entry.dop > 0 and entry.room is not None and model in self._serves[entry.room]


def words(
    job: JobView, snapshot: Snapshot, ranked: Sequence[Ranked], shares: WatchedShares
) -> tuple[str, ...]:
    """Sentences on *job*, one of *ranked*, after *shares* were given to all of them."""
    entry = next(entry for entry in ranked if entry.job.seq == job.seq)
    weighed = shares.weighed
    said = [_place(entry, ranked, snapshot)]
    if weighed is None:
        return (*said, _left_out(entry, ranked, shares))
    load = snapshot.recent.load
    behind = len(ranked) - ranked.index(entry) - 1
    said.append(
        f"At load {load:.2f}, with {_counted(behind, 'job')} behind it and others to come, each of "
        f"its GPU-seconds counts {weighed.price:.3g}, and each second of its own "
        f"{entry.width_weight:.3g}."
    )
    said.append(_dops(entry, weighed))
    return (*said, *_outcome(entry, weighed, shares))


def _place(entry: Ranked, ranked: Sequence[Ranked], snapshot: Snapshot) -> str:
    """Which in the order it is, and by what."""
    job, cost = entry.job, entry.cost
    said = f"In the order of elastic it is number {ranked.index(entry) + 1} of {len(ranked)}"
    waited = shown_duration(max(0.0, snapshot.now_s - job.arrived_s))
    if entry.is_overdue:
        whole = shown_duration(job.steps * cost.at(1) + cost.decode_s)
        return (
            f"{said}: it is overdue, here for {waited} with {whole} of work, and overdue jobs come "
            f"first, in order of arrival."
        )
    reasons = [f"priority {job.priority}"]
    batch = next((b for b in snapshot.batches if b.batch_id == job.batch_id), None)
    batch = batch or BatchView(batch_id=job.batch_id)
    turn, size = entry.turn, entry.size
    if len({other.job.batch_id for other in ranked}) > 1:
        share = f"share {batch.share:g}"
        if batch.deadline_s is not None:
            needed = needed_workers(batch, snapshot.now_s)
            share += f", {_counted(needed, 'worker')} needed for its deadline"
        reasons.append(f"{turn:.3g} turns of its batch before its own ({share})")
    reasons.append(
        f"size {size:.3g}, from {shown_duration(entry.left_s(1))} of work left at dop 1, and less "
        f"the later it is: here for {waited}"
    )
    slow_s = snapshot.recent.slow_s
    if slow_s is not None:
        reasons[-1] += f", where 19 of 20 jobs ended within {shown_duration(slow_s)} of late"
    return f"{said}: {'; '.join(reasons)}."


def _dops(entry: Ranked, weighed: Weighed) -> str:
    """What each dop that it could have had would cost, and which costs least."""
    costs = [
        f"{dop} costs {entry.left_s(dop) * (entry.width_weight + weighed.price * dop):.3g}"
        for dop in entry.cost.dops
        if dop <= weighed.most
    ]
    said = f"Its seconds and GPU-seconds to the end, so weighted: dop {', '.join(costs)}"
    beyond = [dop for dop in entry.cost.dops if dop > weighed.most]
    if beyond:
        said += (
            f" (dop {beyond[0]} is more than the {_counted(weighed.most, 'worker')} left for it)"
        )
    said += f"; dop {weighed.dop} is chosen"
    if entry.current and weighed.most > 1:
        said += f", where staying at dop {entry.current} counts as a little better, as no resize"
    return f"{said}."


def _outcome(entry: Ranked, weighed: Weighed, shares: WatchedShares) -> list[str]:
    """What became of that when all had been served."""
    said = []
    if entry.dop > weighed.dop:
        said.append(f"When all had been served, workers were left: it is given dop {entry.dop}.")
    leader = entry.job.group[:1]
    if leader and shares.rooms.of.get(leader[0]) != entry.room:
        said.append("It is handed over: it gives its workers back, and goes on on others.")
    return said


def _left_out(entry: Ranked, ranked: Sequence[Ranked], shares: WatchedShares) -> str:
    model = entry.job.model
    serving = shares.serving(model)
    if not serving:
        return f"No worker that elastic may give away now serves {model}."
    takers = sum(shares.is_in_a_room_for(other, model) for other in ranked)
    if entry.dop:
        return f"It is given dop {entry.dop}, which a job that goes on elsewhere has left."
    gets = "It gets no workers" if not entry.job.group else "It is to give its workers back"
    workers = f"all {serving} workers that serve" if serving > 1 else "the one worker that serves"
    verb = "go" if serving > 1 else "goes"
    before = f"the {takers} jobs" if takers > 1 else "the one job"
    return f"{gets}: {workers} {model} {verb} to {before} before it."


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"

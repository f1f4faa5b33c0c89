"""``elastic``, second half: how many workers each job is to have, and on which node.

Pure. Counts only; names are given out by ``placement.py``. A ``Shares`` is made for one plan and
thrown away with it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import attrgetter

from ddit_batch.job import WorkerName
from ddit_batch.policy.elastic_rank import Ranked, scarcity
from ddit_batch.policy.elastic_tuning import Tuning
from ddit_batch.policy.least_cost import LeastCost
from ddit_batch.policy.roster import Room, Rooms

_width_weight = attrgetter("width_weight")
_batch_id = attrgetter("job.batch_id")


def weights_behind(ranked: Sequence[Ranked], beyond: float) -> list[float]:
    """For each of *ranked*, which are in order, the weight of all jobs behind it.

    A job counts 1, and *beyond* of what its own seconds count above that; those of the same batch
    in full: they are as late, and its user waits for them too.
    """
    backwards = ranked[::-1]
    weights = list(map(_width_weight, backwards))
    behind = list(accumulate(weights, initial=0.0))[:-1]
    batch_ids = list(map(_batch_id, backwards))
    batches = len(set(batch_ids))
    if batches > 1:
        behind = [number + beyond * (weight - number) for number, weight in enumerate(behind)]
    if 1 < batches < len(ranked):
        more: dict[str, float] = defaultdict(float)
        for number, (weight, batch_id) in enumerate(zip(weights, batch_ids, strict=True)):
            behind[number] += more[batch_id]
            more[batch_id] += (1.0 - beyond) * (weight - 1.0)
    return behind[::-1]


class Shares:
    """The workers of one plan by room, used up as they are given away."""

    def __init__(self, rooms: Rooms, tuning: Tuning, load: float, least_cost: LeastCost) -> None:
        self._tuning = tuning
        self._least_cost = least_cost
        self._price = tuning.price * scarcity(load) ** tuning.price_power
        self.rooms = rooms
        """The workers that are to be given away."""
        self._serves = rooms.serves
        self._left = list(rooms.sizes)
        self._workers = len(rooms.of)
        self._loose = list(rooms.sizes)
        """Of ``_left``, what no running job that is still to be served has, or will have."""
        self._free = list(rooms.sizes)
        """Of ``_left``, who works on nothing now: a job that is given them starts at once."""
        self._last = [-1] * len(rooms.sizes)
        """By room: the last in order of the jobs that run there; -1 for none."""
        self._heaps: dict[str, list[tuple[int, int, Room]]] = {}
        """For each model that was asked for: its rooms by ``_place``, the best first.

        A room may be worse than its place says, but not better.
        """

    def give(self, ranked: Sequence[Ranked]) -> list[Ranked]:
        """Decide the dop and the room of every job of *ranked*, which are in order.

        Returns those that are to have workers, in order.
        """
        self._find(ranked)
        served, shrunk = self._give_in_order(ranked)
        if any(self._left):
            self._give_back(shrunk)
            served = self._widen_and_move(ranked, served)
        return served

    def _find(self, ranked: Sequence[Ranked]) -> None:
        """Note where running jobs are, and with how many workers there.

        What comes behind a worker that is gone, drains or serves other models does not count.
        """
        room_of, loose, free, last = self.rooms.of.get, self._loose, self._free, self._last
        for number, entry in enumerate(ranked):
            current, group, had = entry.current, entry.group, entry.job.group
            room = room_of(group[0]) if current else None
            if room is None:
                entry.current = 0  # it waits, or is to stop, or its leader is gone or drains
                if had:
                    self._note_at_work(had)
                continue
            entry.room = room
            changes = group is not had
            if current > 1 and list(map(room_of, group)).count(room) != current:
                current = next(n for n, name in enumerate(group) if room_of(name) != room)
                entry.current, changes = current, True
            loose[room] -= current
            last[room] = number
            if not changes:
                free[room] -= current
                continue
            self._note_at_work(had)
            if not set(had) <= {*group[:current]}:
                # It loses some first: a group does not change by halves (policy/base.py).
                entry.most = list(map(room_of, had)).count(room)

    def _note_at_work(self, names: Iterable[WorkerName]) -> None:
        for name in names:
            room = self.rooms.of.get(name)
            if room is not None:
                self._free[room] -= 1

    # in order

    def _give_in_order(self, ranked: Sequence[Ranked]) -> tuple[list[Ranked], list[Ranked]]:
        """Each job in turn takes the dop that is best for it and those behind it.

        Of two overdue jobs the first leaves a worker to the second. Returns those that are to have
        workers, and those of them that are to have fewer than now, in order.
        """
        left_in, best_dop = self._left, self._best_dop
        left = sum(left_in)
        served: list[Ranked] = []
        shrunk: list[Ranked] = []
        if not left:
            return served, shrunk
        tuning = self._tuning
        to_come = tuning.price_to_come + tuning.price_at_hand * len(ranked)
        behind = weights_behind(ranked, tuning.behind_weight)
        prices = [self._price * (weight + to_come) / self._workers for weight in behind]
        in_time = (number for number, entry in enumerate(ranked) if not entry.is_overdue)
        overdue = next(in_time, len(ranked))
        for number, (entry, price) in enumerate(zip(ranked, prices, strict=True)):
            if not left:
                break
            current = entry.current
            room = entry.room if current else self._roomiest(entry.job.model)
            if room is not None and not left_in[room]:
                # Others come first where it runs: it is given back, and goes on elsewhere.
                self._take(entry, room, 0)
                current = entry.current = 0
                entry.most = None
                room = self._roomiest(entry.job.model)
            if room is None:
                continue
            entry.room, most = room, left_in[room]
            if entry.most is not None and entry.most < most:
                most = entry.most
            if number < overdue:
                most = max(1, min(most, left_in[room] - (overdue - number - 1)))
            dop = entry.dop = best_dop(entry, most, price)
            served.append(entry)
            left -= dop
            if dop == current and entry.group is entry.job.group:
                left_in[room] -= dop
                continue
            self._take(entry, room, dop)
            if dop < current:
                shrunk.append(entry)
        return served, shrunk

    def _best_dop(self, entry: Ranked, most: int, price: float) -> int:
        """The dop of least cost: the job's own time, weighted, and its GPU-seconds at *price*."""
        return self._least_cost.dop(entry.left, entry.current, most, entry.width_weight, price)

    def _take(self, entry: Ranked, room: Room, dop: int) -> None:
        """*dop* workers of *room* are for this job; it needs no others that it has there.

        What it does not have already comes first from those that work on nothing.
        """
        current = entry.current
        self._left[room] -= dop
        joining = dop - len(entry.job.group) if current else dop
        if joining > 0:
            self._free[room] = max(self._free[room] - joining, 0)
        if dop != current:
            self._loose[room] -= dop - current
        if dop < current:
            for model, heap in self._heaps.items():
                if model in self._serves[room]:
                    heapq.heappush(heap, self._place(room))

    def _place(self, room: Room) -> tuple[int, int, Room]:
        """Where a room comes among those that a job could go to; the smallest is the best.

        First where most workers are in nobody's way, above all such as work on nothing now; where
        none is, others come away worst where the last in order is hurt.
        """
        roomy = max(self._loose[room], 0) + self._free[room]
        if roomy > 0:
            return (-roomy, -self._left[room], room)
        return (0, -self._last[room], room)

    def _roomiest(self, model: str) -> Room | None:
        """The best room for *model*; None: all are full."""
        heap = self._heaps.get(model)
        if heap is None:
            serving = (r for r, models in enumerate(self._serves) if model in models)
            heap = [self._place(Room(room)) for room in serving]
            heapq.heapify(heap)
            self._heaps[model] = heap
        while heap:
            room = heap[0][2]
            if not self._left[room]:
                heapq.heappop(heap)
            elif heap[0] == (place := self._place(room)):
                return room
            else:
                heapq.heapreplace(heap, place)
        return None

    # what is left when all have been served

    def _give_back(self, shrunk: Sequence[Ranked]) -> None:
        """Running jobs keep what they have if nobody needs it: it costs no resize."""
        for entry in shrunk:
            if not self._left[entry.room or 0]:
                continue
            dop = entry.cost.widest(min(entry.current, self._most(entry)))
            if entry.cost.at(dop) <= entry.cost.at(entry.dop):
                self._set(entry, dop)

    def _widen_and_move(self, ranked: Sequence[Ranked], served: list[Ranked]) -> list[Ranked]:
        """Idle workers widen the jobs of their room; those of no use there take over another job.

        The job that gains most by it; its old workers are for those who have none, or may widen
        its neighbours. Each time fewer workers idle than before. Returns who is served then.
        """
        hopeful = self._hopeful(served)
        self._widen(hopeful)
        while (move := self._best_move(hopeful)) is not None:
            entry, room, dop = move
            self._set(entry, 0)
            left = entry.room
            entry.room, entry.current, entry.most = room, 0, None
            self._set(entry, dop)
            self._let_in(ranked, left)
            served = [entry for entry in ranked if entry.dop]
            hopeful = self._hopeful(served)
            self._widen(hopeful)
        return served

    def _hopeful(self, served: Sequence[Ranked]) -> list[Ranked]:
        """Those to whom more workers might be worth a resize, if they had as many as they liked."""
        hopeful = []
        min_gain_steps = self._tuning.min_gain_steps
        for entry in served:
            dop, cost = entry.dop, entry.cost
            if dop < cost.fastest_dop:
                left = entry.left
                saved_s = left.at[dop] - left.fastest_s
                if dop != entry.current or saved_s > min_gain_steps * cost.at(dop):
                    hopeful.append(entry)
        return hopeful

    def _widen(self, hopeful: Sequence[Ranked]) -> None:
        """Idle workers go where they gain most, one job at a time."""
        heap = []
        for number, entry in enumerate(hopeful):
            if self._left[entry.room or 0]:
                gain, dop = self._best_gain(entry)
                if gain > 0.0:
                    heap.append((-gain, number, dop))
        heapq.heapify(heap)
        while heap:
            _, number, dop = heapq.heappop(heap)
            entry = hopeful[number]
            if dop <= self._most(entry):
                self._set(entry, dop)
            gain, dop = self._best_gain(entry)
            if gain > 0.0:
                heapq.heappush(heap, (-gain, number, dop))

    def _best_gain(self, entry: Ranked) -> tuple[float, int]:
        """What more workers gain most, each, and the dop that does; (0, 0) if none is worth it."""
        cost, left, had, current = entry.cost, entry.left, entry.dop, entry.current
        most = self._most(entry)
        if had >= most or had >= cost.fastest_dop:
            return 0.0, 0
        now_s = left.at[had]
        # A saving that is not worth a resize of a running job.
        present_s = cost.at(cost.widest(current)) if current else 0.0
        hardly_s = self._tuning.min_gain_steps * present_s
        if had >= current and now_s - left.fastest_s <= hardly_s:
            return 0.0, 0
        best, best_dop = 0.0, 0
        for dop, left_s, _ in left.by_dop:
            if had < dop <= most:
                saved_s = now_s - left_s
                if saved_s > (hardly_s if dop > current else 0.0):
                    gain = entry.width_weight * saved_s / (dop - had)
                    gain /= now_s**self._tuning.gain_power
                    if gain > best:
                        best, best_dop = gain, dop
        return best, best_dop

    def _let_in(self, ranked: Sequence[Ranked], room: Room | None) -> None:
        """Jobs whose model nobody else serves may have been left out: *room* has workers again."""
        assert room is not None
        for entry in ranked:
            if not self._left[room]:
                return
            if not entry.dop and entry.job.model in self._serves[room]:
                entry.room = room
                self._set(entry, 1)

    def _best_move(self, hopeful: Sequence[Ranked]) -> tuple[Ranked, Room, int] | None:
        """Which job would gain most by going where: of seconds left, the share that it saves."""
        widest = max(self._left)
        if widest <= 1:
            return None  # nobody has less than one worker
        rooms: list[Room] = []
        best, best_share = None, 0.0
        min_gain_steps, hand_over_s = self._tuning.min_gain_steps, self._tuning.hand_over_s
        for entry in hopeful:
            had, cost, left = entry.dop, entry.cost, entry.left
            if not 0 < had < widest or had >= cost.fastest_dop:
                continue
            now_s = left.at[had]
            enough_s = max(min_gain_steps * cost.at(had) + hand_over_s, best_share * now_s)
            if now_s - left.fastest_s <= enough_s:
                continue
            rooms = rooms or self._roomiest_first()
            room = self._roomiest_but(entry, rooms)
            if room is None:
                continue
            dop = cost.fastest(self._left[room])
            saved_s = now_s - left.at[dop]
            if saved_s > enough_s:
                best, best_share = (entry, room, dop), saved_s / now_s
        return best

    def _roomiest_first(self) -> list[Room]:
        rooms = map(Room, range(len(self._left)))
        return sorted(rooms, key=self._left.__getitem__, reverse=True)

    def _roomiest_but(self, entry: Ranked, rooms: Sequence[Room]) -> Room | None:
        """The first of *rooms*, most workers first, that could take the job over."""
        for room in rooms:
            if not self._left[room]:
                return None
            if room != entry.room and entry.job.model in self._serves[room]:
                return room
        return None

    def _most(self, entry: Ranked) -> int:
        """The most workers that it could have where it is."""
        assert entry.room is not None
        most = entry.dop + self._left[entry.room]
        return most if entry.most is None else min(most, entry.most)

    def _set(self, entry: Ranked, dop: int) -> None:
        assert entry.room is not None
        self._left[entry.room] -= dop - entry.dop
        entry.dop = dop

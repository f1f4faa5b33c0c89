"""``elastic``, second half: how many workers each job is to have, and on which node.

Pure. Counts only; names are given out by ``placement.py``. A ``Shares`` is made for one plan and
thrown away with it.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate

from ddit_batch.cost_model import Cost
from ddit_batch.job import WorkerName
from ddit_batch.policy.elastic_rank import Ranked, Room, Tuning, scarcity
from ddit_batch.snapshot import WorkerView


class Shares:
    """The workers of one plan by room, used up as they are given away."""

    def __init__(self, workers: Iterable[WorkerView], tuning: Tuning, load: float) -> None:
        self._tuning = tuning
        self._keep, self._idle_step = tuning.keep, 0.5 * tuning.idle_step
        self._price = tuning.price * scarcity(load) ** tuning.price_power
        alike: dict[tuple[str, frozenset[str]], list[WorkerName]] = defaultdict(list)
        for worker in workers:
            alike[worker.node, worker.models].append(worker.name)
        rooms = sorted(alike, key=lambda kind: (kind[0], sorted(kind[1])))
        self._serves = [models for _, models in rooms]
        self.names = [alike[kind] for kind in rooms]
        """The workers of each room."""
        numbered = enumerate(self.names)
        self.room_of = {name: Room(number) for number, names in numbered for name in names}
        self._left = [len(names) for names in self.names]
        self._workers = len(self.room_of)
        self._loose = list(self._left)
        """Of ``_left``, what no running job that is still to be served has now."""
        self._heaps: dict[str, list[tuple[int, int, Room]]] = {}
        """For each model that was asked for: rooms by loose and by all workers left, most first.

        Less may be left of a room than its place says, but not more.
        """

    def give(self, ranked: Sequence[Ranked]) -> None:
        """Decide the dop and the room of every job of *ranked*, which are in order."""
        self._find(ranked)
        self._give_in_order(ranked)
        if any(self._left):
            self._give_back(ranked)
            self._widen(ranked)
            self._move(ranked)

    def _find(self, ranked: Sequence[Ranked]) -> None:
        """Note where running jobs are, and with how many workers there.

        What comes behind a worker that is gone, drains or serves other models does not count.
        """
        room_of = self.room_of.get
        for entry in ranked:
            if entry.current:
                group = entry.job.next_group
                room = entry.room = room_of(group[0])
                if room is None:
                    entry.current = 0  # its leader is gone or drains
                    continue
                if entry.current > 1:
                    there = (number for number, name in enumerate(group) if room_of(name) != room)
                    entry.current = next(there, entry.current)
                if (entry.job.pending is not None or entry.current < len(group)) and not set(
                    entry.job.group
                ).issubset(group[: entry.current]):
                    # It loses some first: a group does not change by halves (policy/base.py).
                    entry.most = sum(room_of(name) == room for name in entry.job.group)
                self._loose[room] -= entry.current

    # in order

    def _give_in_order(self, ranked: Sequence[Ranked]) -> None:
        """Each job in turn takes the dop that is best for it and those behind it.

        Of two overdue jobs the first leaves a worker to the second.
        """
        left = sum(self._left)
        weights = (entry.width_weight for entry in reversed(ranked))
        behind = list(accumulate(weights, initial=0.0))[:-1]
        """The weight of all jobs behind each, the last job first."""
        in_time = (number for number, entry in enumerate(ranked) if not entry.is_overdue)
        overdue = next(in_time, len(ranked))
        for number, entry in enumerate(ranked):
            if not left:
                return
            if entry.room is not None and entry.current and not self._left[entry.room]:
                # Others come first where it runs: it is given back, and goes on elsewhere.
                self._take(entry.room, 0, loose=-entry.current)
                entry.current, entry.most = 0, None
            room = entry.room if entry.current else self._roomiest(entry.job.model)
            if room is None:
                continue
            entry.room, most = room, self._left[room]
            if entry.most is not None:
                most = min(most, entry.most)
            if number < overdue:
                most = max(1, min(most, self._left[room] - (overdue - number - 1)))
            entry.dop = self._best_dop(
                entry, most, self._price * behind[-1 - number] / self._workers
            )
            left -= entry.dop
            self._take(room, entry.dop, loose=entry.dop - entry.current)

    def _best_dop(self, entry: Ranked, most: int, price: float) -> int:
        """The dop of least cost: the job's own time, weighted, and its GPU-seconds at *price*."""
        cost = entry.cost
        if most == 1 or len(cost.dops) == 1:
            return 1
        best, best_cost = 1, math.inf
        current, weight = entry.current, entry.width_weight
        steps_left, decode_s = entry.steps_left, cost.decode_s
        joining = price * self._idle_step * cost.at(cost.widest(current)) if current else 0.0
        for dop, step_s in zip(cost.dops, cost.step_s, strict=True):
            if dop > most:
                break
            total = (steps_left * step_s + decode_s) * (weight + price * dop)
            if dop == current <= cost.fastest_dop:
                total /= self._keep
            elif dop > current:
                total += joining * (dop - current)
            if total < best_cost:
                best, best_cost = dop, total
        return best

    def _take(self, room: Room, workers: int, *, loose: int) -> None:
        self._left[room] -= workers
        if loose:
            self._loose[room] -= loose
        if loose < 0:
            for model, heap in self._heaps.items():
                if model in self._serves[room]:
                    heapq.heappush(heap, (-self._loose[room], -self._left[room], room))

    def _roomiest(self, model: str) -> Room | None:
        """The room for *model* in which the fewest others are in the way; None: all are full."""
        heap = self._heaps.get(model)
        if heap is None:
            heap = [
                (-self._loose[number], -left, Room(number))
                for number, left in enumerate(self._left)
                if model in self._serves[number]
            ]
            heapq.heapify(heap)
            self._heaps[model] = heap
        while heap:
            loose, left, room = heap[0]
            if not self._left[room]:
                heapq.heappop(heap)
            elif (-loose, -left) == (self._loose[room], self._left[room]):
                return room
            else:
                heapq.heapreplace(heap, (-self._loose[room], -self._left[room], room))
        return None

    # what is left when all have been served

    def _give_back(self, ranked: Sequence[Ranked]) -> None:
        """Running jobs keep what they have if nobody needs it: it costs no resize."""
        for entry in ranked:
            if 0 < entry.dop < entry.current:
                dop = entry.cost.widest(min(entry.current, self._most(entry)))
                if entry.cost.at(dop) <= entry.cost.at(entry.dop):
                    self._set(entry, dop)

    def _widen(self, ranked: Sequence[Ranked]) -> None:
        """Idle workers go where they gain most, one job at a time."""
        heap = [
            (-gain, number, dop)
            for number, entry in enumerate(ranked)
            if 0 < entry.dop < entry.cost.fastest_dop and self._left[entry.room or 0]
            for gain, dop in (self._best_gain(entry),)
            if gain > 0.0
        ]
        heapq.heapify(heap)
        while heap:
            _, number, dop = heapq.heappop(heap)
            entry = ranked[number]
            if dop <= self._most(entry):
                self._set(entry, dop)
            gain, dop = self._best_gain(entry)
            if gain > 0.0:
                heapq.heappush(heap, (-gain, number, dop))

    def _best_gain(self, entry: Ranked) -> tuple[float, int]:
        """What more workers gain most, each, and the dop that does; (0, 0) if none is worth it."""
        most = self._most(entry)
        if entry.dop >= min(most, entry.cost.fastest_dop):
            return 0.0, 0
        now_s, best, best_dop = entry.left_s(entry.dop), 0.0, 0
        if now_s - entry.left_s(entry.cost.fastest_dop) <= self._hardly_s(entry, entry.dop + 1):
            return best, best_dop
        for dop in entry.cost.dops:
            if entry.dop < dop <= most:
                saved_s = now_s - entry.left_s(dop)
                if saved_s > self._hardly_s(entry, dop):
                    gain = entry.width_weight * saved_s / (dop - entry.dop)
                    gain /= now_s**self._tuning.gain_power
                    if gain > best:
                        best, best_dop = gain, dop
        return best, best_dop

    def _hardly_s(self, entry: Ranked, dop: int) -> float:
        """A saving that is not worth a resize of a running job; 0 where there is none."""
        if not entry.current or dop <= entry.current:
            return 0.0
        return self._tuning.min_gain_steps * entry.cost.at(entry.cost.widest(entry.current))

    def _move(self, ranked: Sequence[Ranked]) -> None:
        """Idle workers that no job of their room can use take a job over from a crowded one.

        The one that gains most by it; its old workers are for those who have none, or may widen
        its neighbours. Each time fewer workers idle than before.
        """
        while (move := self._best_move(ranked)) is not None:
            entry, room, dop = move
            self._set(entry, 0)
            left = entry.room
            entry.room, entry.current, entry.most = room, 0, None
            self._set(entry, dop)
            self._let_in(ranked, left)
            self._widen(ranked)

    def _let_in(self, ranked: Sequence[Ranked], room: Room | None) -> None:
        """Jobs whose model nobody else serves may have been left out: *room* has workers again."""
        assert room is not None
        for entry in ranked:
            if not self._left[room]:
                return
            if not entry.dop and entry.job.model in self._serves[room]:
                entry.room = room
                self._set(entry, 1)

    def _best_move(self, ranked: Sequence[Ranked]) -> tuple[Ranked, Room, int] | None:
        """Which job would gain most by going where: of seconds left, the share that it saves."""
        rooms = sorted(map(Room, range(len(self._left))), key=self._left.__getitem__, reverse=True)
        widest = self._left[rooms[0]]
        if widest <= 1:
            return None  # nobody has less than one worker
        best, best_share = None, 0.0
        for entry in ranked:
            cost = entry.cost
            if not 0 < entry.dop < widest or entry.dop >= cost.fastest_dop:
                continue
            now_s = entry.left_s(entry.dop)
            enough_s = self._tuning.min_gain_steps * cost.at(entry.dop) + self._tuning.hand_over_s
            enough_s = max(enough_s, best_share * now_s)
            if now_s - entry.left_s(cost.fastest_dop) <= enough_s:
                continue
            room = self._roomiest_but(entry, rooms)
            if room is None:
                continue
            dop = _fastest(cost, self._left[room])
            saved_s = now_s - entry.left_s(dop)
            if saved_s > enough_s:
                best, best_share = (entry, room, dop), saved_s / now_s
        return best

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


def _fastest(cost: Cost, workers: int) -> int:
    """The dop of the shortest step that so many *workers* suffice for."""
    if cost.fastest_dop <= workers:
        return cost.fastest_dop
    return min((dop for dop in cost.dops if dop <= workers), key=cost.at)

"""Which dop costs a job least, found for every price at once and remembered.

Pure. A job that would need ``R(k)`` seconds at dop k, whose own second is worth w and whose
GPU-second costs p, costs ``w R(k) + p k R(k)`` there. Over p that is a line in w / p for each dop.
The lowest line changes at a few values of w / p, which depend on what is left and on the present
dop alone. So they are found once, and the thousands of questions of later plans are looked up.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import inf

from ddit_batch.cost import Left

_KEPT = 65_536
"""Answers that are remembered at most: those of a thousand numbers of steps left."""


@dataclass(frozen=True, slots=True)
class _Lowest:
    """The dops of the lowest lines, ascending, and the values of w / p at which each gives way."""

    left: Left
    """Whose they are: as long as it is kept here, no other has its identity."""
    ends: tuple[float, ...]
    dops: tuple[int, ...]


class LeastCost:
    """The dops of least cost, for one policy.

    A running job's present dop counts as *keep* times better than it is, unless it is beyond its
    fastest; workers that join one are charged for *idle_steps* of its present steps.
    """

    def __init__(self, *, keep: float, idle_steps: float) -> None:
        self._keep = keep
        self._idle_steps = idle_steps
        self._known: dict[tuple[int, int, int], _Lowest] = {}
        """By the identity of what is left, the present dop and the most workers."""

    def dop(self, left: Left, current: int, most: int, weight: float, price: float) -> int:
        """The dop of least cost with *most* workers; of equal ones the narrowest.

        *current* are the workers that the job has, 0 for none. *weight* is positive, *price* not
        negative.
        """
        lowest = self._known.get((id(left), current, most))
        if lowest is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            lowest = self._known[id(left), current, most] = self._found(left, current, most)
        worth = weight / price if price else inf
        return lowest.dops[bisect_left(lowest.ends, worth)]

    def _found(self, left: Left, current: int, most: int) -> _Lowest:
        """Walk along the lowest lines: each next one is flatter, and crosses first."""
        lines = self._lines(left, current, most)
        start, slope, dop = min(lines)
        ends: list[float] = []
        dops = [dop]
        while crossings := [
            ((other_start - start) / (slope - other_slope), other_slope, other_start, other)
            for other_start, other_slope, other in lines
            if other_slope < slope
        ]:
            end, slope, start, dop = min(crossings)
            ends.append(end)
            dops.append(dop)
        return _Lowest(left, tuple(ends), tuple(dops))

    def _lines(self, left: Left, current: int, most: int) -> list[tuple[float, float, int]]:
        """Of each dop: what it costs per price where w / p is 0, how that rises, and the dop."""
        lines = []
        wait_s = 0.0
        for dop, left_s, step_s in left.by_dop:
            if dop > most:
                break
            better = 1.0
            if dop <= current:
                wait_s = self._idle_steps * step_s
                if dop == current <= left.fastest_dop:
                    better = self._keep
            joining = max(dop - current, 0)
            lines.append(((dop * left_s + joining * wait_s) / better, left_s / better, dop))
        return lines

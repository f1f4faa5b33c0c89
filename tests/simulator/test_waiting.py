from __future__ import annotations

from sim_worlds import COSTS, an_arrival

from ddit_batch.simulator.record import Record
from ddit_batch.simulator.waiting import Waiting


def records(*steps: int, priority: int = 0) -> list[Record]:
    """A job for each number of steps, in order of arrival."""
    arrivals = [an_arrival(n, steps=count, priority=priority) for n, count in enumerate(steps)]
    return [Record(one, seq, COSTS.other) for seq, one in enumerate(arrivals)]


def seen(waiting: Waiting) -> list[int]:
    return [view.seq for view in waiting.seen()]


def test_window_holds_the_first_by_priority_and_arrival() -> None:
    """In whatever order they began to wait."""
    waiting = Waiting(window=3, window_shortest=0)
    jobs = records(5, 5, 5, 5)
    urgent = Record(an_arrival(9, priority=1), 9, COSTS.other)

    for record in (jobs[3], jobs[0], urgent, jobs[2], jobs[1]):
        waiting.add(record, 0.0)

    assert seen(waiting) == [9, 0, 1]
    waiting.remove(jobs[0])
    assert seen(waiting) == [9, 1, 2]
    assert len(waiting) == 4


def test_window_can_hold_the_shortest_as_well() -> None:
    """Of those behind the front, and none twice; what is left counts, not what was."""
    waiting = Waiting(window=2, window_shortest=2)
    jobs = records(1, 9, 8, 7, 6, 9)
    jobs[5].step = 8
    for record in jobs:
        waiting.add(record, 0.0)

    assert seen(waiting) == [0, 1, 5, 4]

    waiting.remove(jobs[0])
    assert seen(waiting) == [1, 2, 5, 4]


def test_front_that_is_everything_is_shown_once() -> None:
    """No job is in the window twice."""
    waiting = Waiting(window=10, window_shortest=10)
    for record in records(3, 2, 1):
        waiting.add(record, 0.0)

    assert seen(waiting) == [0, 1, 2]

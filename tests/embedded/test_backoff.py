from __future__ import annotations

import itertools

from ddit_batch.embedded.supervisor import Backoff


def delays_s(backoff: Backoff, ran_for_s: float, count: int) -> list[float]:
    """How long each of *count* restarts waits if the child runs for *ran_for_s* each time."""
    delays = []
    for _ in range(count):
        now_s = backoff.started_at_s + ran_for_s
        backoff = backoff.ended(now_s)
        assert backoff.restart_at_s is not None
        delays.append(backoff.restart_at_s - now_s)
        backoff = backoff.started(backoff.restart_at_s)
    return delays


def test_first_restart_is_at_once_and_the_next_wait_twice_as_long_each() -> None:
    """A child that keeps ending is restarted ever more slowly, but at least every 30 s."""
    delays = delays_s(Backoff(started_at_s=100.0), ran_for_s=0.1, count=10)

    assert delays == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_child_that_was_healthy_is_restarted_at_once() -> None:
    """Thirty seconds of health forgive what was before."""
    delays = delays_s(Backoff(started_at_s=0.0, failures=6), ran_for_s=30.0, count=3)

    assert delays == [0.0, 0.0, 0.0]


def test_start_that_fails_counts_as_an_end() -> None:
    """If a process cannot even be started, the next attempt waits too, however long ago it ran."""
    backoff = Backoff(started_at_s=0.0).ended(40.0)

    failed = list(itertools.accumulate([40.0, 41.0, 42.0], Backoff.ended, initial=backoff))

    assert [b.restart_at_s for b in failed] == [40.0, 40.5, 42.0, 44.0]

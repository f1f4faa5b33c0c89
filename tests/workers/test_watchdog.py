"""The watchdog ends the process of work that does not return after its job was taken away."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import rows
from sqlalchemy import Engine

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.job import Phase
from workers.watchdog import EXIT_CODE, Watchdog

LOOK_S, GRACE_S = 0.05, 0.4


@pytest.fixture
def ended() -> threading.Event:
    """Set instead of an end of this process, which is that of the tests."""
    return threading.Event()


@pytest.fixture
def watchdog(engine: Engine, ended: threading.Event) -> Iterator[Watchdog]:
    """One that looks often and is not patient."""

    def end(code: int) -> None:
        assert code == EXIT_CODE
        ended.set()

    watchdog = Watchdog(ClaimStore(engine), grace_s=GRACE_S, look_s=LOOK_S, end_process=end)
    watchdog.start()
    yield watchdog
    watchdog.stop()


def taken_away(engine: Engine, claim: Claim) -> None:
    """The scheduler gives the job to somebody else."""
    rows.leading(engine).take_away(rows.view(engine, claim.job_id), for_good=False)


def test_work_that_does_not_return_ends_the_process(
    engine: Engine, watchdog: Watchdog, ended: threading.Event
) -> None:
    """After the time of grace; before it, the step loop can learn that the job is lost."""
    claim = rows.holding(engine, Phase.DIT)
    with watchdog.watching(claim):
        assert not ended.wait(5 * LOOK_S)
        assert not watchdog.has_lost(claim)

        taken_away(engine, claim)

        assert not ended.wait(GRACE_S / 2)
        assert watchdog.has_lost(claim)
        assert ended.wait(2 * GRACE_S)


def test_work_that_returns_in_time_ends_nothing(
    engine: Engine, watchdog: Watchdog, ended: threading.Event
) -> None:
    """Nor does the next attempt inherit anything."""
    first, second = rows.holding(engine, Phase.DIT), rows.holding(engine, Phase.DIT)
    with watchdog.watching(first):
        taken_away(engine, first)
        assert not ended.wait(3 * LOOK_S)

    with watchdog.watching(second):
        assert not ended.wait(2 * GRACE_S)
        assert not watchdog.has_lost(second)


def test_work_after_the_commit_may_take_its_time(
    engine: Engine, watchdog: Watchdog, ended: threading.Event
) -> None:
    """A job that is done is not one that was taken away."""
    claim = rows.holding(engine, Phase.VAE)
    with watchdog.watching(claim):
        rows.finished(engine, claim)

        assert not ended.wait(2 * GRACE_S)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from fake_costs import COSTS
from sqlalchemy.exc import OperationalError
from worlds import LIMITS, a_held_job, a_job, a_sent_job, a_worker, a_world

from ddit_batch.decision_record import DecisionRecord
from ddit_batch.errors import LeadershipLost
from ddit_batch.job import JobState
from ddit_batch.policy.static import Static
from ddit_batch.scheduler.core import decide
from ddit_batch.scheduler.recorder import (
    QUIET_S,
    REST_S,
    SETTLED_S,
    SHARE,
    DecisionRecorder,
)
from ddit_batch.snapshot import Snapshot

POLICY = Static(costs=COSTS)
WORKER = a_worker(0)
NEWS = a_world(WORKER, a_job(1, JobState.ENCODED))
"""A job is sent."""
QUIET = a_world(WORKER, a_sent_job(1, JobState.ENCODED, WORKER.name))
"""Nothing to do."""
TELLS = a_world(WORKER, a_held_job(1, JobState.DENOISING, WORKER, cancel_requested=True))
"""The same is told in each decision."""


@dataclass
class FakeLog:
    """A log in memory, on a clock that a test moves; writing takes *takes_s* of it."""

    records: list[DecisionRecord] = field(default_factory=list)
    error: Exception | None = None
    now_s: float = 1000.0
    takes_s: float = 0.0
    pruned: int = 0
    term: int = 3

    def write(self, record: DecisionRecord) -> bool:
        """Keep it, or fail."""
        self.now_s += self.takes_s
        if self.error:
            raise self.error
        self.records.append(record)
        return True

    def prune(self) -> int:
        """Count the calls."""
        self.pruned += 1
        return 0


class Scene:
    """A recorder of at most four records a second, and how many it has written."""

    def __init__(self, log: FakeLog) -> None:
        self.log = log
        self.recorder = DecisionRecorder(log, per_s=4.0, clock=lambda: log.now_s)

    def after(self, seconds: float, world: Snapshot) -> int:
        """The records that one more decision, *seconds* later, adds."""
        self.log.now_s += seconds
        before = len(self.log.records)
        self.recorder.saw(world, POLICY, LIMITS, decide(world, POLICY, LIMITS))
        return len(self.log.records) - before


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A recorder that has recorded its first decision, a quiet one."""
    scene = Scene(FakeLog())
    assert scene.after(0.0, QUIET) == 1
    return scene


def test_first_decision_of_a_term_is_recorded_whatever_it_did(scene: Scene) -> None:
    """With its term and everything that it was made from."""
    (record,) = scene.log.records

    assert (record.term, record.policy, record.snapshot) == (3, POLICY.name, QUIET)
    assert record.commands == ()


def test_decision_that_does_something_is_recorded(scene: Scene) -> None:
    """And one that does nothing is not, for a while."""
    assert scene.after(1.0, QUIET) == 0
    assert scene.after(1.0, NEWS) == 1
    assert scene.after(1.0, QUIET) == 0
    assert scene.after(QUIET_S, QUIET) == 1


def test_jobs_that_have_moved_on_are_recorded_sooner(scene: Scene) -> None:
    """A worker has claimed what was sent: nothing was decided, and the picture is another."""
    running = a_world(WORKER, a_held_job(1, JobState.DENOISING, WORKER))
    further = a_world(WORKER, a_held_job(1, JobState.DENOISING, WORKER, step=3))

    assert scene.after(SETTLED_S / 2, running) == 0
    assert scene.after(SETTLED_S / 2, running) == 1
    assert scene.after(SETTLED_S, further) == 0
    assert scene.after(QUIET_S, further) == 1


def test_repeated_tell_is_recorded_once(scene: Scene) -> None:
    """The leader of a cancelled job is told again in every round, until it has confirmed."""
    assert [scene.after(1.0, TELLS) for _ in range(5)] == [1, 0, 0, 0, 0]


def test_burst_is_thinned_out_and_its_end_is_on_record(scene: Scene) -> None:
    """At most four a second; what was left out is made up for by a later, quiet decision."""
    written = sum(scene.after(0.01, NEWS) for _ in range(100))

    assert 3 <= written <= 4
    assert scene.after(0.25, QUIET) == 1
    assert scene.log.records[-1].snapshot is QUIET
    assert scene.after(1.0, QUIET) == 0


def test_recording_takes_a_small_share_of_the_time() -> None:
    """However long one record takes on a large cluster."""
    log = FakeLog(takes_s=0.05)
    scene = Scene(log)

    began_s = log.now_s
    for _ in range(1000):
        scene.after(0.01, NEWS)

    spent_s = len(log.records) * log.takes_s
    assert spent_s <= 1.1 * SHARE * (log.now_s - began_s) + log.takes_s
    assert len(log.records) >= 4


@pytest.mark.parametrize(
    "error",
    [OperationalError("INSERT", {}, OSError("away")), OSError("full"), TypeError("no form")],
)
def test_record_that_cannot_be_written_stops_nothing(scene: Scene, error: Exception) -> None:
    """It is tried again after a rest."""
    scene.log.error = error
    assert scene.after(1.0, NEWS) == 0

    scene.log.error = None
    assert scene.after(REST_S / 2, NEWS) == 0
    assert scene.after(REST_S, QUIET) == 1


def test_deposed_scheduler_learns_so(scene: Scene) -> None:
    """As with every write of it."""
    scene.log.error = LeadershipLost("term 3 is over")

    with pytest.raises(LeadershipLost):
        scene.after(1.0, NEWS)


def test_log_is_held_to_its_bounds_now_and_then(scene: Scene) -> None:
    """At the first record of a term, and after each few dozen."""
    assert scene.log.pruned == 1

    for _ in range(200):
        scene.after(1.0, NEWS)

    assert 3 <= scene.log.pruned <= 5

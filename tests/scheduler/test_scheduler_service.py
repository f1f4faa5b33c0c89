from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
import rows
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from ddit_batch.db.moves import wake_scheduler
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.errors import LeadershipLost
from ddit_batch.job import Phase
from ddit_batch.metrics import SchedulerMetrics
from ddit_batch.scheduler.service import LEADER_LOCK, serve

TICK_S = 0.03

LEAD_FOR_EVER = """
import os
from ddit_batch.db.engine import make_engine
from ddit_batch.metrics import SchedulerMetrics
from ddit_batch.scheduler.service import serve

class Idle:
    def round(self):
        print("round", flush=True)

engine = make_engine(os.environ["URL"])
serve(engine, lambda store: Idle(), metrics=SchedulerMetrics(), tick_s=0.03, should_stop=bool)
"""


class Scheduler:
    """A scheduler in a thread, whose driver writes down in which term it has its rounds."""

    def __init__(self, engine: Engine, *, tick_s: float = TICK_S) -> None:
        self.rounds: list[tuple[int, float]] = []
        self.stores: list[SchedulerStore] = []
        self.error: BaseException | None = None
        self.trouble: Callable[[], object] = lambda: None
        self._engine = engine
        self._tick_s = tick_s
        self._stopping = Event()
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            serve(
                self._engine,
                self._make_driver,
                metrics=SchedulerMetrics(),
                tick_s=self._tick_s,
                should_stop=self._stopping.is_set,
            )
        except Exception as exc:  # noqa: BLE001 -- for the test to look at
            self.error = exc

    def _make_driver(self, store: SchedulerStore) -> Driver:
        self.stores.append(store)
        return Driver(self, store)

    @property
    def leads(self) -> bool:
        """Whether it has had a round by now."""
        return bool(self.rounds)

    @property
    def terms(self) -> list[int]:
        """Those in which it has led, in order."""
        return list(dict.fromkeys(term for term, _ in self.rounds))

    @property
    def is_alive(self) -> bool:
        """Whether it still serves."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Have it stop, and wait for that."""
        self._stopping.set()
        with self._engine.begin() as connection:
            wake_scheduler(connection, "stop")
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()


class Driver:
    """Has rounds in which nothing is decided."""

    def __init__(self, scheduler: Scheduler, store: SchedulerStore) -> None:
        self._scheduler = scheduler
        self._store = store

    def round(self) -> None:
        """Write it down, and meet with the trouble that the test has made."""
        self._scheduler.rounds.append((self._store._term, time.monotonic()))
        self._scheduler.trouble()


@pytest.fixture
def start(engine: Engine) -> Iterator[Callable[..., Scheduler]]:
    """Starts schedulers, which are stopped at the end."""
    started: list[Scheduler] = []

    def start(**options: float) -> Scheduler:
        started.append(Scheduler(engine, **options))
        return started[-1]

    yield start
    for scheduler in started:
        if scheduler.is_alive:
            scheduler.stop()


@contextmanager
def within(seconds: float) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Waits until something holds, for so long in all."""
    deadline = time.monotonic() + seconds

    def wait_for(holds: Callable[[], object]) -> None:
        while not holds():
            assert time.monotonic() < deadline, "did not happen in time"
            time.sleep(0.005)

    yield wait_for


def end_lock_connections(engine: Engine) -> None:
    """Cut off whoever holds the lock of the leader."""
    with engine.connect() as connection:
        cut = connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                "AND objid = :lock AND granted AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database())"
            ),
            {"lock": LEADER_LOCK},
        )
        assert len(cut.all()) == 1, "one leader"


def test_of_two_schedulers_one_leads(start: Callable[..., Scheduler]) -> None:
    """The other waits, however long, and decides nothing."""
    schedulers = [start(), start()]

    with within(10) as wait_for:
        wait_for(lambda: any(len(scheduler.rounds) > 5 for scheduler in schedulers))

    assert sorted(scheduler.leads for scheduler in schedulers) == [False, True]


def test_the_other_takes_over_when_the_first_stops(start: Callable[..., Scheduler]) -> None:
    """At once, in a higher term; the rounds of the two do not overlap."""
    first, others = start(), []
    with within(10) as wait_for:
        wait_for(lambda: first.leads)
        others = [start(), start()]

        first.stop()
        stopped = time.monotonic()
        wait_for(lambda: any(other.leads for other in others))

    (second,) = (other for other in others if other.leads)
    assert (first.terms, second.terms) == ([1], [2])
    assert first.rounds[-1][1] < second.rounds[0][1] < stopped + 3


def test_write_of_the_deposed_leader_is_refused(
    engine: Engine, start: Callable[..., Scheduler]
) -> None:
    """Also if it has not noticed yet: the term decides, not the lock."""
    first = start()
    with within(10) as wait_for:
        wait_for(lambda: first.leads)
        old = first.stores[0]
        first.stop()
        second = start()
        wait_for(lambda: second.leads)
    rows.registered(engine, Phase.ENCODE)
    (job,) = rows.submitted(engine)
    view = rows.view(engine, job)

    with rows.unchanged(engine), pytest.raises(LeadershipLost):
        old.open_attempt(view, "encode")

    assert second.stores[0].open_attempt(view, "encode").attempt == 1


def test_scheduler_that_was_killed_is_succeeded_at_once(
    engine: Engine, start: Callable[..., Scheduler]
) -> None:
    """Its lock ends with its connection, and nothing else was its own."""
    url = engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-c", LEAD_FOR_EVER], env={**os.environ, "URL": url}, stdout=-1
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"round\n"
    successor = start()
    time.sleep(5 * TICK_S)
    assert not successor.leads

    process.send_signal(signal.SIGKILL)

    with within(10) as wait_for:
        wait_for(lambda: successor.leads)
    assert successor.terms == [2]
    process.wait()
    process.stdout.close()


def test_leader_that_loses_its_lock_makes_way(
    engine: Engine, start: Callable[..., Scheduler]
) -> None:
    """Whoever gets the lock next leads in a new term; it may be the same one."""
    schedulers = [start(), start()]
    with within(20) as wait_for:
        wait_for(lambda: any(scheduler.leads for scheduler in schedulers))

        end_lock_connections(engine)
        wait_for(lambda: any(2 in scheduler.terms for scheduler in schedulers))

    terms = [scheduler.terms for scheduler in schedulers]
    assert sorted(term for found in terms for term in found) == [1, 2]
    assert all(scheduler.is_alive for scheduler in schedulers)


def test_leader_that_was_deposed_gives_its_lock_away(
    engine: Engine, start: Callable[..., Scheduler]
) -> None:
    """It finds so in a round, and must win the lead again, in a term of its own."""
    scheduler = start()
    with within(10) as wait_for:
        wait_for(lambda: scheduler.leads)
        assert begin_term(engine, holder="somebody else") == 2
        old = scheduler.stores[0]

        def write() -> None:
            if scheduler.stores[-1] is old:
                old.publish_limits(look_ahead=1, decode_backlog=1)

        scheduler.trouble = write
        wait_for(lambda: scheduler.terms[-1] == 3)

    assert scheduler.terms == [1, 3]


def test_outage_of_postgres_is_waited_out(engine: Engine, start: Callable[..., Scheduler]) -> None:
    """All connections go at once; the scheduler comes back by itself, in a new term."""
    scheduler = start()
    with within(20) as wait_for:
        wait_for(lambda: scheduler.leads)

        for _ in range(3):
            terms = len(scheduler.terms)
            with engine.connect() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
            wait_for(lambda terms=terms: len(scheduler.terms) > terms)

    assert scheduler.terms == [1, 2, 3, 4]


def test_fault_of_our_own_is_not_waited_out(
    engine: Engine, start: Callable[..., Scheduler]
) -> None:
    """It ends the process, so that somebody sees it and starts a new one."""
    scheduler = start()

    def break_a_constraint() -> None:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO leadership VALUES (2, 1, 'x')"))

    scheduler.trouble = break_a_constraint

    with within(10) as wait_for:
        wait_for(lambda: not scheduler.is_alive)
    assert isinstance(scheduler.error, IntegrityError)


def test_notification_begins_the_next_round(
    engine: Engine, start: Callable[..., Scheduler]
) -> None:
    """What happens is decided upon at once, not at the next tick."""
    scheduler = start(tick_s=60.0)
    with within(10) as wait_for:
        wait_for(lambda: scheduler.leads)
        time.sleep(0.2)
        before = len(scheduler.rounds)

        rows.submitted(engine)
        wait_for(lambda: len(scheduler.rounds) > before)


def test_quiet_times_have_a_round_for_each_tick(start: Callable[..., Scheduler]) -> None:
    """Leases run out without a notification."""
    scheduler = start()

    with within(10) as wait_for:
        wait_for(lambda: len(scheduler.rounds) > 5)

    times = [at for _, at in scheduler.rounds[:6]]
    assert times[-1] - times[0] > 4 * TICK_S

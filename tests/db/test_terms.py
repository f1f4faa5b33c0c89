from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.errors import LeadershipLost
from ddit_batch.job import Incarnation, JobId, Phase
from ddit_batch.snapshot import Progress

WRITES: dict[str, Callable[[SchedulerStore, Engine], object]] = {
    "lose_worker": lambda store, engine: store.lose_worker(rows.registered(engine, lease_s=-1)),
    "rescue": lambda store, engine: store.rescue(rows.view(engine, orphan(engine))),
    "give_up": lambda store, engine: store.give_up(rows.view(engine, orphan(engine))),
    "cancel": lambda store, engine: store.cancel(rows.view(engine, sent(engine))),
    "withdraw": lambda store, engine: store.withdraw(rows.view(engine, sent(engine))),
    "open_attempt": lambda store, engine: store.open_attempt(
        rows.view(engine, rows.submitted(engine)[0]), "encode"
    ),
    "resent": lambda store, engine: store.resent(rows.view(engine, sent(engine))),
    "record_progress": lambda store, engine: store.record_progress(
        {rows.holding(engine, Phase.DIT).job_id: Progress(attempt=1, step=3, step_s=0.1)}
    ),
}


def orphan(engine: Engine) -> JobId:
    """A job whose holder was replaced."""
    worker = rows.registered(engine, name="dit-9@host")
    claim = rows.holding(engine, Phase.DIT, by=worker)
    rows.registered(engine, name="dit-9@host")
    return claim.job_id


def sent(engine: Engine) -> JobId:
    """A job whose message is out."""
    return rows.waiting_for(engine, Phase.DIT)


class Deposed(SchedulerStore):
    """A leader whose term ends between what it saw and what it writes."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, term=begin_term(engine, holder="old"))
        self.ended = False

    def _leading(self) -> object:
        if not self.ended:
            self.ended = True
            begin_term(self._engine, holder="new")
            with self._engine.connect() as connection:
                self.found = rows.contents(connection)
        return super()._leading()


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_write_of_an_old_term_is_refused_and_nothing_was_written(
    engine: Engine, write: Callable[[SchedulerStore, Engine], object]
) -> None:
    """A leader that slept through its own end cannot do harm when it wakes."""
    rows.registered(engine, name=rows.LEADER)
    old = Deposed(engine)

    with pytest.raises(LeadershipLost, match="is over"):
        write(old, engine)

    with engine.connect() as connection:
        assert rows.contents(connection) == old.found


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_write_of_the_newest_term_is_done(
    engine: Engine, write: Callable[[SchedulerStore, Engine], object]
) -> None:
    """The very same writes, by a leader."""

    class Leader(SchedulerStore):
        def _leading(self) -> object:
            self._term = begin_term(self._engine, holder="me")
            with self._engine.connect() as connection:
                self.found = rows.contents(connection)
            return super()._leading()

    leader = Leader(engine, term=0)

    write(leader, engine)

    with engine.connect() as connection:
        assert rows.contents(connection) != leader.found


def test_terms_rise_and_say_who_leads(engine: Engine) -> None:
    """Every take-over is a new term, and there is one row of it."""
    terms = [begin_term(engine, holder=f"scheduler {n}") for n in range(3)]

    assert terms == [1, 2, 3]
    with engine.connect() as connection:
        found = connection.execute(text("SELECT id, term, holder FROM leadership")).all()
    assert found == [(1, 3, "scheduler 2")]


def test_terms_begun_at_once_differ(engine: Engine) -> None:
    """Two that believe to lead at the same instant are told apart."""
    with ThreadPoolExecutor(6) as pool:
        terms = list(pool.map(lambda n: begin_term(engine, holder=str(n)), range(12)))

    assert sorted(terms) == list(range(1, 13))


def test_term_begins_when_the_writes_of_the_old_one_have_ended(engine: Engine) -> None:
    """After a take-over nothing of the old leader's is still under way."""
    old = rows.leading(engine)

    with ThreadPoolExecutor(1) as pool:
        with old._leading():
            taking_over = pool.submit(begin_term, engine, holder="new")
            with pytest.raises(TimeoutError):
                taking_over.result(timeout=0.2)

        assert taking_over.result(timeout=10) == 1


def test_reading_needs_no_term(engine: Engine) -> None:
    """A snapshot harms nobody."""
    begin_term(engine, holder="somebody")
    worker = rows.registered(engine, lease_s=-1)

    found = SchedulerStore(engine, term=0).snapshot(window=1, may_lose_workers=False)

    assert [w.incarnation for w in found.workers] == [Incarnation(worker)]
    assert not found.may_lose_workers

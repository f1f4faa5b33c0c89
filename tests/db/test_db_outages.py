from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import rows
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from ddit_batch.db import engine as database
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.engine import is_passing, make_engine, persist
from ddit_batch.db.leases import LeaseStore
from ddit_batch.errors import StateConflict
from ddit_batch.job import Phase


class AnswerLost:
    """Does what it was given, and the first time reports that the server went away."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.calls = 0

    def __call__(self) -> object:
        """Do it."""
        self.calls += 1
        answer = self.call()
        if self.calls == 1:
            raise OperationalError("COMMIT", None, Exception("server closed the connection"))
        return answer


def once_more(call: Callable[[], object]) -> object:
    """What *call* gives if the answer to its first commit is lost."""
    lossy = AnswerLost(call)
    answer = persist(lossy, give_up_s=10, what="test")
    assert lossy.calls == 2
    return answer


def kill_other_connections(engine: Engine) -> None:
    """As a restart of Postgres does."""
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


@pytest.mark.parametrize("phase", list(Phase))
def test_claim_whose_answer_was_lost_is_found_again(engine: Engine, phase: Phase) -> None:
    """The commit was done but reported as an error: one claim, one event."""
    job, worker = rows.waiting_for(engine, phase), rows.registered(engine, phase)

    claim = once_more(lambda: ClaimStore(engine).claim(job, phase, 1, worker))

    assert claim.incarnation == worker
    assert rows.history(engine, job)[-1][0] == "claim"
    assert rows.row(engine, job)["holder"] == worker


@pytest.mark.parametrize("phase", list(Phase))
def test_finish_whose_answer_was_lost_is_done_once(engine: Engine, phase: Phase) -> None:
    """Neither a failed phase nor a second event or attempt."""
    claim = rows.holding(engine, phase)
    events = len(rows.history(engine, claim.job_id))

    once_more(lambda: rows.finished(engine, claim))

    assert len(rows.history(engine, claim.job_id)) == events + 1
    assert len(rows.attempts(engine, claim.job_id)) == (
        3 if phase is Phase.DIT else events // 2 + 1
    )


def test_end_whose_answer_was_lost_is_reported_as_lost_job(engine: Engine) -> None:
    """A repeated give-back finds the job returned: that is in order, and nothing happens twice."""
    claim = rows.holding(engine, Phase.DIT)

    with pytest.raises(StateConflict):
        once_more(lambda: ClaimStore(engine).give_back(claim, reason="drain"))

    assert rows.history(engine, claim.job_id)[-2:] == [
        ("claim", "encoded", "denoising"),
        ("give_back", "denoising", "encoded"),
    ]


def test_connections_that_died_in_the_pool_are_replaced(engine: Engine) -> None:
    """A restart of Postgres between two statements costs nobody an error."""
    worker = rows.registered(engine)
    kill_other_connections(engine)

    assert LeaseStore(engine, lease_s=60).renew(worker)


def test_statement_that_died_with_the_server_is_tried_again(engine: Engine) -> None:
    """A restart in the middle of a transaction loses the transaction, not the writer."""
    other, calls = make_engine(engine.url.render_as_string(hide_password=False)), []

    def write() -> int:
        calls.append(1)
        with engine.begin() as connection:
            if len(calls) == 1:
                connection.execute(text("SELECT 1"))
                kill_other_connections(other)
            return connection.execute(text("SELECT 42")).scalar_one()

    assert persist(write, give_up_s=10, what="test") == 42
    assert len(calls) == 2
    other.dispose()


def test_deadlock_is_tried_again(engine: Engine) -> None:
    """Of two transactions that wait for each other one is sacrificed, and it is none's fault."""
    sacrificed = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$"
    calls = []

    def write() -> None:
        calls.append(1)
        with engine.begin() as connection:
            connection.execute(text(sacrificed if len(calls) < 3 else "SELECT 1"))

    persist(write, give_up_s=10, what="test")

    assert len(calls) == 3


def test_pool_in_which_all_connections_are_in_use_is_asked_again(engine: Engine) -> None:
    """Two threads that wait for a server that stands still cost the third one time only."""
    url = engine.url.render_as_string(hide_password=False)
    full, calls = make_engine(url, pool_size=2, pool_timeout_s=0.1), []
    others = [full.connect(), full.connect()]

    def write() -> int:
        calls.append(1)
        if len(calls) == 3:
            others.pop().close()
        with full.begin() as connection:
            return int(connection.execute(text("SELECT 42")).scalar_one())

    assert persist(write, give_up_s=10, what="test") == 42
    assert len(calls) == 3
    others.pop().close()
    full.dispose()


def test_server_that_has_no_connection_left_is_asked_again(engine: Engine) -> None:
    """Too many clients, here of one role, is nobody's fault and passes."""
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE crowded LOGIN CONNECTION LIMIT 1 PASSWORD 'crowded'"))
    own = engine.url.set(username="crowded", password="crowded")
    one, other = (make_engine(own.render_as_string(hide_password=False)) for _ in range(2))
    held, calls = one.connect(), []

    def write() -> int:
        calls.append(1)
        if len(calls) == 3:
            held.close()
            one.dispose()
        with other.begin() as connection:
            return int(connection.execute(text("SELECT 42")).scalar_one())

    assert persist(write, give_up_s=10, what="test") == 42
    assert len(calls) >= 3
    other.dispose()
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE crowded"))


def test_broken_constraint_is_not_tried_again(engine: Engine) -> None:
    """Our own bugs do not pass by themselves."""
    calls = []

    def write() -> None:
        calls.append(1)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO leadership VALUES (2, 1, 'x')"))

    with pytest.raises(IntegrityError) as caught:
        persist(write, give_up_s=10, what="test")

    assert not is_passing(caught.value)
    assert len(calls) == 1


def test_patience_ends() -> None:
    """Who waits for a database that stays away learns so in time."""
    nowhere = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")

    def connect() -> None:
        nowhere.connect().close()

    begun = time.monotonic()
    with pytest.raises(DBAPIError):
        persist(connect, give_up_s=0.3, what="test")

    assert time.monotonic() - begun < 5


def test_process_that_is_frozen_in_a_transaction_blocks_nobody_for_long(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres ends the transaction, and its process finds that out as it does any outage.

    Else a worker that is stopped in the middle of renewing its lease would hold up the scheduler,
    which wants to declare it lost.
    """
    worker = rows.registered(engine, Phase.DIT, lease_s=-1)
    monkeypatch.setattr(database, "IDLE_IN_TRANSACTION_S", 0.5)
    frozen = make_engine(engine.url.render_as_string(hide_password=False))
    renew = text("UPDATE workers SET lease_expires_at = now() WHERE incarnation = :incarnation")

    with frozen.connect() as connection:
        connection.execute(renew, {"incarnation": worker})
        begun_s = time.monotonic()
        rows.lost(engine, worker)
        waited_s = time.monotonic() - begun_s
        with pytest.raises(DBAPIError) as caught:
            connection.execute(text("SELECT 1"))

    assert 0.3 < waited_s < 5.0
    assert is_passing(caught.value)
    frozen.dispose()

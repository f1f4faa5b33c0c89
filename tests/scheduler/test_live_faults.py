from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rows
from celery import Celery
from kombu.simple import SimpleQueue
from redis import Redis
from sqlalchemy import Engine

from ddit_batch.control import LiveControl
from ddit_batch.db.leases import LeaseStore
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.dispatch import Dispatcher, make_celery
from ddit_batch.job import JobState, Phase, queue_of, task_id
from ddit_batch.scheduler import live
from ddit_batch.scheduler.core import Limits
from ddit_batch.scheduler.hanging import HangLimits
from ddit_batch.scheduler.live import LiveDriver, Pace
from ddit_batch.snapshot import Progress, Snapshot

MakeDriver = Callable[..., LiveDriver]

UNCLAIMED_S = 0.15
LEASE_S = 0.6


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are missed sooner than in earnest."""
    monkeypatch.setattr(live, "UNCLAIMED_S", UNCLAIMED_S)


@pytest.fixture
def no_broker(tmp_path: Path) -> Iterator[dict[str, object]]:
    """The parts of a driver whose broker is away."""
    url = f"redis+socket://{tmp_path}/nobody.sock"
    with make_celery(url) as app:
        yield {"control": LiveControl(url), "dispatcher": Dispatcher(app)}


def pace(**changes: float) -> Pace:
    return Pace(**{"tick_s": 0.01, "reconcile_s": 0.02, "lease_s": LEASE_S, **changes})


def rounds(driver: LiveDriver, for_s: float) -> None:
    """Let the driver go on for a while."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        driver.round()
        time.sleep(0.01)


def rounds_until(driver: LiveDriver, holds: Callable[[], bool], *, within_s: float = 10) -> float:
    """Let the driver go on until something holds; returns the seconds that took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < within_s, "did not happen in time"
        driver.round()
        time.sleep(0.01)
    return time.monotonic() - begun


def queue_for(phase: Phase) -> str:
    return queue_of(phase, rows.LEADER if phase is Phase.DIT else None)


# the broker


def test_emptied_broker_is_filled_again_from_postgres(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, redis: Redis
) -> None:
    """The same attempts of every phase, within a bounded time, and each of them once."""
    rows.registered(engine, name=rows.LEADER)
    jobs = {phase: rows.waiting_for(engine, phase) for phase in Phase}
    tasks = {phase: task_id(job, phase, 1) for phase, job in jobs.items()}
    queues = {queue_for(phase) for phase in Phase}
    driver = make_driver(pace=pace(lease_s=600))

    took_s = rounds_until(driver, lambda: control.waiting_task_ids(queues) == {*tasks.values()})
    assert took_s < UNCLAIMED_S + 2
    redis.flushdb()
    rounds_until(driver, lambda: control.waiting_task_ids(queues) == {*tasks.values()})
    rounds(driver, 3 * UNCLAIMED_S)

    assert {queue: redis.llen(queue) for queue in queues} == dict.fromkeys(queues, 1)
    assert [rows.attempts(engine, job)[-1] for job in jobs.values()] == [
        (phase, 1, None) for phase in Phase
    ]


def test_message_that_waits_for_long_is_not_sent_again(
    engine: Engine, make_driver: MakeDriver, redis: Redis
) -> None:
    """A long queue is no fault."""
    rows.registered(engine, Phase.ENCODE)
    rows.registered(engine, Phase.DIT)
    rows.submitted(engine)

    rounds(make_driver(pace=pace()), 3 * UNCLAIMED_S)

    assert redis.llen("encode") == 1


def test_message_that_was_taken_but_never_claimed_is_sent_again(
    engine: Engine, make_driver: MakeDriver, redis: Redis, app: Celery
) -> None:
    """Its worker died between taking and claiming, and the broker keeps it for that worker."""
    rows.registered(engine, Phase.ENCODE)
    rows.registered(engine, Phase.DIT)
    (job,), driver = rows.submitted(engine), make_driver(pace=pace())
    driver.round()
    with app.connection() as connection:
        SimpleQueue(connection.channel(), "encode", no_ack=False).get(timeout=5)
        assert (redis.llen("encode"), redis.hlen("unacked")) == (0, 1)

        took_s = rounds_until(driver, lambda: redis.llen("encode") == 1)

    assert took_s > UNCLAIMED_S
    assert rows.attempts(engine, job) == [("encode", 1, None)]


def test_claimed_message_is_not_missed(
    engine: Engine, make_driver: MakeDriver, redis: Redis
) -> None:
    """Its job is held, and the lease of the holder is what counts from there."""
    rows.registered(engine, Phase.DIT)
    job = rows.waiting_for(engine, Phase.ENCODE)
    rows.claimed(engine, job)

    rounds(make_driver(pace=pace()), 3 * UNCLAIMED_S)

    assert redis.llen("encode") == 0


def test_scheduler_without_a_broker_carries_on(
    engine: Engine, make_driver: MakeDriver, no_broker: dict[str, object]
) -> None:
    """What needs no message is done: the dead are found, and the cancelled end."""
    rows.registered(engine, Phase.ENCODE)
    dead = rows.registered(engine, Phase.DIT, name="dit-9@host")
    claim = rows.holding(engine, Phase.DIT, by=dead)
    rows.registered(engine, Phase.DIT, name="dit-9@host")
    fresh = rows.submitted(engine, 2)
    driver = make_driver(pace=pace(), **no_broker)

    rounds_until(driver, lambda: rows.row(engine, claim.job_id)["state"] == JobState.ENCODED)
    driver.round()

    assert rows.attempts(engine, claim.job_id)[-1] == ("dit", 2, None)
    assert [rows.attempts(engine, job) for job in fresh] == [[("encode", 1, None)]] * 2


def test_what_could_not_be_sent_is_sent_when_the_broker_is_back(
    engine: Engine, make_driver: MakeDriver, no_broker: dict[str, object], control: LiveControl
) -> None:
    """The attempts that were opened meanwhile are the ones that are sent."""
    rows.registered(engine, Phase.ENCODE)
    rows.registered(engine, Phase.DIT)
    jobs = rows.submitted(engine, 2)
    rounds(make_driver(pace=pace(), **no_broker), 0.3)

    driver = make_driver(pace=pace())

    tasks = {task_id(job, Phase.ENCODE, 1) for job in jobs}
    rounds_until(driver, lambda: control.waiting_task_ids({"encode"}) == tasks)
    assert [rows.attempts(engine, job) for job in jobs] == [[("encode", 1, None)]] * 2


def test_broker_that_is_away_makes_nobody_miss_a_message(
    engine: Engine, make_driver: MakeDriver, no_broker: dict[str, object], redis: Redis
) -> None:
    """It cannot be looked into, so nothing is known to be missing."""
    rows.registered(engine, name=rows.LEADER)
    job = rows.waiting_for(engine, Phase.DIT)
    before = rows.row(engine, job)

    rounds(make_driver(pace=pace(), **no_broker), 3 * UNCLAIMED_S)

    assert rows.row(engine, job) == before
    assert redis.llen(queue_for(Phase.DIT)) == 0


def test_letter_is_written_again_after_the_broker_forgot_it(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, redis: Redis
) -> None:
    """A mailbox is rewritten from Postgres at every round."""
    worker = rows.registered(engine, Phase.DIT)
    claim = rows.holding(engine, Phase.DIT, by=worker)
    LeaseStore(engine, lease_s=600).drain(worker)
    driver = make_driver()
    driver.round()
    letter = control.read_letter(claim.job_id)

    redis.flushdb()
    driver.round()

    assert letter is not None
    assert control.read_letter(claim.job_id) == letter


def test_progress_that_the_broker_forgot_is_not_taken_back(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, redis: Redis
) -> None:
    """Postgres keeps what it was told."""
    claim, driver = rows.holding(engine, Phase.DIT), make_driver()
    control.report(claim.job_id, Progress(attempt=1, step=5, step_s=0.1))
    driver.round()

    redis.flushdb()
    driver.round()

    assert rows.row(engine, claim.job_id)["step"] == 5


# workers


def test_job_of_a_dead_worker_is_rescued_after_the_time_of_grace(
    engine: Engine, make_driver: MakeDriver, control: LiveControl
) -> None:
    """Not before: after a take-over nobody may have been able to renew. Then it goes elsewhere."""
    dead = rows.registered(engine, Phase.DIT, lease_s=-1)
    claim = rows.holding(engine, Phase.DIT, by=dead)
    rows.registered(engine, Phase.DIT, name="dit-1@host")
    driver = make_driver(pace=pace())

    took_s = rounds_until(driver, lambda: len(rows.attempts(engine, claim.job_id)) == 3)

    assert LEASE_S <= took_s < LEASE_S + 2
    assert rows.history(engine, claim.job_id)[-1] == ("worker_lost", "denoising", "encoded")
    assert control.waiting_task_ids({"dit.dit-1@host"}) == {f"{claim.job_id}.dit.a2"}
    assert rows.row(engine, claim.job_id)["worker_losses"] == 1


def test_worker_that_renews_in_the_time_of_grace_keeps_its_job(
    engine: Engine, make_driver: MakeDriver
) -> None:
    """Its lease had run out only because nobody was there to renew it with."""
    late = rows.registered(engine, Phase.DIT, lease_s=-1)
    claim = rows.holding(engine, Phase.DIT, by=late)
    driver = make_driver(pace=pace())
    rounds(driver, LEASE_S / 2)

    LeaseStore(engine, lease_s=600).renew(late)
    rounds(driver, LEASE_S)

    assert rows.row(engine, claim.job_id)["holder"] == late


def test_job_of_a_replaced_worker_is_rescued_at_once(
    engine: Engine, make_driver: MakeDriver, control: LiveControl
) -> None:
    """Its process was started again: that the old one is gone needs no lease to tell."""
    old = rows.registered(engine, Phase.DIT, name="dit-0@host")
    claim = rows.holding(engine, Phase.DIT, by=old)
    rows.registered(engine, Phase.DIT, name="dit-0@host")

    make_driver().round()

    assert control.waiting_task_ids({"dit.dit-0@host"}) == {f"{claim.job_id}.dit.a2"}


def test_message_to_a_dead_worker_goes_to_a_live_one(
    engine: Engine, make_driver: MakeDriver, control: LiveControl
) -> None:
    """Whoever comes under the old name and finds it there is refused."""
    rows.registered(engine, Phase.DIT, name=rows.LEADER, lease_s=-1)
    job = rows.waiting_for(engine, Phase.DIT)
    rows.registered(engine, Phase.DIT, name="dit-1@host")
    driver = make_driver(pace=pace())

    rounds_until(driver, lambda: bool(control.waiting_task_ids({"dit.dit-1@host"})))

    assert rows.attempts(engine, job)[-2:] == [("dit", 1, "superseded"), ("dit", 2, None)]


def test_job_of_a_worker_that_hangs_goes_to_another(
    engine: Engine, make_driver: MakeDriver, control: LiveControl
) -> None:
    """It renews its lease and takes no step; a step in time would have been enough."""
    hung = rows.registered(engine, Phase.DIT, name="dit-0@host")
    claim = rows.holding(engine, Phase.DIT, by=hung)
    rows.registered(engine, Phase.DIT, name="dit-1@host")
    limits = Limits(
        look_ahead=2,
        decode_backlog=4,
        max_worker_losses=3,
        hang=HangLimits(steps=0.0, floor_s=1.5),
    )
    driver = make_driver(pace=pace(lease_s=600.0), limits=limits)
    rounds(driver, 1.0)
    control.report(claim.job_id, Progress(attempt=1, step=1, step_s=0.1))
    reported_s = time.monotonic()

    rounds_until(driver, lambda: bool(control.waiting_task_ids({"dit.dit-1@host"})))

    assert time.monotonic() - reported_s >= 1.5
    assert rows.history(engine, claim.job_id)[-1] == ("timed_out", "denoising", "encoded")
    assert rows.row(engine, claim.job_id)["timeouts"] == 1


def test_job_that_kills_its_workers_fails_and_the_others_go_on(
    engine: Engine, make_driver: MakeDriver
) -> None:
    """Poison is told from bad luck by a limit."""
    victims = [rows.registered(engine, Phase.VAE) for _ in range(4)]
    poison, neighbour = rows.waiting_for(engine, Phase.VAE), rows.waiting_for(engine, Phase.VAE)
    other = rows.claimed(engine, neighbour, by=victims[3])
    driver = make_driver()

    for victim in victims[:3]:
        rows.claimed(engine, poison, by=victim)
        rows.lost(engine, victim)
        driver = make_driver()
        driver.round()

    assert rows.row(engine, poison)["failure_code"] == "worker_lost"
    assert rows.row(engine, poison)["state"] == JobState.FAILED
    rows.finished(engine, other)
    assert rows.row(engine, neighbour)["state"] == JobState.SUCCEEDED


class Stalling(SchedulerStore):
    """A database that once lets its clients wait."""

    stall_s = 0.0

    def snapshot(self, **how: Any) -> Snapshot:
        """The world, after the stall."""
        time.sleep(self.stall_s)
        self.stall_s = 0.0
        return super().snapshot(**how)


def test_nobody_is_lost_because_the_database_stood_still(
    engine: Engine, make_driver: MakeDriver
) -> None:
    """Who could not renew during the stall has a lease time for it afterwards."""
    store = Stalling(engine, term=begin_term(engine, holder="test"))
    driver = make_driver(store=store, pace=pace())
    rounds(driver, LEASE_S + 0.1)
    worker = rows.registered(engine, Phase.DIT, lease_s=LEASE_S / 2)
    claim = rows.holding(engine, Phase.DIT, by=worker)

    store.stall_s = LEASE_S
    driver.round()
    assert rows.row(engine, claim.job_id)["holder"] == worker

    took_s = rounds_until(driver, lambda: rows.row(engine, claim.job_id)["holder"] is None)
    assert took_s > LEASE_S / 2

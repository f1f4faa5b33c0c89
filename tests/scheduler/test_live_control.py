from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from celery import Celery
from kombu.simple import SimpleQueue
from redis import Redis, RedisError

from ddit_batch.control import MAILBOX_TTL_S, LiveControl, redis_url
from ddit_batch.dispatch import Dispatcher
from ddit_batch.job import Incarnation, JobId, WorkerName
from ddit_batch.messages import Call, Letter, Member
from ddit_batch.protocol import PROTOCOL
from ddit_batch.snapshot import Instruction, Progress

JOB, OTHER = JobId("b0-000001"), JobId("b0-000002")


def a_letter(**changes: object) -> Letter:
    fields = {
        "attempt": 3,
        "instruction": Instruction.CONTINUE,
        "group": (WorkerName("dit-0@host"), WorkerName("dit-1@host")),
        "epoch": 17,
    }
    return Letter(**{**fields, **changes})


def progress(step: int) -> Progress:
    return Progress(attempt=1, step=step, step_s=0.25)


def test_letter_stays_in_its_mailbox_however_often_it_is_read(control: LiveControl) -> None:
    """A mailbox holds a state, not a message."""
    control.write_letter(JOB, a_letter())

    assert [control.read_letter(JOB) for _ in range(3)] == [a_letter()] * 3
    assert control.read_letter(OTHER) is None


@pytest.mark.parametrize("instruction", list(Instruction))
def test_newer_letter_takes_the_place_of_the_older(
    control: LiveControl, instruction: Instruction
) -> None:
    """Only the last word counts."""
    control.write_letter(JOB, a_letter(attempt=1))
    newer = a_letter(instruction=instruction, group=())

    control.write_letter(JOB, newer)

    assert control.read_letter(JOB) == newer


def test_letter_that_nobody_rewrites_becomes_void(control: LiveControl, redis: Redis) -> None:
    """A scheduler that is gone does not go on to rule."""
    control.write_letter(JOB, a_letter())

    (key,) = redis.keys("*mailbox*")
    assert 0 < redis.ttl(key) <= MAILBOX_TTL_S


def test_empty_mailbox_of_an_emptied_broker_means_no_change(
    control: LiveControl, redis: Redis
) -> None:
    """All of it may vanish at any moment."""
    control.write_letter(JOB, a_letter())
    control.report(JOB, progress(1))

    redis.flushdb()

    assert control.read_letter(JOB) is None
    assert control.reports() == {}


def test_last_report_of_every_job_is_kept(control: LiveControl) -> None:
    """How far they are, not how they came there."""
    for step in (1, 2, 3):
        control.report(JOB, progress(step))
    control.report(OTHER, progress(7))

    assert control.reports() == {JOB: progress(3), OTHER: progress(7)}


def test_reports_of_jobs_that_are_done_are_forgotten(control: LiveControl) -> None:
    """Else they would be read for ever."""
    control.report(JOB, progress(3))
    control.report(OTHER, progress(7))

    control.forget_reports([])
    control.forget_reports({JOB, JobId("b0-000003")})

    assert control.reports() == {OTHER: progress(7)}


def test_waiting_messages_are_found_by_their_task_ids(
    control: LiveControl, dispatcher: Dispatcher
) -> None:
    """Those of the queues that were asked for, the next links of chains not among them."""
    dispatcher.encode(JOB, 1)
    dispatcher.encode(OTHER, 2)
    dispatcher.dit_then_vae(JOB, 1, queue="dit.dit-0@host", vae_attempt=1)
    dispatcher.vae(OTHER, 3)

    assert control.waiting_task_ids({"encode", "vae"}) == {
        f"{JOB}.encode.a1",
        f"{OTHER}.encode.a2",
        f"{OTHER}.vae.a3",
    }
    assert control.waiting_task_ids({"dit.dit-0@host"}) == {f"{JOB}.dit.a1"}
    assert control.waiting_task_ids({"dit.dit-1@host"}) == frozenset()
    assert control.waiting_task_ids(()) == frozenset()


def test_message_that_a_worker_has_taken_does_not_wait(
    control: LiveControl, dispatcher: Dispatcher, app: Celery, redis: Redis
) -> None:
    """Taken is not claimed: until its worker gives it back or claims it, it is nowhere."""
    dispatcher.encode(JOB, 1)
    with app.connection() as connection:
        queue = SimpleQueue(connection.channel(), "encode", no_ack=False)
        message = queue.get(timeout=5)
        taken = [json.loads(text)[0]["headers"]["id"] for text in redis.hvals("unacked")]

        assert taken == [f"{JOB}.encode.a1"]
        assert control.waiting_task_ids({"encode"}) == frozenset()

        message.requeue()
        assert control.waiting_task_ids({"encode"}) == {f"{JOB}.encode.a1"}


CALLS: dict[str, Callable[[LiveControl], object]] = {
    "write_letter": lambda control: control.write_letter(JOB, a_letter()),
    "read_letter": lambda control: control.read_letter(JOB),
    "report": lambda control: control.report(JOB, progress(1)),
    "reports": lambda control: control.reports(),
    "forget_reports": lambda control: control.forget_reports([JOB]),
    "waiting_task_ids": lambda control: control.waiting_task_ids({"encode"}),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_broker_that_is_away_is_one_kind_of_error_and_soon_told(
    call: Callable[[LiveControl], object], tmp_path: object
) -> None:
    """A step loop that asks in vain must not wait long."""
    control = LiveControl(f"redis+socket://{tmp_path}/nobody.sock")

    begun = time.monotonic()
    with pytest.raises(RedisError):
        call(control)

    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("celery_says", "redis_says"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("rediss://:secret@host:6379/3", "rediss://:secret@host:6379/3"),
        ("redis+socket:///run/valkey.sock", "unix:///run/valkey.sock"),
        ("redis+socket:///run/valkey.sock?virtual_host=3", "unix:///run/valkey.sock?db=3"),
        ("redis+socket:///run/v.sock?virtual_host=/3", "unix:///run/v.sock?db=3"),
        (
            "redis+socket:///run/v.sock?client_name=me&virtual_host=3",
            "unix:///run/v.sock?client_name=me&db=3",
        ),
    ],
)
def test_urls_of_celery_are_those_of_the_redis_client(celery_says: str, redis_says: str) -> None:
    """Both sides must talk to the same database of the same server."""
    assert redis_url(celery_says) == redis_says


def test_celery_and_live_control_meet_in_the_database_that_the_url_names(
    broker_url: str, broker: str, dispatcher: Dispatcher
) -> None:
    """One URL, one database, for both kinds of client."""
    dispatcher.encode(JOB, 1)

    assert LiveControl(broker).waiting_task_ids({"encode"}) == {f"{JOB}.encode.a1"}
    assert f"{JOB}.encode.a1" not in LiveControl(broker_url).waiting_task_ids({"encode"})


@pytest.mark.parametrize("protocol", [PROTOCOL + 1, None])
def test_letters_and_calls_of_another_protocol_are_left_alone(
    control: LiveControl, redis: Redis, protocol: int | None
) -> None:
    """They might mean something else, whatever fields they have."""
    member = Member(name=WorkerName("dit-0@host"), incarnation=Incarnation(7))
    call = Call(job_id=JOB, attempt=1, epoch=4, model="m", members=(member,))
    control.write_letter(JOB, a_letter())
    control.call(Incarnation(7), call)
    mailbox, calls = f"ddit:mailbox:{JOB}", "ddit:calls:7"

    def in_protocol(text: object) -> str:
        fields = {**json.loads(str(text)), "protocol": protocol, "new": 1}
        return json.dumps({name: value for name, value in fields.items() if value is not None})

    redis.set(mailbox, in_protocol(redis.get(mailbox)))
    redis.lset(calls, 0, in_protocol(redis.lindex(calls, 0)))

    assert control.read_letter(JOB) is None
    assert control.next_call(Incarnation(7), 0.01) is None
    control.write_letter(JOB, a_letter())
    control.call(Incarnation(7), call)
    assert control.read_letter(JOB) == a_letter()
    assert control.next_call(Incarnation(7), 0.01) == call

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

import pytest
from celery import Celery
from redis import Redis

from ddit_batch.dispatch import VISIBILITY_TIMEOUT_S, Dispatcher
from ddit_batch.job import JobId
from ddit_batch.protocol import PROTOCOL

JOB = JobId("b0-000004")
QUEUE = "dit.dit-0@host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A Celery message as it lies in the broker."""

    headers: dict[str, object]
    content_type: str
    args: list[object]
    kwargs: dict[str, object]
    chain: list[dict[str, object]]


def messages(redis: Redis, queue: str) -> list[Message]:
    """What waits in *queue*, the oldest first."""
    found = [json.loads(text) for text in reversed(redis.lrange(queue, 0, -1))]
    bodies = [json.loads(base64.b64decode(message["body"])) for message in found]
    return [
        Message(
            headers=message["headers"],
            content_type=message["content-type"],
            args=args,
            kwargs=kwargs,
            chain=embed["chain"] or [],
        )
        for message, (args, kwargs, embed) in zip(found, bodies, strict=True)
    ]


def test_encode_message_is_the_root_of_its_job(dispatcher: Dispatcher, redis: Redis) -> None:
    """The first part of the chain, in the queue that all encode workers share."""
    dispatcher.encode(JOB, 1)

    (message,) = messages(redis, "encode")
    assert message.headers["task"] == "ddit.encode"
    assert message.headers["id"] == message.headers["root_id"] == "b0-000004.encode.a1"
    assert message.headers["parent_id"] is None
    assert message.chain == []


def test_dit_message_carries_the_vae_task_behind_it(dispatcher: Dispatcher, redis: Redis) -> None:
    """The second part of the chain: Celery publishes its last link when DiT returns."""
    dispatcher.dit_then_vae(JOB, 2, queue=QUEUE, vae_attempt=5)

    (message,) = messages(redis, QUEUE)
    assert message.headers["task"] == "ddit.dit"
    assert message.headers["id"] == "b0-000004.dit.a2"
    (link,) = message.chain
    assert link["task"] == "ddit.vae"
    assert link["kwargs"] == {"job_id": JOB, "attempt": 5, "protocol": PROTOCOL}
    assert link["options"]["task_id"] == "b0-000004.vae.a5"
    assert link["options"]["queue"] == "vae"
    assert link["immutable"]
    assert messages(redis, "vae") == []


def test_second_part_is_joined_to_the_first(dispatcher: Dispatcher, redis: Redis) -> None:
    """Flower shows one tree: root and parent are the job's first encode task, at any attempt."""
    dispatcher.dit_then_vae(JOB, 7, queue=QUEUE, vae_attempt=1)

    (message,) = messages(redis, QUEUE)
    assert message.headers["root_id"] == "b0-000004.encode.a1"
    assert message.headers["parent_id"] == "b0-000004.encode.a1"
    assert message.chain[0]["options"]["root_id"] == "b0-000004.encode.a1"


def test_vae_message_of_a_later_attempt_belongs_to_the_same_job(
    dispatcher: Dispatcher, redis: Redis
) -> None:
    """What remains of a chain after a fault."""
    dispatcher.vae(JOB, 2)

    (message,) = messages(redis, "vae")
    assert message.headers["task"] == "ddit.vae"
    assert message.headers["id"] == "b0-000004.vae.a2"
    assert message.headers["root_id"] == "b0-000004.encode.a1"
    assert message.chain == []


def test_later_encode_attempts_keep_the_root(dispatcher: Dispatcher, redis: Redis) -> None:
    """The root is that of the first attempt, also when the first is long gone."""
    dispatcher.encode(JOB, 3)

    (message,) = messages(redis, "encode")
    assert message.headers["id"] == "b0-000004.encode.a3"
    assert message.headers["root_id"] == "b0-000004.encode.a1"


def test_message_names_a_job_and_an_attempt_and_nothing_else(
    dispatcher: Dispatcher, redis: Redis
) -> None:
    """Celery is transport: prompts and keys are in Postgres."""
    dispatcher.encode(JOB, 1)
    dispatcher.dit_then_vae(JOB, 1, queue=QUEUE, vae_attempt=1)
    dispatcher.vae(JOB, 1)

    for message in (m for queue in ("encode", QUEUE, "vae") for m in messages(redis, queue)):
        assert message.content_type == "application/json"
        assert message.args == []
        assert message.kwargs == {"job_id": JOB, "attempt": 1, "protocol": PROTOCOL}
        assert message.headers["kwargsrepr"] == "job=b0-000004 attempt=1"


def test_message_sent_again_is_the_same_task(dispatcher: Dispatcher, redis: Redis) -> None:
    """The attempt gives the id, so a duplicate can be told."""
    for _ in range(2):
        dispatcher.dit_then_vae(JOB, 1, queue=QUEUE, vae_attempt=1)

    ids = [message.headers["id"] for message in messages(redis, QUEUE)]
    assert ids == ["b0-000004.dit.a1"] * 2


@pytest.mark.parametrize("queue", ["encode", QUEUE, "vae"])
def test_messages_of_a_queue_keep_their_order(
    dispatcher: Dispatcher, redis: Redis, queue: str
) -> None:
    """First sent, first taken."""
    jobs = [JobId(f"b0-{n:06d}") for n in range(5)]
    send = {
        "encode": lambda job: dispatcher.encode(job, 1),
        QUEUE: lambda job: dispatcher.dit_then_vae(job, 1, queue=QUEUE, vae_attempt=1),
        "vae": lambda job: dispatcher.vae(job, 1),
    }[queue]

    for job in jobs:
        send(job)

    assert [message.kwargs["job_id"] for message in messages(redis, queue)] == jobs


def test_celery_keeps_no_results_and_delivers_nothing_twice_by_itself(app: Celery) -> None:
    """Lost workers are found by their leases; a job may run longer than any timeout of Redis."""
    assert app.conf.result_backend is None
    assert app.conf.task_acks_late
    assert not app.conf.task_reject_on_worker_lost
    assert app.conf.broker_transport_options["visibility_timeout"] == VISIBILITY_TIMEOUT_S
    assert VISIBILITY_TIMEOUT_S >= 7 * 24 * 3600
    assert list(app.conf.accept_content) == ["json"]
